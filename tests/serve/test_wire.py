"""Requests and answers survive the wire; what is neither is refused, whatever its bytes."""

import base64
import contextlib
import json
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionprefer_serve import wire
from visionprefer_serve.wire import Answer, Item, Request, WireError

UNKNOWN = b"".join(b'"k%d": 1, ' % n for n in range(100_000))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
items = st.lists(st.builds(Item, texts, st.binary(max_size=50)), max_size=8)
answers = st.lists(
    st.builds(
        Answer,
        score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        aspects=st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
        uncertainty=st.none() | st.floats(0, 1),
        model=texts,
        digest=st.none() | texts,
        status=st.integers(200, 599),
        error=st.none() | texts,
    ),
    max_size=5,
)


def stream(batch: pa.RecordBatch, options: pa.ipc.IpcWriteOptions | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


@given(items, st.none() | texts.filter(bool))
def test_requests_in_arrow_and_in_json_arrive_as_they_were(items: list[Item], model: str | None) -> None:
    assert wire.read_arrow(wire.write_arrow(Request(items, model)), 8) == Request(items, model)
    listed = [{"prompt": prompt, "image": base64.b64encode(image or b"").decode()} for prompt, image in items]
    if items:
        assert wire.read_json(json.dumps({"items": listed, "model": model}).encode()) == Request(items, model)


@given(answers)
def test_answers_arrive_as_they_were(answers: list[Answer]) -> None:
    assert wire.read_answers(wire.write_answers(answers)) == answers


def test_an_image_that_is_no_base64_is_none_and_spares_the_others() -> None:
    body = json.dumps({"items": [{"prompt": "a", "image": "no base64!"}, {"prompt": "b", "image": "AAAA"}]})
    assert wire.read_json(body.encode()).items == [Item("a", None), Item("b", b"\0\0\0")]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "the body: Invalid JSON"),
        (b'{"items": []}', "items: List should have at least 1 item"),
        (b'{"items": [{"prompt": "a"}]}', r"items.0.image: Field required"),
        (b'{"items": [{"prompt": "a", "image": ""}], "modle": "x"}', "there is no field modle"),
        (b'{"items": [{"prompt": "\xff", "image": ""}]}', "the body: Invalid JSON"),
    ],
)
def test_what_is_wrong_with_json_is_told_without_repeating_it(body: bytes, told: str) -> None:
    with pytest.raises(WireError, match=told):
        wire.read_json(body)
    secret = b'{"items": [{"prompt": "a secret", "image": 5}]}'
    with pytest.raises(WireError) as error:
        wire.read_json(secret)
    assert "secret" not in str(error.value)


def test_more_rows_than_may_be_are_refused() -> None:
    body = wire.write_arrow(Request([Item("a", b"")] * 5))
    assert len(wire.read_arrow(body, 5).items) == 5
    with pytest.raises(WireError, match="more than 4 rows: send several requests"):
        wire.read_arrow(body, 4)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_compressed_stream_is_refused_before_it_is_unpacked(compression: str) -> None:
    """A hundred megabytes of nothing, in a few kilobytes."""
    batch = pa.record_batch({"prompt": pa.array(["a"]), "image": pa.array([bytes(100_000_000)])})
    body = stream(batch, pa.ipc.IpcWriteOptions(compression=compression))
    assert len(body) < 1_000_000
    del batch
    with pytest.raises(WireError, match="compressed"):
        wire.read_arrow(body, 5)


def test_a_stream_that_is_compressed_as_arrow_0_17_did_it_is_refused() -> None:
    """That version said so in the message's own metadata, and today's reader still believes it."""
    batch = pa.record_batch({"prompt": pa.array(["a"]), "image": pa.array([b"b"])})
    told = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=told) as writer:
        writer.write_batch(batch, custom_metadata={"ARROW:experimental_compression": "lz4"})
    with pytest.raises(WireError, match="compressed"):
        wire.read_arrow(sink.getvalue().to_pybytes(), 5)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"items": [' + b"1," * 100_000 + b"1]}", "items.0"),
        (
            b"{" + b"".join(b'"k%d": 1, ' % n for n in range(100_000)) + b'"items": [{"prompt": "", "image": ""}]}',
            "k0, k1",
        ),
        (b"{" + b"".join(b'"k%d": 1, ' % n for n in range(100_000)) + b'"items": 1}', "items: Input should be"),
    ],
)
def test_many_mistakes_are_as_cheap_as_one(body: bytes, told: str) -> None:
    """A list of them all would take hundreds of times the body."""
    tracemalloc.start()
    with pytest.raises(WireError, match=told):
        wire.read_json(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * len(body)


@pytest.mark.parametrize("names", [["prompt", "prompt", "image"], ["x" * 10_000]])
def test_strange_columns_are_told_in_short(names: list[str]) -> None:
    batch = pa.record_batch([pa.array(["a"])] * len(names), names=names)
    with pytest.raises(WireError, match="the columns are") as error:
        wire.read_arrow(stream(batch), 5)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"prompt": pa.array(["a"])}, r"the columns are prompt \(string\): write prompt"),
        ({"prompt": pa.array(["a"]), "image": pa.array(["a"])}, r"image \(string\): write"),
        ({"prompt": pa.array([None], pa.string()), "image": pa.array([b""])}, "a prompt or an image is null"),
        ({"prompt": pa.array(["a"]), "image": pa.array([None], pa.binary())}, "a prompt or an image is null"),
        ({"prompt": pa.array(["a"]).dictionary_encode(), "image": pa.array([b""])}, "dictionaries"),
    ],
)
def test_other_columns_are_refused(columns: dict[str, pa.Array], told: str) -> None:
    with pytest.raises(WireError, match=told):
        wire.read_arrow(stream(pa.record_batch(columns)), 5)


def test_large_types_are_taken_too() -> None:
    columns = {"prompt": pa.array(["a"], pa.large_string()), "image": pa.array([b"b"], pa.large_binary())}
    assert wire.read_arrow(stream(pa.record_batch(columns)), 5).items == [Item("a", b"b")]


@given(items.filter(bool), st.data())
def test_a_broken_stream_is_refused_or_read_and_nothing_else(items: list[Item], data: st.DataObject) -> None:
    body = bytearray(wire.write_arrow(Request(items)))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    for broken in (bytes(body), bytes(body[:cut])):
        with contextlib.suppress(WireError):
            wire.read_arrow(broken, 8)
