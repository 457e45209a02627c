"""What goes over the wire: prompts and images in, scores out; as JSON, or in bulk as an Arrow IPC stream.

A client imports this too, so it needs neither torch nor ray. What comes from outside is refused with a WireError.
"""

import base64
import binascii
import struct
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
REQUEST = pa.schema([("prompt", pa.string()), ("image", pa.binary())])
ANSWERS = pa.schema(
    [
        ("score", pa.float64()),
        ("aspects", pa.map_(pa.string(), pa.float64())),
        ("uncertainty", pa.float64()),
        ("model", pa.string()),
        ("digest", pa.string()),
        ("status", pa.int16()),
        ("error", pa.string()),
    ]
)
UNREADABLE, FAILED, LOST = 422, 500, 503  # statuses of items that have no score
_MODEL = b"model"  # in the schema's metadata


class WireError(ValueError):
    """A body that is no request or no answer. The message says what to write instead."""


class Item(NamedTuple):
    """One image, the bytes of its file, and the prompt to score it for; None where the image was no base64."""

    prompt: str
    image: bytes | None


class Request(NamedTuple):
    """Items to score, by the model of this name or, without one, by the endpoint's first."""

    items: list[Item]
    model: str | None = None


class Answer(BaseModel):
    """What the endpoint says of one item: a score, or the reason why there is none."""

    model_config = ConfigDict(allow_inf_nan=False)

    score: float | None = Field(None, description="Mean 0, standard deviation 1 over the model's training images.")
    aspects: dict[str, float] = Field({}, description="A score for each aspect, in the same unit.")
    uncertainty: float | None = Field(None, description="Standard deviation of what the score cannot tell.")
    model: str = Field(description="Name of the model that scored.")
    digest: str | None = Field(None, description="Of its weights and settings.")
    status: int = Field(200, description="200, or the HTTP status that this item alone would have had.")
    error: str | None = Field(None, description="Why there is no score.")


class JsonItem(BaseModel):
    """One image and its prompt."""

    prompt: str = Field(description="What the image was asked to show.")
    image: str = Field(description="A PNG, JPEG or WebP file, in base64.")


class JsonRequest(BaseModel):
    """Images to score, in the order in which the answers come."""

    # Unknown names are told by `read_json`: pydantic would list them all, at hundreds of times the body.
    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": False})

    model: str | None = Field(None, description="Name of a model of /v1/models; left out: the first.")
    # It stops at the first mistake: a list of them would be many times as large as the body.
    items: Annotated[list[JsonItem], FailFast()] = Field(min_length=1, description="Each is scored on its own.")


class JsonAnswers(BaseModel):
    """One answer for each item, in the order of the items."""

    items: list[Answer]


def read_json(body: bytes) -> Request:
    """A request in JSON."""
    try:
        request = JsonRequest.model_validate_json(body)
    except ValidationError as error:
        places = [
            f"{'.'.join(map(str, each['loc'])) or 'the body'}: {each['msg']}"
            for each in error.errors(include_input=False, include_url=False)
        ]
        raise _unusable("; ".join(places)) from None
    if unknown := list(request.model_extra or {})[:3]:
        raise _unusable(f"there is no field {', '.join(name[:40] for name in unknown)}")
    return Request([Item(item.prompt, _bytes(item.image)) for item in request.items], request.model)


def _unusable(told: str) -> WireError:
    return WireError(f'{told}. Write {{"items": [{{"prompt": TEXT, "image": BASE64}}]}}')


def _bytes(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def read_arrow(body: bytes, most: int) -> Request:
    """A request as an Arrow IPC stream of at most so many rows, with the model's name in the schema's metadata."""
    try:
        for message in pa.ipc.MessageReader.open_stream(body):
            if message.type == "dictionary" or (message.type == "record batch" and _compressed(message)):
                raise WireError("the stream is compressed or has dictionaries: write it without")
        with pa.ipc.open_stream(body) as reader:
            schema = reader.schema
            _check(schema)
            items: list[Item] = []
            for batch in reader:
                batch.validate(full=True)
                if len(items) + batch.num_rows > most:
                    raise WireError(f"more than {most} rows: send several requests")
                items += map(Item, batch["prompt"].to_pylist(), batch["image"].to_pylist())
    except (pa.ArrowException, struct.error, OSError, UnicodeDecodeError) as error:
        raise WireError(f"no Arrow IPC stream: {error}") from None
    if any(item.prompt is None or item.image is None for item in items):
        raise WireError("a prompt or an image is null: write text and bytes, or leave the row out")
    model = (schema.metadata or {}).get(_MODEL)
    return Request(items, model.decode(errors="replace") if model else None)


def _check(schema: pa.Schema) -> None:
    texts, files = (pa.string(), pa.large_string()), (pa.binary(), pa.large_binary())
    kinds = dict(zip(schema.names, schema.types, strict=True))
    if sorted(schema.names) != ["image", "prompt"] or kinds["prompt"] not in texts or kinds["image"] not in files:
        listed = ", ".join(f"{name} ({kind})" for name, kind in zip(schema.names, schema.types, strict=True))
        raise WireError(f"the columns are {listed[:300] or 'none'}: write prompt (string) and image (binary)")


def _compressed(message: pa.Message) -> bool:
    """Whether a batch's buffers are compressed: a few bytes can then stand for any number, and no limit would hold.

    Reference: Arrow's format, Message.fbs: a RecordBatch (third field of Message) is compressed if its fourth is there.
    """
    buffer = memoryview(message.metadata)
    root = struct.unpack_from("<I", buffer)[0]
    if _field(buffer, root, 4):  # custom metadata, which is how Arrow 0.17 said that buffers are compressed
        return True
    header = _field(buffer, root, 2)
    header += struct.unpack_from("<I", buffer, header)[0]
    return _field(buffer, header, 3) != 0


def _field(buffer: memoryview, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table lies; 0 if it is left out."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    size, entry = struct.unpack_from("<H", buffer, vtable)[0], 4 + 2 * number
    offset = struct.unpack_from("<H", buffer, vtable + entry)[0] if entry < size else 0
    return table + offset if offset else 0


def write_arrow(request: Request) -> bytes:
    """A request as an Arrow IPC stream."""
    metadata = {_MODEL: request.model} if request.model else None
    prompts, images = ([item[column] for item in request.items] for column in (0, 1))
    return _stream(pa.record_batch([pa.array(prompts, pa.string()), pa.array(images, pa.binary())], REQUEST), metadata)


def write_answers(answers: Sequence[Answer]) -> bytes:
    """Answers as an Arrow IPC stream."""
    rows: list[dict[str, Any]] = [{**dict(answer), "aspects": list(answer.aspects.items())} for answer in answers]
    return _stream(pa.RecordBatch.from_pylist(rows, ANSWERS), None)


def _stream(batch: pa.RecordBatch, metadata: dict[bytes, str] | None) -> bytes:
    batch = batch.replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def read_answers(body: bytes) -> list[Answer]:
    """Answers from an Arrow IPC stream."""
    try:
        with pa.ipc.open_stream(body) as reader:
            rows = reader.read_all().to_pylist()
        return [Answer.model_validate({**row, "aspects": dict(row["aspects"])}) for row in rows]
    except (pa.ArrowException, KeyError, OSError, TypeError, ValueError) as error:
        raise WireError(f"no answers: {error}") from None
