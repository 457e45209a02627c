"""Whether a judge says the same when it is asked again, in reverse order where it is shown images together, and what it
gives to places instead of images.

Shapes: R requests with one aspect each, K positions, P pairs.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from visionprefer.intervals import interval_over_prompts
from visionprefer.judging.opinions import opinions, opposed, preferred
from visionprefer.recipe import PreferenceSettings


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SelfConsistency(_Figures):
    """Pairs of one aspect about which the judge answered several times: in single mode it is asked about each image
    anew, in joint mode in both orders.
    """

    aspect: str
    pairs: int
    same: float | None  # share on which it says the same again by its scores, a tie or a choice; None: of no pair
    opposed: float | None  # share of which it says now this and now the opposite, by its scores or its ranks


class Position(_Figures):
    """A place among images shown together. Their order is drawn by lot, so that each place should win half the time."""

    position: int  # from 1
    comparisons: int
    win_rate: float  # against the images beside it, in all aspects, ties counting half
    low: float  # of the 95 % interval, prompts taken for independent
    high: float


def self_consistency(
    judgements: pa.Table, plan: pa.Table, pairs: pa.Table, settings: PreferenceSettings
) -> list[SelfConsistency]:
    """How far one judge agrees with itself; nothing where it was asked once.

    Columns in: of JUDGEMENTS, PLAN and PREFERENCES as `preferences` reads and writes them.
    """
    again = judgements.filter(pc.fill_null(pc.greater(judgements["repeat"], 0), False))
    if not again.num_rows:
        return []
    prompts = again["prompt_id"].unique()
    judgements, pairs = (table.filter(pc.is_in(table["prompt_id"], prompts)) for table in (judgements, pairs))
    said_RP = np.array(
        [
            preferred(judgements.filter(pc.equal(judgements["repeat"], repeat)), plan, pairs, settings)
            for repeat in sorted(judgements["repeat"].unique().to_pylist())
        ]
    )
    opposed_P = opposed(np.concatenate([said_RP, opinions(judgements, plan, pairs, settings)]))
    answered_again_P = (~np.isnan(said_RP)).sum(axis=0) > 1
    found = []
    for aspect in pairs["aspect"].unique().to_pylist():
        chosen_P = pc.equal(pairs["aspect"], aspect).to_numpy() & answered_again_P
        same, opposite = _mean(_said_again(said_RP[:, chosen_P])), _mean(opposed_P[chosen_P])
        found.append(SelfConsistency(aspect=aspect, pairs=int(chosen_P.sum()), same=same, opposed=opposite))
    return found


def _said_again(said_RP: np.ndarray) -> np.ndarray:
    """Share of the later answers that are the same as the first: [P]. NaN is no answer; of each pair there are two."""
    answered_RP = ~np.isnan(said_RP)
    first_P = np.take_along_axis(said_RP, answered_RP.argmax(axis=0)[None], axis=0)
    return ((said_RP == first_P).sum(axis=0) - 1) / (answered_RP.sum(axis=0) - 1)


def _mean(shares_P: np.ndarray) -> float | None:
    return float(shares_P.mean()) if len(shares_P) else None


def positions(judgements: pa.Table) -> list[Position]:
    """How often each place wins; nothing where images were judged one by one.

    Columns in: of JUDGEMENTS request_id, prompt_id, scorer, score, rank and position.
    """
    together = judgements.filter(pc.is_valid(judgements["rank"]))
    if not together.num_rows:
        return []
    place = together["position"].to_numpy()
    request, scorer, prompt = (
        together[name].combine_chunks().dictionary_encode().indices.to_numpy()
        for name in ("request_id", "scorer", "prompt_id")
    )
    row = request * (scorer.max() + 1) + scorer
    score_RK = np.full((row.max() + 1, place.max() + 1), np.nan)
    score_RK[row, place] = together["score"].to_numpy()
    prompt_R = np.zeros(len(score_RK), dtype=int)
    prompt_R[row] = prompt
    found = []
    for position, score_R in enumerate(score_RK.T):
        others_RK = np.delete(score_RK, position, axis=1)
        compared_RK = ~np.isnan(score_R[:, None] - others_RK)
        wins_RK = (np.sign(np.nan_to_num(score_R[:, None] - others_RK)) + 1) / 2 * compared_RK
        comparisons, wins = (np.bincount(prompt_R, one.sum(axis=1)) for one in (compared_RK, wins_RK))
        there = comparisons > 0
        if there.any():
            low, high = interval_over_prompts(wins[there], comparisons[there])
            total = int(comparisons.sum())
            rate = wins.sum() / total
            found.append(Position(position=position + 1, comparisons=total, win_rate=rate, low=low, high=high))
    return found
