"""What a judge is asked about images, and which of its replies can be used."""

import io
from itertools import groupby

import numpy as np
import pyarrow as pa
from PIL import Image

from visionprefer.judging import joint_rubric, rubric
from visionprefer.judging.asking import NOTHING_YET
from visionprefer.judging.engine import Reply, Request, Row
from visionprefer.models import Model
from visionprefer.recipe import JudgeSettings
from visionprefer.schema import REPLIES, content_id


def judge_digest(model: Model, settings: JudgeSettings) -> str:
    """Identifies a judge: its model, the rubric, and every setting that an answer depends on."""
    others = {"model", "revision", "api", "workers", "device", "batch_size", "mode", "swapped"}
    others |= set() if settings.sampling else {"sampling"}
    others |= set() if settings.repeats > 1 else {"repeats"}
    return content_id("judge", model.digest, settings.model_dump(exclude=others), _rubric_digest(settings))


class JudgeQuestions:
    """One request for each image or, in joint mode, for each prompt and order in which its images are shown.

    Columns of images: image_id, prompt_id, prompt, image, repeat. In joint mode the images of a request stand side by
    side in the order in which they are shown.

    References: VisionPrefer's annotation (arXiv 2404.15100, section 3).
    """

    schema = REPLIES

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
            return [self._row([image], image["repeat"]) for image in images.to_pylist()]
        together = groupby(images.to_pylist(), key=lambda image: (image["prompt_id"], image["repeat"]))
        return [self._row(list(shown), repeat) for (_, repeat), shown in together]

    def request(self, row: Row, asking: int) -> Request | None:
        """What is asked for a row; None if an image cannot be decoded, which is written into the row."""
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

    def problem(self, row: Row, reply: Reply) -> str | None:
        """Why a reply holds no verdict."""
        try:
            if row["mode"] == "single":
                rubric.parse_reply(reply.text or "")
            else:
                joint_rubric.parse_reply(reply.text or "", len(row["image_ids"]))
        except rubric.UnusableReply as problem:
            return f"cut off after {reply.completion_tokens} tokens: {problem}" if reply.cut_off else str(problem)
        return None

    def _row(self, shown: list[Row], repeat: int) -> Row:
        ids, identity = [image["image_id"] for image in shown], self.identity | {"repeat": repeat}
        request_id = content_id("request", ids, *identity.values())
        known = {"request_id": request_id, "image_ids": ids, "prompt_id": shown[0]["prompt_id"]}
        seen = {"images": [image["image"]["bytes"] for image in shown], "prompt": shown[0]["prompt"]}
        return known | identity | NOTHING_YET | seen


def repeated(images: pa.Table, times: int) -> pa.Table:
    """The images, each so many times, numbered in the column repeat."""
    rows, repeats = np.divmod(np.arange(images.num_rows * times), times)
    return images.take(rows).append_column("repeat", pa.array(repeats, pa.int32()))


def _rubric_digest(settings: JudgeSettings) -> str:
    return (rubric if settings.mode == "single" else joint_rubric).rubric_digest()
