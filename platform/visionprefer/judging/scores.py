"""Replies become judgements, and judgements scores laid out by image and aspect.

Shapes: N images, A aspects.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionprefer.errors import InputError
from visionprefer.judging import joint_rubric, rubric
from visionprefer.schema import ASPECTS, JUDGEMENTS, OVERALL

SCORED = ["image_id", "scorer", "score", "judge"]  # of JUDGEMENTS, that `scores` reads
DECIMALS = 9  # of sums and differences of scores: what differs by less was added up in another order


class Scores(NamedTuple):
    """What each scorer gave to each image of a plan."""

    images: pa.Table  # the plan's columns, sorted by prompt_id, then candidate
    aspects: list[str]  # the rubric's, other scorers by name, "overall"; empty where nothing was judged
    values_NA: np.ndarray  # NaN where there is no score


def judgements(replies: pa.Table) -> pa.Table:
    """Read the verdicts in replies.

    Columns in: REPLIES, those that can be used. Columns out: JUDGEMENTS, a row for each image and aspect, whose name is
    the scorer's.

    Raises:
        UnusableReply: if a reply holds no verdict; those that can be used do.
    """
    wanted = replies.select(["request_id", "image_ids", "prompt_id", "judge", "mode", "repeat", "raw"])
    return pa.concat_tables(
        [JUDGEMENTS.empty_table(), *(_verdicts(batch) for batch in wanted.to_batches(max_chunksize=10_000))]
    )


def scores(judgements: pa.Table, plan: pa.Table, weights: dict[str, float]) -> Scores:
    """Lay out scores by image and aspect, and add their weighted sum as the last one, "overall".

    An image has no overall score where it lacks one of the weighted scorers. Where a judge scored an image several
    times, the mean is what it says; where several judges did, the score is the mean of what each of them says.

    Columns in: of JUDGEMENTS SCORED, all of one judge where none is named; of PLAN at least image_id, prompt_id and
    candidate.

    References: the weighted sum is AGFSync (arXiv 2403.13352) Eq. 5.

    Raises:
        InputError: if a weight names a scorer without judgements, a scorer is called "overall", or an image that was
            judged is not in the plan.
    """
    images = plan.sort_by([("prompt_id", "ascending"), ("candidate", "ascending")]).combine_chunks()
    present = judgements["scorer"].unique().to_pylist()
    scorers = [aspect for aspect in ASPECTS if aspect in present] + sorted(set(present) - set(ASPECTS))
    if not scorers:
        return Scores(images, [], np.empty((images.num_rows, 0)))
    _check(scorers, weights)
    image = pc.index_in(judgements["image_id"], images["image_id"])
    if image.null_count:
        unknown = judgements["image_id"].filter(image.is_null())[0]
        raise InputError(f"judgements: image_id {unknown} is not in the plan. Write the plan of the same run")
    scorer = pc.index_in(judgements["scorer"], pa.array(scorers))
    place = image.to_numpy().astype(np.int64) * len(scorers) + scorer.to_numpy()
    values_NA = _means_of_judges(judgements, place, images.num_rows * len(scorers)).reshape(-1, len(scorers))
    weighted = values_NA[:, [scorers.index(name) for name in weights]] @ np.array(list(weights.values()))
    return Scores(images, [*scorers, OVERALL], np.column_stack([values_NA, weighted.round(DECIMALS)]))


def _means_of_judges(judgements: pa.Table, place_R: np.ndarray, places: int) -> np.ndarray:
    """The mean of what each judge says of each place, which is the mean of its rows [R]: [places]."""
    score_R = judgements["score"].to_numpy()
    judges = judgements["judge"].unique() if "judge" in judgements.column_names else []
    if len(judges) <= 1:
        return _means(place_R, score_R, places)
    judge_R = pc.index_in(judgements["judge"], judges).to_numpy()
    said = _means(place_R * len(judges) + judge_R, score_R, places * len(judges))
    there = np.flatnonzero(~np.isnan(said))
    return _means(there // len(judges), said[there], places)


def _means(place_R: np.ndarray, score_R: np.ndarray, places: int) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # 0/0 is NaN: no score
        return np.bincount(place_R, score_R, places) / np.bincount(place_R, minlength=places)


def _verdicts(replies: pa.RecordBatch) -> pa.Table:
    rows = []
    for reply in replies.to_pylist():
        known = {name: reply[name] for name in ("prompt_id", "judge", "request_id", "repeat")}
        images = reply["image_ids"]
        for aspect, given in _given(reply["raw"], reply["mode"], len(images)):
            for position, (image, (score, rank, rationale)) in enumerate(zip(images, given, strict=True)):
                about = {"image_id": image, "scorer": aspect, "position": position}
                rows.append(known | about | {"score": score, "rank": rank, "rationale": rationale})
    return pa.Table.from_pylist(rows, schema=JUDGEMENTS)


def _given(raw: str, mode: str, images: int) -> Iterator[tuple[str, list[tuple[int, int | None, str]]]]:
    """Score, rank and rationale of each image, by aspect."""
    if mode == "single":
        for aspect, of in rubric.parse_reply(raw):
            yield aspect, [(of.score, None, of.rationale)]
        return
    for aspect, of_all in joint_rubric.parse_reply(raw, images):
        yield aspect, [(*pair, of_all.rationale) for pair in zip(of_all.scores, of_all.ranks, strict=True)]


def _check(scorers: list[str], weights: dict[str, float]) -> None:
    if OVERALL in scorers:
        raise InputError(f"judgements: a scorer is called {OVERALL!r}, as the weighted sum is. Write another name")
    for name in weights:
        if name not in scorers:
            there_are = ", ".join(scorers)
            raise InputError(f"preferences.weights: no judgement has the scorer {name!r}. Write some of: {there_are}")
