"""What each way to teach an image model was worth, by the word of the oracle, which taught none of them.

Shapes: P prompts.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visionprefer.errors import InputError
from visionprefer.intervals import interval_over_prompts
from visionprefer.schema import ASPECTS
from visionprefer.statistics.tables import Table

FIGURES = "comparison.json"
RIGHT = "fully_right"
MEASURES = (RIGHT, *ASPECTS)


class Share(NamedTuple):
    """A mean over prompts, with its 95 % interval: the percentile bootstrap over prompts."""

    mean: float
    low: float
    high: float


class Compared(NamedTuple):
    """The models of one method, a seed each.

    Attributes:
        method: how they were taught.
        models: how many.
        fully_right: share of the images on which all facts hold, the mean over the models.
        gained: by measure, the mean difference from the model before, prompt by prompt.
    """

    method: str
    models: int
    fully_right: Share
    gained: dict[str, Share]


def compare(oracle: pa.Table, images: pa.Table, before: str, methods: Mapping[str, Sequence[str]]) -> list[Compared]:
    """Set methods against the model that all of them began with, which comes first.

    Columns in: ORACLE; of IMAGES image_id, prompt_id and model.

    Args:
        before: that model, as the images name it.
        methods: the models of each.

    Raises:
        InputError: if a model drew another number of images for some prompt than one.
    """
    of_model = _by_model(oracle, images)
    for model in [before, *(model for models in methods.values() for model in models)]:
        if model not in of_model:
            raise InputError(f"{model}: no image of it is in the run. Its models are {', '.join(sorted(of_model))}")
        if of_model[model].keys() != of_model[before].keys():
            raise InputError(f"{model} did not draw the prompts that {before} drew: let a run with every_model do it")
    at_first = _values(of_model[before])
    found = [Compared("before", 1, _share(at_first[RIGHT]), {})]
    for method, models in methods.items():
        after = {
            measure: np.mean([_values(of_model[model])[measure] for model in models], axis=0) for measure in MEASURES
        }
        gained = {measure: _share(after[measure] - at_first[measure]) for measure in MEASURES}
        found.append(Compared(method, len(models), _share(after[RIGHT]), gained))
    return found


def suited_guidance(judgements: pa.Table, images: pa.Table) -> dict[str, float]:
    """By model, the guidance_scale with which the judge gives its images most, the mean over aspects and images.

    What a model learns from images that were drawn with guidance is in part what guidance does, and with as much of it
    as before it is then overdone.

    Columns in: of JUDGEMENTS image_id and score; of IMAGES image_id, model and guidance_scale.
    """
    drawn = judgements.select(["image_id", "score"]).join(images, "image_id", join_type="inner")
    means = drawn.group_by(["model", "guidance_scale"]).aggregate([("score", "mean")]).to_pylist()
    best = sorted(means, key=lambda row: (row["score_mean"], -row["guidance_scale"]))
    return {row["model"]: row["guidance_scale"] for row in best}


def write_figures(found: Sequence[Compared], folder: Path) -> None:
    """Write comparison.json."""
    (folder / FIGURES).write_text(json.dumps([row._asdict() for row in found], indent=2) + "\n", encoding="utf-8")


def read_figures(folder: Path) -> list[Compared]:
    """What `write_figures` wrote."""
    rows = json.loads((folder / FIGURES).read_text(encoding="utf-8"))
    return [
        Compared(
            row["method"],
            row["models"],
            Share(*row["fully_right"]),
            {measure: Share(*share) for measure, share in row["gained"].items()},
        )
        for row in rows
    ]


def tables(found: Sequence[Compared]) -> list[Table]:
    """What was found, for terminal and README."""
    right, gains = [], []
    for row in found:
        share, points = (f"{100 * row.fully_right.mean:.1f} %", _interval(row.fully_right)), ("", "")
        if row.gained:
            points = (f"{100 * row.gained[RIGHT].mean:+.1f}", _interval(row.gained[RIGHT], "+"))
            of_aspects = [row.gained[aspect] for aspect in ASPECTS]
            gains.append([row.method, *(f"{gain.mean:+.2f} ({gain.low:+.2f})" for gain in of_aspects)])
        right.append([row.method, str(row.models), *share, *points])
    aspects = [aspect.replace("_", " ") for aspect in ASPECTS]
    return [
        Table("Fully right", ["taught by", "models", "share", "95 %", "gained", "95 %"], right),
        Table("Gained in points of 1 to 5 (and the interval's lower bound)", ["taught by", *aspects], gains),
    ]


def _interval(share: Share, sign: str = "") -> str:
    return f"{100 * share.low:{sign}.1f} to {100 * share.high:{sign}.1f}"


def _by_model(oracle: pa.Table, images: pa.Table) -> dict[str, dict[str, dict[str, float]]]:
    """What the oracle says of each model's image of each prompt."""
    said = {row["image_id"]: row for row in oracle.to_pylist() if row["applicable"]}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for image in images.select(["image_id", "prompt_id", "model"]).to_pylist():
        if image["image_id"] not in said:
            continue
        of_model = found.setdefault(image["model"], {})
        if image["prompt_id"] in of_model:
            raise InputError(f"{image['model']} drew several images for a prompt: write images_per_prompt: 1")
        of_model[image["prompt_id"]] = {measure: float(said[image["image_id"]][measure]) for measure in MEASURES}
    return found


def _values(by_prompt: dict[str, dict[str, float]]) -> dict[str, NDArray[np.float64]]:
    """By measure, one value for each prompt, in one order: [P]."""
    return {measure: np.array([by_prompt[name][measure] for name in sorted(by_prompt)]) for measure in MEASURES}


def _share(value_P: NDArray[np.float64]) -> Share:
    mean = float(value_P.mean())
    if np.ptp(value_P) == 0:
        return Share(mean, mean, mean)
    return Share(mean, *interval_over_prompts(value_P, np.ones(len(value_P))))
