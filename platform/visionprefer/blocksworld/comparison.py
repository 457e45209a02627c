"""What each way to teach an image model was worth, by the word of the oracle, which taught none of them.

Shapes: P prompts.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visionprefer.errors import InputError
from visionprefer.intervals import interval_over_prompts
from visionprefer.schema import ASPECTS

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
