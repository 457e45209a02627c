"""What a judge says of pairs of images, each time that it is asked: it may contradict itself.

Shapes: P pairs.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionprefer.judging.scores import DECIMALS, scores
from visionprefer.recipe import PreferenceSettings
from visionprefer.schema import JUDGEMENTS, OVERALL


def said(judgements: pa.Table, plan: pa.Table, pairs: pa.Table, settings: PreferenceSettings) -> np.ndarray:
    """What one judge says of pairs: [P], +1 where it prefers image 0, −1 where it prefers image 1, else 0.

    Each time that it is shown the images it has two opinions, the scores and the ranks. Where some of them are opposed
    it says nothing.
    """
    mean_P = np.nan_to_num(preferred(judgements, plan, pairs, settings))
    return np.where(opposed(opinions(judgements, plan, pairs, settings)), 0, mean_P)


def contradicted(judgements: pa.Table, plan: pa.Table, pairs: pa.Table, settings: PreferenceSettings) -> np.ndarray:
    """Of which pairs a judge says now this and now the opposite: bool [P]; see `said`."""
    found_P = np.zeros(pairs.num_rows, dtype=bool)
    together = _together(judgements)
    for judge in together["judge"].unique():
        found_P |= opposed(opinions(together.filter(pc.equal(together["judge"], judge)), plan, pairs, settings))
    return found_P


def opinions(judgements: pa.Table, plan: pa.Table, pairs: pa.Table, settings: PreferenceSettings) -> np.ndarray:
    """All opinions of one judge about pairs: [opinions, P] of +1, 0 and −1; ranks say nothing of the overall order."""
    found = [np.zeros(pairs.num_rows)]
    together = _together(judgements)
    by_rank = settings.model_copy(update={"tie_margin": 0.0})  # the recipe's is of points
    for repeat in together["repeat"].unique():
        shown = together.filter(pc.equal(together["repeat"], repeat))
        found.append(preferred(shown, plan, pairs, settings))
        ranks = shown.set_column(shown.column_names.index("score"), "score", pc.negate(shown["rank"]))
        by_rank_P = preferred(ranks, plan, pairs, by_rank)
        found.append(np.where(pc.equal(pairs["aspect"], OVERALL).to_numpy(), 0, by_rank_P))
    return np.nan_to_num(found)


def preferred(judgements: pa.Table, plan: pa.Table, pairs: pa.Table, settings: PreferenceSettings) -> np.ndarray:
    """Which image has the higher mean score: [P], +1 for image 0, −1 for image 1; 0 where the scores differ by the tie
    margin or less, NaN where one of them is missing.
    """
    scored = scores(judgements, plan, settings.weights)
    ids, aspects = scored.images["image_id"].combine_chunks(), pa.array(scored.aspects, pa.string())
    aspect = pc.index_in(pairs["aspect"], aspects)
    there = pc.is_valid(aspect).to_numpy()
    place_0, place_1 = (pc.index_in(pairs[name], ids).to_numpy()[there] for name in ("image_id_0", "image_id_1"))
    column = aspect.to_numpy()[there].astype(int)
    difference_P = np.full(pairs.num_rows, np.nan)
    difference_P[there] = scored.values_NA[place_0, column] - scored.values_NA[place_1, column]
    difference_P = difference_P.round(DECIMALS)
    return np.where(np.abs(difference_P) <= round(settings.tie_margin, DECIMALS), 0, np.sign(difference_P))


def opposed(said: np.ndarray) -> np.ndarray:
    """Of which pairs some opinions [opinions, P] are the opposite of others: bool [P]."""
    return np.logical_and((said > 0).any(axis=0), (said < 0).any(axis=0))


def _together(judgements: pa.Table) -> pa.Table:
    """What was said of images that were shown together."""
    if "rank" not in judgements.column_names:
        return JUDGEMENTS.empty_table()
    return judgements.filter(pc.is_valid(judgements["rank"]))
