"""How far a judge can be trusted: the order in which its scores put pairs of images against an order that is known.

Shapes: P pairs.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from visionprefer.intervals import interval_of_pairs, wilson_interval
from visionprefer.judging.scores import DECIMALS, Scores
from visionprefer.schema import OVERALL

COLUMNS = ["prompt_id", "image_id_0", "image_id_1", "aspect", "label"]  # of PREFERENCES, that an audit reads


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AspectAgreement(_Figures):
    """Pairs of images of one prompt that both have a score of the judge, and of which one is known to be better."""

    pairs: int
    agreement: float | None  # share that the judge puts in the known order, a tie of the judge's counting half
    low: float | None  # of the 95 % interval, prompts taken for independent
    high: float | None
    tie_rate: float | None  # share to which the judge gives equal scores


class Certainty(_Figures):
    """Pairs of one aspect whose scores by the judge lie so far apart: a judge that knows what it knows is right more
    often the further apart they are."""

    aspect: str
    points: int  # between the scores, rounded, at least 1
    pairs: int
    agreement: float
    low: float  # of the 95 % interval, prompts taken for independent
    high: float


class Leaning(_Figures):
    """Pairs of which one image was made with a value and the other with another: how often each side prefers it."""

    value: str | float
    pairs: int
    judge: float  # share of the pairs, ties counting half
    known: float
    low: float  # of the 95 % interval of judge − known, prompts taken for independent
    high: float


def compare(judged: Scores, known: pa.Table) -> pa.Table:
    """Lay the judge's order beside the known one.

    Args:
        judged: of the images, as `preferences.scores` lays them out.
        known: of PREFERENCES prompt_id, image_id_0, image_id_1, aspect and label.

    Returns:
        The pairs that are no tie in `known` and whose images the judge gave a score in that aspect: `known`'s columns,
        but for prompt_id, which is that of the judged images; and better (+1 where image 0 is known to be better, −1
        where image 1 is), said (+1, 0 or −1 likewise, by the judge) and margin (points between the judge's scores).
    """
    known = known.select(COLUMNS).filter(pc.field("label") != 0.5)
    aspects = pa.array(judged.aspects, pa.string())
    ids = judged.images["image_id"].combine_chunks()
    places = [pc.index_in(known[name], ids) for name in ("image_id_0", "image_id_1")] + [
        pc.index_in(known["aspect"], aspects)
    ]
    is_there = pc.and_(pc.and_(*(pc.is_valid(place) for place in places[:2])), pc.is_valid(places[2]))
    known = known.filter(is_there)
    image_0_P, image_1_P, aspect_P = (place.filter(is_there).to_numpy().astype(np.int64) for place in places)
    difference_P = judged.values_NA[image_0_P, aspect_P] - judged.values_NA[image_1_P, aspect_P]
    prompt_P = judged.images["prompt_id"].take(image_0_P)  # another dataset may have named the prompt otherwise
    known = known.set_column(known.column_names.index("prompt_id"), "prompt_id", prompt_P)
    pairs = known.append_column("better", pa.array(np.sign(known["label"].to_numpy() - 0.5)))
    pairs = pairs.append_column("said", pa.array(np.sign(difference_P)))
    pairs = pairs.append_column("margin", pa.array(np.abs(difference_P).round(DECIMALS)))
    return pairs.filter(pa.array(~np.isnan(difference_P)))


def agreements(pairs: pa.Table, aspects: list[str]) -> dict[str, AspectAgreement]:
    """How often the judge is right, by aspect. Columns in: as `compare` returns."""
    return {aspect: _agreement(pairs.filter(pc.field("aspect") == aspect)) for aspect in aspects}


def certainties(pairs: pa.Table) -> list[Certainty]:
    """How often the judge is right where it is more or less certain; its ties, which say nothing, are left out."""
    decided = pairs.filter(pc.field("said") != 0)
    points_P = np.maximum(1, np.floor(decided["margin"].to_numpy() + 0.5)).astype(int)
    found = []
    for points in np.unique(points_P).tolist():
        so_far_apart = decided.filter(pa.array(points_P == points))
        for aspect in so_far_apart["aspect"].unique().to_pylist():
            of = _agreement(so_far_apart.filter(pc.field("aspect") == aspect))
            figures = of.model_dump(exclude={"tie_rate"})
            found.append(Certainty(aspect=aspect, points=points, **figures))
    return found


def leanings(pairs: pa.Table, images: pa.Table, column: str) -> list[Leaning]:
    """Whether the judge likes what was made with a value better or worse than is known to be right.

    Columns in: as `compare` returns, of one aspect; of IMAGES image_id and `column`. Pairs of equal value say nothing,
    nor do those where one is null.
    """
    ids = images["image_id"].combine_chunks()
    values = images[column].combine_chunks()
    value_0, value_1 = (values.take(pc.index_in(pairs[name].combine_chunks(), ids)) for name in COLUMNS[1:3])
    differ = pc.fill_null(pc.not_equal(value_0, value_1), False)
    found = []
    for value in sorted(pc.unique(values.drop_null()).to_pylist()):
        first, second = (pc.and_(pc.fill_null(pc.equal(side, value), False), differ) for side in (value_0, value_1))
        sign_P = (first.cast(pa.int8()).to_numpy() - second.cast(pa.int8()).to_numpy()).astype(float)
        if sign_P.any():
            found.append(_leaning(value, pairs, sign_P))
    return found


def worst(pairs: pa.Table, most: int) -> list[dict[str, Any]]:
    """The pairs of which the judge is most certain and wrong, at most one of a prompt; overall, if that is known."""
    overall = pairs.filter(pc.field("aspect") == OVERALL)
    pairs = overall if overall.num_rows else pairs
    wrong = pairs.filter(pc.equal(pairs["said"], pc.negate(pairs["better"]))).sort_by(
        [("margin", "descending"), ("prompt_id", "ascending"), ("image_id_0", "ascending")]
    )
    by_prompt: dict[str, dict[str, Any]] = {}
    for row in wrong.to_pylist():
        by_prompt.setdefault(row["prompt_id"], row)
    return list(by_prompt.values())[:most]


def _agreement(pairs: pa.Table) -> AspectAgreement:
    if not pairs.num_rows:
        return AspectAgreement(pairs=0, agreement=None, low=None, high=None, tie_rate=None)
    wins_P = _wins(pairs)
    low, high = interval_of_pairs(wins_P, _prompts(pairs))
    ties = (pairs["said"].to_numpy() == 0).mean()
    return AspectAgreement(pairs=pairs.num_rows, agreement=wins_P.mean(), low=low, high=high, tie_rate=ties)


def _leaning(value: str | float, pairs: pa.Table, sign_P: np.ndarray) -> Leaning:
    """`sign_P`: +1 where image 0 alone has the value, −1 where image 1 alone has it, 0 elsewhere."""
    compared = sign_P != 0
    judge_P, known_P = ((pairs[name].to_numpy() * sign_P + 1)[compared] / 2 for name in ("said", "better"))
    low, high = _interval_of_difference(judge_P - known_P, _prompts(pairs)[compared])
    return Leaning(
        value=value, pairs=int(compared.sum()), judge=judge_P.mean(), known=known_P.mean(), low=low, high=high
    )


def _interval_of_difference(difference_P: np.ndarray, prompt_P: np.ndarray) -> tuple[float, float]:
    """Of the mean of differences from −1 to 1. Where no prompt has any, it is what can be missed in so many prompts."""
    if not np.bincount(prompt_P, difference_P).any():
        missed = wilson_interval(0, len(np.unique(prompt_P)))[1]
        return -missed, missed
    low, high = interval_of_pairs((difference_P + 1) / 2, prompt_P)
    return 2 * low - 1, 2 * high - 1


def _wins(pairs: pa.Table) -> np.ndarray:
    """1 where the judge is right, 0.5 where it gives equal scores, 0 where it is wrong."""
    return (pairs["said"].to_numpy() * pairs["better"].to_numpy() + 1) / 2


def _prompts(pairs: pa.Table) -> np.ndarray:
    """Number of each pair's prompt: [P]."""
    return pairs["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy()
