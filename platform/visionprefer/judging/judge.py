"""The judge: images in, one reply for each out. What runs the model is an engine, which knows nothing of rubrics."""

import base64
import contextlib
import io
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
from PIL import Image

from visionprefer.errors import InputError
from visionprefer.judging.rubric import UnusableReply, parse_reply, question, rubric_digest
from visionprefer.models import Model
from visionprefer.recipe import JudgeSettings
from visionprefer.schema import REPLIES, content_id

Row = dict[str, Any]


class Request(NamedTuple):
    """What an engine is asked."""

    images: list[Image.Image]  # in the order shown
    text: str
    seed: int
    temperature: float  # 0: the likeliest token


class Reply(NamedTuple):
    """What an engine answers: text, or the reason why there is none."""

    text: str | None
    prompt_tokens: int
    completion_tokens: int
    error: str | None = None
    cut_off: bool = False  # the text ended because its tokens ran out
    cost: float | None = None


class Engine(Protocol):
    """Runs a judge's model. The reply to each request stands at the request's place."""

    def ask(self, requests: list[Request]) -> list[Reply]:
        """Answer all requests. A request that cannot be answered is a reply with an error.

        Raises:
            InputError: if none can be answered, now or later.
        """

    def describe(self) -> str:
        """What was chosen, for the person at the terminal."""


def chat(request: Request) -> list[Row]:
    """A request as the messages of OpenAI's protocol, images as data URLs."""
    images = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in request.images]
    return [{"role": "user", "content": [*images, {"type": "text", "text": request.text}]}]


def judge_digest(model: Model, settings: JudgeSettings) -> str:
    """Identifies a judge: its model, the rubric, and every setting that an answer depends on."""
    answers_depend_on = settings.model_dump(exclude={"model", "revision", "api", "workers", "device", "batch_size"})
    return content_id("judge", model.digest, answers_depend_on, rubric_digest())


class Requests:
    """What a judge is asked about images, and what becomes of the answers. Who gives them it does not know."""

    def __init__(self, settings: JudgeSettings, model: Model) -> None:
        self.temperature = settings.temperature
        self.identity = {
            "judge": model.label,
            "judge_digest": judge_digest(model, settings),
            "rubric_digest": rubric_digest(),
            "mode": "single",
            "repeat": 0,
        }

    def rows(self, images: pa.Table) -> list[Row]:
        """A row of REPLIES for each image, not asked yet, with the image and its prompt beside it.

        Columns in: image_id, prompt_id, prompt, image.
        """
        return [self._row(image) for image in images.to_pylist()]

    def request(self, row: Row, asking: int) -> Request | None:
        """What is asked for a row; None if its image cannot be decoded, which is written into the row.

        Args:
            row: as from `rows`.
            asking: how many askings of this row went before; each has a seed of its own.
        """
        try:
            image = Image.open(io.BytesIO(row["image"])).convert("RGB")
        except (OSError, Image.DecompressionBombError) as error:
            row["error"] = f"the image cannot be decoded: {error}"
            return None
        seed = int(content_id(row["request_id"], asking)[:16], 16) >> 1
        temperature = self.temperature if asking == 0 else max(self.temperature, 0.7)
        return Request([image], question(row["prompt"]), seed, temperature)

    def _row(self, image: Row) -> Row:
        request_id = content_id("request", [image["image_id"]], *self.identity.values())
        nothing_yet = {"raw": None, "asked": 0, "prompt_tokens": 0, "completion_tokens": 0, "cost": None, "error": None}
        known = {"request_id": request_id, "image_ids": [image["image_id"]], "prompt_id": image["prompt_id"]}
        return known | self.identity | nothing_yet | {"image": image["image"]["bytes"], "prompt": image["prompt"]}


def enter(row: Row, reply: Reply) -> None:
    """Write an answer into a row, and what is wrong with it."""
    row["raw"] = reply.text
    row["asked"] += 1
    row["prompt_tokens"] += reply.prompt_tokens
    row["completion_tokens"] += reply.completion_tokens
    if reply.cost is not None:
        row["cost"] = (row["cost"] or 0.0) + reply.cost
    row["error"] = reply.error or _problem(reply)


def done_and_failed(rows: list[Row]) -> tuple[pa.Table, pa.Table]:
    """Rows as two tables of REPLIES: those that hold a verdict, and those that do not."""
    done = [row for row in rows if not row["error"]]
    failed = [row for row in rows if row["error"]]
    return pa.Table.from_pylist(done, schema=REPLIES), pa.Table.from_pylist(failed, schema=REPLIES)


class Judge:
    """A stage: one reply for each image.

    A reply that holds no verdict is asked for once more, with another seed; if that fails too the row is a failed one,
    which keeps the raw reply and says what is wrong with it.

    Columns in: image_id, prompt_id, prompt, image. Columns out: REPLIES, done and failed apart; each image is in one.

    References: single-image mode of VisionPrefer's annotation (arXiv 2404.15100, section 3).
    """

    def __init__(self, settings: JudgeSettings, model: Model, engine: Engine) -> None:
        self.requests = Requests(settings, model)
        self.engine = engine

    def __call__(self, images: pa.Table, generation: int = 0) -> tuple[pa.Table, pa.Table]:
        """Judge images; `generation` counts the runs that took up failed rows again, so that seeds differ."""
        rows = self.requests.rows(images)
        self._ask(rows, asking=2 * generation)
        with contextlib.suppress(InputError):  # what stops the run is told with the next images: these are paid for
            self._ask([row for row in rows if row["error"]], asking=2 * generation + 1)
        return done_and_failed(rows)

    def describe(self) -> str:
        """What was chosen, for the person at the terminal."""
        return self.engine.describe()

    def _ask(self, rows: list[Row], asking: int) -> None:
        """Ask about rows and write the answers into them."""
        asked = [(row, request) for row in rows if (request := self.requests.request(row, asking))]
        for (row, _), reply in zip(asked, self.engine.ask([request for _, request in asked]), strict=True):
            enter(row, reply)


def _data_url(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def _problem(reply: Reply) -> str | None:
    try:
        parse_reply(reply.text or "")
    except UnusableReply as problem:
        return f"cut off after {reply.completion_tokens} tokens: {problem}" if reply.cut_off else str(problem)
    return None
