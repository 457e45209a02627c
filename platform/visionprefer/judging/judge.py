"""The judge: images in, one reply for each out. What runs the model is an engine, which knows nothing of rubrics."""

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


def judge_digest(model: Model, settings: JudgeSettings) -> str:
    """Identifies a judge: its model, the rubric, and every setting that an answer depends on."""
    answers_depend_on = settings.model_dump(exclude={"model", "revision", "api", "workers", "device", "batch_size"})
    return content_id("judge", model.digest, answers_depend_on, rubric_digest())


class Judge:
    """A stage: one reply for each image.

    A reply that holds no verdict is asked for once more, with another seed; if that fails too the row is a failed one,
    which keeps the raw reply and says what is wrong with it.

    Columns in: image_id, prompt_id, prompt, image. Columns out: REPLIES, done and failed apart; each image is in one.

    References: single-image mode of VisionPrefer's annotation (arXiv 2404.15100, section 3).
    """

    def __init__(self, settings: JudgeSettings, model: Model, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self.identity = {
            "judge": model.label,
            "judge_digest": judge_digest(model, settings),
            "rubric_digest": rubric_digest(),
            "mode": "single",
            "repeat": 0,
        }

    def __call__(self, images: pa.Table, generation: int = 0) -> tuple[pa.Table, pa.Table]:
        """Judge images; `generation` counts the runs that took up failed rows again, so that seeds differ."""
        rows = [self._row(image) for image in images.to_pylist()]
        self._ask(rows, asking=2 * generation)
        with contextlib.suppress(InputError):  # what stops the run is told with the next images: these are paid for
            self._ask([row for row in rows if row["error"]], asking=2 * generation + 1)
        done = [row for row in rows if not row["error"]]
        failed = [row for row in rows if row["error"]]
        return pa.Table.from_pylist(done, schema=REPLIES), pa.Table.from_pylist(failed, schema=REPLIES)

    def describe(self) -> str:
        """What was chosen, for the person at the terminal."""
        return self.engine.describe()

    def _row(self, image: Row) -> Row:
        request_id = content_id("request", [image["image_id"]], *self.identity.values())
        nothing_yet = {"raw": None, "asked": 0, "prompt_tokens": 0, "completion_tokens": 0, "cost": None, "error": None}
        known = {"request_id": request_id, "image_ids": [image["image_id"]], "prompt_id": image["prompt_id"]}
        return known | self.identity | nothing_yet | {"image": image["image"]["bytes"], "prompt": image["prompt"]}

    def _ask(self, rows: list[Row], asking: int) -> None:
        """Ask about rows and write the answers into them."""
        temperature = self.settings.temperature if asking == 0 else max(self.settings.temperature, 0.7)
        requests, asked = [], []
        for row in rows:
            try:
                image = Image.open(io.BytesIO(row["image"])).convert("RGB")
            except (OSError, Image.DecompressionBombError) as error:
                row["error"] = f"the image cannot be decoded: {error}"
                continue
            seed = int(content_id(row["request_id"], asking)[:16], 16) >> 1
            requests.append(Request([image], question(row["prompt"]), seed, temperature))
            asked.append(row)
        for row, reply in zip(asked, self.engine.ask(requests), strict=True):
            row["raw"] = reply.text
            row["asked"] += 1
            row["prompt_tokens"] += reply.prompt_tokens
            row["completion_tokens"] += reply.completion_tokens
            if reply.cost is not None:
                row["cost"] = (row["cost"] or 0.0) + reply.cost
            row["error"] = reply.error or _problem(reply)


def _problem(reply: Reply) -> str | None:
    try:
        parse_reply(reply.text or "")
    except UnusableReply as problem:
        return f"cut off after {reply.completion_tokens} tokens: {problem}" if reply.cut_off else str(problem)
    return None
