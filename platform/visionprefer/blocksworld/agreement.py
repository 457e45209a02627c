"""How right a judge was, and how right the images are, by the word of the oracle.

Shapes: N images, A aspects, P prompts.
"""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from visionprefer.intervals import interval_over_prompts
from visionprefer.judging.preferences import Scores, scores
from visionprefer.schema import ASPECTS


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AspectAgreement(_Figures):
    """Pairs of images of one prompt that both have a score of the judge, and to which the oracle gives unequal ones."""

    pairs: int
    agreement: float | None  # share that the judge puts in the oracle's order, a tie of the judge's counting half
    low: float | None  # of the 95 % interval, prompts taken for independent
    high: float | None
    tie_rate: float | None  # share to which the judge gives equal scores


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

    Columns in: JUDGEMENTS; ORACLE; of IMAGES image_id, prompt_id, candidate and model.

    Args:
        weights: of the aspects in the overall score.
    """
    known = oracle.filter(pc.field("applicable"))
    ids = known["image_id"].combine_chunks()
    images = images.filter(pc.is_in(images["image_id"], ids))
    judged = scores(judgements.filter(pc.is_in(judgements["image_id"], ids)), images, weights)
    true = scores(_long(known), images, weights)
    return OracleFigures(
        images=known.num_rows,
        not_applicable=oracle.num_rows - known.num_rows,
        aspects=_aspects(judged, true) if judged.aspects else {},
        models=_models(images["model"].to_pylist(), known.take(pc.index_in(images["image_id"], ids))),
    )


def _long(known: pa.Table) -> pa.Table:
    """The oracle's scores in the columns of JUDGEMENTS that `scores` reads."""
    columns = ["image_id", "scorer", "score"]
    parts = [
        pa.table([known["image_id"], pa.array([aspect] * known.num_rows, pa.string()), known[aspect]], columns)
        for aspect in ASPECTS
    ]
    return pa.concat_tables(parts)


def _aspects(judged: Scores, true: Scores) -> dict[str, AspectAgreement]:
    judged_NA, true_NA = judged.values_NA[:, [judged.aspects.index(name) for name in true.aspects]], true.values_NA
    prompt_N = true.images["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    begins = np.flatnonzero(np.diff(prompt_N, prepend=-1))[1:]  # images are sorted by prompt
    counts = [
        _counts(of_judge, of_oracle)
        for of_judge, of_oracle in zip(np.split(judged_NA, begins), np.split(true_NA, begins), strict=True)
    ]
    wins_PA, ties_PA, pairs_PA = (np.stack(count) for count in zip(*counts, strict=True))
    by_aspect = zip(true.aspects, wins_PA.T, ties_PA.T, pairs_PA.T, strict=True)
    return {aspect: _agreement(*columns) for aspect, *columns in by_aspect}


def _counts(judged_NA: np.ndarray, true_NA: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wins, ties of the judge, and pairs, of the images of one prompt, by aspect."""
    first, second = np.triu_indices(len(true_NA), 1)
    said, is_so = (np.sign(values[first] - values[second]) for values in (judged_NA, true_NA))
    counted = (is_so != 0) & ~np.isnan(said)
    ties = ((said == 0) & counted).sum(axis=0)
    return ((said == is_so) & counted).sum(axis=0) + ties / 2, ties, counted.sum(axis=0)


def _agreement(wins_P: np.ndarray, ties_P: np.ndarray, pairs_P: np.ndarray) -> AspectAgreement:
    pairs = int(pairs_P.sum())
    if not pairs:
        return AspectAgreement(pairs=0, agreement=None, low=None, high=None, tie_rate=None)
    has_pairs = pairs_P > 0
    low, high = interval_over_prompts(wins_P[has_pairs], pairs_P[has_pairs])
    return AspectAgreement(
        pairs=pairs, agreement=wins_P.sum() / pairs, low=low, high=high, tie_rate=ties_P.sum() / pairs
    )


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
