"""Several judges of the same images: how far they agree, and their preferences as one."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from visionprefer.errors import missing_extra
from visionprefer.judging.opinions import said
from visionprefer.judging.preferences import labelled, preferences
from visionprefer.recipe import PreferenceSettings


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PairAgreement(_Figures):
    """Two judges' scores of the images that both judged, in one aspect."""

    aspect: str
    judges: tuple[str, str]
    images: int
    same: float  # share of the images to which they give the same score
    kappa: float | None  # Cohen's: 1 is agreement, 0 what chance would give; None where each gives one score only
    weighted_kappa: float | None  # Cohen's with squared distances: a point apart is little, four are much


class Alpha(_Figures):
    """All judges' scores in one aspect."""

    aspect: str
    images: int  # that two judges or more judged
    alpha: float | None  # Krippendorff's for interval data; None where all scores are one


def pair_agreements(judgements: dict[str, pa.Table]) -> list[PairAgreement]:
    """How far each two judges agree.

    Args:
        judgements: by the judge's name, JUDGEMENTS with at least image_id, scorer and score.

    References: J. Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20
    (1960), 37-46; and Weighted kappa, Psychological Bulletin 70 (1968), 213-220.

    Raises:
        InputError: if nltk is not installed.
    """
    squared, task = _task()
    found = []
    for aspect, by_judge in _by_aspect(judgements).items():
        for a, b in combinations(by_judge, 2):
            both = sorted(by_judge[a].keys() & by_judge[b].keys())
            if not both:
                continue
            triples = [(judge, image, by_judge[judge][image]) for judge in (a, b) for image in both]
            varied = len({score for _, _, score in triples}) > 1
            found.append(
                PairAgreement(
                    aspect=aspect,
                    judges=(a, b),
                    images=len(both),
                    same=sum(by_judge[a][image] == by_judge[b][image] for image in both) / len(both),
                    kappa=task(triples).kappa_pairwise(a, b) if varied else None,
                    weighted_kappa=task(triples, distance=squared).weighted_kappa_pairwise(a, b) if varied else None,
                )
            )
    return found


def alphas(judgements: dict[str, pa.Table]) -> list[Alpha]:
    """How far all judges agree, by aspect; see `pair_agreements`.

    References: K. Krippendorff, Content Analysis (1980); the distance of two scores is their difference squared.

    Raises:
        InputError: if nltk is not installed.
    """
    squared, task = _task()
    found = []
    for aspect, by_judge in _by_aspect(judgements).items():
        triples = [(judge, image, score) for judge, given in by_judge.items() for image, score in given.items()]
        times = np.unique([image for _, image, _ in triples], return_counts=True)[1]
        varied = len({score for _, _, score in triples}) > 1
        alpha = task(triples, distance=squared).alpha() if varied and (times > 1).any() else None
        found.append(Alpha(aspect=aspect, images=int((times > 1).sum()), alpha=alpha))
    return found


def voted_preferences(judgements: Sequence[pa.Table], plan: pa.Table, settings: PreferenceSettings) -> pa.Table:
    """The preferences of several judges, each with one vote on each pair that it scored; equal votes are a tie.

    Which pairs there are, their scores and their margins follow from the mean of the judges' scores.

    Columns in: as `preferences` does, a table for each judge. Columns out: PREFERENCES.
    """
    pairs = preferences(pa.concat_tables(judgements), plan, settings)
    votes = np.zeros(pairs.num_rows)
    for of_judge in judgements:
        votes += said(of_judge, plan, pairs, settings)
    return labelled(pairs, (np.sign(votes) + 1) / 2)


def _by_aspect(judgements: dict[str, pa.Table]) -> dict[str, dict[str, dict[str, float]]]:
    """Scores by aspect, judge and image; of an image that a judge scored several times, the mean."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for judge, table in judgements.items():
        means = table.group_by(["scorer", "image_id"]).aggregate([("score", "mean")])
        for row in means.to_pylist():
            found.setdefault(row["scorer"], {}).setdefault(judge, {})[row["image_id"]] = row["score_mean"]
    return found


def _task() -> tuple[Any, Any]:
    """The squared difference of two scores, and what computes coefficients of agreement."""
    try:
        from nltk.metrics.agreement import AnnotationTask
        from nltk.metrics.distance import interval_distance
    except ImportError as error:
        raise missing_extra("nltk", "local") from error
    return interval_distance, AnnotationTask
