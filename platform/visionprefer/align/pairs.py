"""Which pairs of a prompt an image model learns from."""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from visionprefer.align.recipe import DPORecipe
from visionprefer.training_table import reweighted


class Pair(NamedTuple):
    """Places of two of a prompt's images, and by how many points they differ."""

    chosen: int
    rejected: int
    margin: float


def usable(pairs: Sequence[dict[str, Any]], recipe: DPORecipe) -> list[Pair]:
    """The pairs of a prompt that the recipe wants: of its aspect, with margin enough; the best against the worst alone.

    The margin of the best against the worst is the largest of a prompt (AGFSync, arXiv 2403.13352, equations 6 and 7);
    of several such pairs the first counts.

    Args:
        pairs: of a row of TRAINING, ties left out.
        recipe: see there `aspect`, `weights`, `min_margin` and `pairs`.
    """
    weighed = list(pairs) if recipe.weights is None else reweighted(list(pairs), recipe.weights)
    found = [
        Pair(pair["chosen"], pair["rejected"], pair["margin"])
        for pair in weighed
        if pair["aspect"] == recipe.aspect and pair["margin"] >= recipe.min_margin
    ]
    if recipe.pairs == "best_worst":
        return [max(found, key=lambda pair: pair.margin)] if found else []
    return found


def drawn(pairs: Sequence[Pair], prompt_id: str, epoch: int, recipe: DPORecipe) -> Pair:
    """The pair of a prompt that an epoch learns from: each prompt counts once, however many pairs it has.

    With shuffled labels two images are the other way round in half of the pairs, and so in all epochs.
    """
    pair = random.Random(f"{recipe.seed} {epoch} {prompt_id}").choice(pairs)  # noqa: S311
    if recipe.shuffled_labels:
        chance = random.Random(f"{recipe.seed} {prompt_id} {sorted((pair.chosen, pair.rejected))}")  # noqa: S311
        if chance.random() < 0.5:
            return Pair(pair.rejected, pair.chosen, pair.margin)
    return pair
