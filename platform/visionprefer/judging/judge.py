"""The judge: images in, one reply for each out. What runs the model is an engine, which knows nothing of rubrics."""

import base64
import contextlib
import io
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
from PIL import Image

from visionprefer.errors import InputError
from visionprefer.judging import joint_rubric, rubric
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
    schema: dict[str, Any]  # JSON schema of the reply, where the engine holds it to one


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
    others = {"model", "revision", "api", "workers", "device", "batch_size", "mode", "swapped"}
    others |= set() if settings.sampling else {"sampling"}
    return content_id("judge", model.digest, settings.model_dump(exclude=others), _rubric_digest(settings))


class Requests:
    """What a judge is asked about images, and what becomes of the answers. Who gives them it does not know.

    Columns of images: image_id, prompt_id, prompt, image; in joint mode repeat too, and the images of a request stand
    side by side in the order in which they are shown.
    """

    def __init__(self, settings: JudgeSettings, model: Model) -> None:
        self.settings = settings
        self.identity = {
            "judge": model.label,
            "judge_digest": judge_digest(model, settings),
            "rubric_digest": _rubric_digest(settings),
            "mode": settings.mode,
        }

    def rows(self, images: pa.Table) -> list[Row]:
        """A row of REPLIES for each request, not asked yet, with its images and its prompt beside it."""
        if self.settings.mode == "single":
            return [self._row([image], 0) for image in images.to_pylist()]
        together = groupby(images.to_pylist(), key=lambda image: (image["prompt_id"], image["repeat"]))
        return [self._row(list(shown), repeat) for (_, repeat), shown in together]

    def request(self, row: Row, asking: int) -> Request | None:
        """What is asked for a row; None if an image cannot be decoded, which is written into the row.

        Args:
            row: as from `rows`.
            asking: how many askings of this row went before; each has a seed of its own.
        """
        try:
            images = [Image.open(io.BytesIO(image)).convert("RGB") for image in row["images"]]
        except (OSError, Image.DecompressionBombError) as error:
            row["error"] = f"the image cannot be decoded: {error}"
            return None
        seed = int(content_id(row["request_id"], asking)[:16], 16) >> 1
        temperature = self.settings.temperature if asking == 0 else max(self.settings.temperature, 0.7)
        length = self.settings.rationale_length
        if self.settings.mode == "single":
            text, schema = rubric.question(row["prompt"]), rubric.reply_schema(length)
        else:
            text = joint_rubric.question(row["prompt"], len(images))
            schema = joint_rubric.reply_schema(length, len(images))
        return Request(images, text, seed, temperature, schema)

    def _row(self, shown: list[Row], repeat: int) -> Row:
        ids, identity = [image["image_id"] for image in shown], self.identity | {"repeat": repeat}
        request_id = content_id("request", ids, *identity.values())
        nothing_yet = {"raw": None, "asked": 0, "prompt_tokens": 0, "completion_tokens": 0, "cost": None, "error": None}
        known = {"request_id": request_id, "image_ids": ids, "prompt_id": shown[0]["prompt_id"]}
        seen = {"images": [image["image"]["bytes"] for image in shown], "prompt": shown[0]["prompt"]}
        return known | identity | nothing_yet | seen


def enter(row: Row, reply: Reply) -> None:
    """Write an answer into a row, and what is wrong with it."""
    row["raw"] = reply.text
    row["asked"] += 1
    row["prompt_tokens"] += reply.prompt_tokens
    row["completion_tokens"] += reply.completion_tokens
    if reply.cost is not None:
        row["cost"] = (row["cost"] or 0.0) + reply.cost
    row["error"] = reply.error or _problem(row, reply)


def done_and_failed(rows: list[Row]) -> tuple[pa.Table, pa.Table]:
    """Rows as two tables of REPLIES: those that hold a verdict, and those that do not."""
    done = [row for row in rows if not row["error"]]
    failed = [row for row in rows if row["error"]]
    return pa.Table.from_pylist(done, schema=REPLIES), pa.Table.from_pylist(failed, schema=REPLIES)


class Judge:
    """A stage: one reply for each image or, in joint mode, for each prompt and order in which its images are shown.

    A reply that holds no verdict is asked for once more, with another seed; if that fails too the row is a failed one,
    which keeps the raw reply and says what is wrong with it.

    Columns in: see `Requests`. Columns out: REPLIES, done and failed apart; each request is in one.

    References: VisionPrefer's annotation (arXiv 2404.15100, section 3).
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


def _rubric_digest(settings: JudgeSettings) -> str:
    return (rubric if settings.mode == "single" else joint_rubric).rubric_digest()


def _problem(row: Row, reply: Reply) -> str | None:
    try:
        if row["mode"] == "single":
            rubric.parse_reply(reply.text or "")
        else:
            joint_rubric.parse_reply(reply.text or "", len(row["image_ids"]))
    except rubric.UnusableReply as problem:
        return f"cut off after {reply.completion_tokens} tokens: {problem}" if reply.cut_off else str(problem)
    return None
