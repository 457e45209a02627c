"""Pictures to look at: which prompts of a run, how they were judged, and small copies of their images."""

import base64
import io
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from visionprefer.judging.scores import SCORED, Scores, scores
from visionprefer.pictures import Pictures
from visionprefer.run_folder import RunFolder
from visionprefer.schema import OVERALL

THUMBNAIL = 256  # pixels, the longer side
THUMBNAIL_BYTES = 20_000  # quality is lowered until a thumbnail is no larger
MOST_OF_A_PROMPT = 12  # images
COLUMNS = ["image_id", "prompt_id", "prompt", "split", "candidate", "model", "guidance_scale", "num_inference_steps"]


class Judged(NamedTuple):
    """One image."""

    row: dict[str, Any]  # COLUMNS
    overall: float | None
    aspects: list[tuple[str, float | None, list[str]]]  # name, score, rationales
    oracle: dict[str, Any] | None  # ORACLE; None if the run used no built-in model


class Thumbnail(NamedTuple):
    """A small copy of an image."""

    uri: str  # its data
    width: int  # pixels
    height: int


class Prompt(NamedTuple):
    """One prompt and its images."""

    prompt: str
    split: str
    margin: float | None  # best overall score − worst; None where fewer than two images have one
    images: list[Judged]  # from best to worst, then those without a score
    left_out: int  # images that are not shown: neither the best nor the worst


class Gallery:
    """The prompts of a finished run by their margins; the pictures of those that are asked for."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        judgements = run.judgements(SCORED)
        self._scored = scores(judgements, run.images.table(COLUMNS), run.recipe.preferences.weights)
        self._margins = _margins(self._scored)
        self._by_margin = sorted(self._margins, key=lambda i: (-_or(self._margins[i], -1), i))

    def __len__(self) -> int:
        return len(self._by_margin)

    def spread(self, most_prompts: int, most_pictures: int) -> list[str]:
        """Ids of prompts evenly spaced in the order of their margins, the largest first."""
        counts = pc.value_counts(self._scored.images["prompt_id"]).field("counts")
        pictures = min(MOST_OF_A_PROMPT, pc.max(counts).as_py() or 1)
        most = max(1, min(most_prompts, most_pictures // pictures, len(self)))
        last = max(0, len(self) - 1)
        return [self._by_margin[place] for place in np.linspace(0, last, most).round().astype(int)[: len(self)]]

    def contrasts(self, most_prompts: int) -> list[str]:
        """Ids of the prompts whose best and worst image differ most."""
        return [prompt_id for prompt_id in self._by_margin[:most_prompts] if self._margins[prompt_id]]

    def prompts(self, prompt_ids: Iterable[str]) -> dict[str, Prompt]:
        """What there is to show of these prompts, in this order."""
        by_prompt = self.judged(prompt_ids)
        return {prompt_id: _prompt(images, self._margins[prompt_id]) for prompt_id, images in by_prompt.items()}

    def judged(self, prompt_ids: Iterable[str]) -> dict[str, list[Judged]]:
        """All images of these prompts, in this order."""
        prompt_ids = list(prompt_ids)
        wanted = pa.array(prompt_ids, pa.string())
        rationales: dict[tuple[str, str], list[str]] = defaultdict(list)
        of_these = pc.field("prompt_id").isin(wanted)
        for row in self._run.judgements(["image_id", "scorer", "rationale"], where=of_these).to_pylist():
            rationales[row["image_id"], row["scorer"]] += [row["rationale"]] if row["rationale"] else []
        oracle = self._run.oracle()
        assessed = [] if oracle is None else oracle.filter(pc.is_in(oracle["prompt_id"], wanted)).to_pylist()
        by_image = {row["image_id"]: row for row in assessed}
        by_prompt: dict[str, list[Judged]] = {prompt_id: [] for prompt_id in prompt_ids}
        images = self._scored.images
        for place in np.flatnonzero(pc.is_in(images["prompt_id"], wanted).to_numpy()):
            [row] = images.slice(place, 1).to_pylist()
            values = [None if np.isnan(value) else float(value) for value in self._scored.values_NA[place]]
            scored = dict(zip(self._scored.aspects, values, strict=True))
            overall = scored.pop(OVERALL, None)
            aspects = [(name, value, rationales[row["image_id"], name]) for name, value in scored.items()]
            by_prompt[row["prompt_id"]].append(Judged(row, overall, aspects, by_image.get(row["image_id"])))
        return by_prompt

    def thumbnails(self, images: Iterable[Judged]) -> dict[str, Thumbnail]:
        """A small copy of each image, by id; images that cannot be decoded are left out."""
        wanted = dict.fromkeys(judged.row["image_id"] for judged in images)
        found = {}
        for row in Pictures(self._run).rows(wanted):
            try:
                with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
                    found[row["image_id"]] = _thumbnail(image.convert("RGB"))
            except (OSError, Image.DecompressionBombError):
                continue
        return found


def _margins(scored: Scores) -> dict[str, float | None]:
    """Best − worst overall score of each prompt."""
    prompts = scored.images["prompt_id"].combine_chunks().dictionary_encode()
    overall_N = scored.values_NA[:, -1] if scored.aspects else np.full(scored.images.num_rows, np.nan)
    there = ~np.isnan(overall_N)
    prompt_S, overall_S = prompts.indices.to_numpy()[there], overall_N[there]
    best, worst = np.full(len(prompts.dictionary), -np.inf), np.full(len(prompts.dictionary), np.inf)
    np.maximum.at(best, prompt_S, overall_S)
    np.minimum.at(worst, prompt_S, overall_S)
    images = np.bincount(prompt_S, minlength=len(prompts.dictionary))
    margins = [margin if number > 1 else None for margin, number in zip((best - worst).tolist(), images, strict=True)]
    return dict(zip(prompts.dictionary.to_pylist(), margins, strict=True))


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _prompt(images: list[Judged], margin: float | None) -> Prompt:
    ordered = sorted(images, key=lambda judged: -_or(judged.overall, -np.inf))
    scored = [judged for judged in ordered if judged.overall is not None]
    half = MOST_OF_A_PROMPT // 2
    shown = ordered[:MOST_OF_A_PROMPT] if len(scored) <= MOST_OF_A_PROMPT else scored[:half] + scored[-half:]
    row = images[0].row
    return Prompt(row["prompt"], row["split"], margin, shown, len(ordered) - len(shown))


def _thumbnail(image: Image.Image) -> Thumbnail:
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    lossless = [100] if max(image.size) <= THUMBNAIL // 2 else []
    for quality in (*lossless, 85, 60, 35, 10):
        buffer = io.BytesIO()
        image.save(buffer, "webp", quality=quality, lossless=quality == 100)
        if buffer.tell() <= THUMBNAIL_BYTES:
            break
    return Thumbnail(f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}", *image.size)
