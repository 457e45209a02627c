"""How right a judge was, and how right the images are, by the word of the oracle.

Shapes: N images.
"""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from visionprefer.intervals import interval_over_prompts
from visionprefer.judging.preferences import preferences
from visionprefer.judging.scores import scores
from visionprefer.judging.trust import AspectAgreement, agreements, compare
from visionprefer.recipe import PreferenceSettings
from visionprefer.schema import ASPECTS


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelRightness(_Figures):
    """The images of one model."""

    model: str | None  # null for images that existed already
    images: int
    fully_right: float  # share of which all facts hold
    low: float  # of the 95 % interval, prompts taken for independent
    high: float
    means: dict[str, float]  # of the oracle's scores, by aspect


class OracleFigures(_Figures):
    """What the oracle says of a run."""

    images: int  # of which it can say something
    not_applicable: int  # the prompt is outside the blocks world, or the image cannot be decoded
    aspects: dict[str, AspectAgreement]  # the rubric's, and "overall": the same weighted sum on both sides
    models: list[ModelRightness]  # the most images first


def agreement(judgements: pa.Table, oracle: pa.Table, images: pa.Table, weights: dict[str, float]) -> OracleFigures:
    """Compare the judge with the oracle, where the oracle is applicable.

    Columns in: JUDGEMENTS; ORACLE; of IMAGES image_id, prompt_id, prompt, split, candidate and model.

    Args:
        weights: of the aspects in the overall score.
    """
    known = oracle.filter(pc.field("applicable"))
    ids = known["image_id"].combine_chunks()
    images = images.filter(pc.is_in(images["image_id"], ids))
    judged = scores(judgements.filter(pc.is_in(judgements["image_id"], ids)), images, weights)
    truth = known_preferences(oracle, images, weights)
    aspects = [aspect for aspect in pc.unique(truth["aspect"]).to_pylist() if aspect in judged.aspects]
    return OracleFigures(
        images=known.num_rows,
        not_applicable=oracle.num_rows - known.num_rows,
        aspects=agreements(compare(judged, truth), sorted(aspects, key=judged.aspects.index)),
        models=_models(images["model"].to_pylist(), known.take(pc.index_in(images["image_id"], ids))),
    )


def known_preferences(oracle: pa.Table, images: pa.Table, weights: dict[str, float]) -> pa.Table:
    """What the oracle prefers: PREFERENCES of all pairs of images of one prompt of which it can say something.

    Columns in: ORACLE; of IMAGES image_id, prompt_id, prompt, split and candidate.
    """
    known = oracle.filter(pc.field("applicable"))
    columns = ["image_id", "scorer", "score"]
    parts = [
        pa.table([known["image_id"], pa.array([aspect] * known.num_rows, pa.string()), known[aspect]], columns)
        for aspect in ASPECTS
    ]
    return preferences(pa.concat_tables(parts), images, PreferenceSettings(weights=weights))


def _models(models: list[str | None], known: pa.Table) -> list[ModelRightness]:
    model_N = np.array(models, dtype=object)
    figures = []
    for model, images in Counter(model_N.tolist()).most_common():
        rows = known.filter(pa.array(model_N == model))
        prompt_N = rows["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        right_N = rows["fully_right"].to_numpy()
        low, high = interval_over_prompts(np.bincount(prompt_N, right_N), np.bincount(prompt_N))
        means = {aspect: pc.mean(rows[aspect]).as_py() for aspect in ASPECTS}
        figures.append(
            ModelRightness(model=model, images=images, fully_right=right_N.mean(), low=low, high=high, means=means)
        )
    return figures
