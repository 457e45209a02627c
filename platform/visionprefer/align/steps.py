"""Which prompts an optimizer step learns from, where they lie in an encoded table."""

import random
from collections.abc import Mapping
from typing import NamedTuple

from visionprefer.align.recipe import OfflineRecipe
from visionprefer.errors import InputError
from visionprefer.training_table import Group


class Step(NamedTuple):
    """Row groups of the encoded table, and the pass over the table that they belong to."""

    epoch: int
    groups: list[Group]


def steps_of(prompts: Mapping[Group, int], recipe: OfflineRecipe, what: str) -> list[Step]:
    """The steps of the whole training, the same ones whatever the number of workers.

    Each epoch draws the order of the row groups anew and cuts it where a step has `batch_size` prompts, or up to three
    more, since a row group is not divided; what is left over is too little for a step, and waits for the next epoch.

    Args:
        prompts: how many of each row group have something to learn from.
        recipe: how many steps of how many prompts.
        what: it is that these prompts have: "a pair of 'overall'".

    Raises:
        InputError: if there are fewer prompts than a step wants, or fewer row groups in a step than workers.
    """
    groups = [group for group, count in prompts.items() if count]
    there = sum(prompts.values())
    if there < recipe.batch_size:
        raise InputError(
            f"batch_size is {recipe.batch_size:,}, and {there:,} training prompts have {what}: write at most "
            f"{there:,}, or judge more prompts"
        )
    steps: list[Step] = []
    epoch = 0
    while len(steps) < recipe.steps:
        order = list(groups)
        random.Random(f"{recipe.seed} {epoch}").shuffle(order)  # noqa: S311
        held: list[Group] = []
        for group in order:
            held.append(group)
            if sum(prompts[one] for one in held) >= recipe.batch_size:
                steps.append(Step(epoch, held))
                held = []
        epoch += 1
    fewest, workers = min(len(step.groups) for step in steps), int(str(recipe.workers.actors))
    if fewest < workers:
        raise InputError(
            f"workers.actors is {workers}, and {recipe.batch_size} prompts lie in {fewest} row groups, which are not "
            "divided: write fewer workers, or a larger batch_size"
        )
    return steps[: recipe.steps]
