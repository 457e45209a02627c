"""Every prompt with a pair is learnt once an epoch, in steps of one size."""

import pytest

from visionprefer.align.recipe import DPORecipe
from visionprefer.align.steps import steps_of
from visionprefer.errors import InputError
from visionprefer.training_table import Group

PROMPTS = {Group("a", number): number % 5 for number in range(40)}  # 80 prompts; of every fifth group none

WHAT = "a pair"


def recipe(**changes: object) -> DPORecipe:
    return DPORecipe.model_validate({"name": "r", "model": "m", "batch_size": 16, "steps": 10, **changes})


def test_steps_are_full_and_an_epoch_holds_each_group_at_most_once() -> None:
    steps = steps_of(PROMPTS, recipe(), WHAT)
    assert len(steps) == 10
    assert all(16 <= sum(PROMPTS[group] for group in step.groups) <= 19 for step in steps)
    assert all(PROMPTS[group] for step in steps for group in step.groups)
    first = [group for step in steps if step.epoch == 0 for group in step.groups]
    assert len(first) == len(set(first)) > 20
    assert {step.epoch for step in steps} == {0, 1, 2}


def test_each_epoch_and_each_seed_has_an_order_of_its_own() -> None:
    steps, other = steps_of(PROMPTS, recipe(), WHAT), steps_of(PROMPTS, recipe(seed=1), WHAT)
    assert steps == steps_of(PROMPTS, recipe(), WHAT)
    assert steps != other
    by_epoch = [[step.groups for step in steps if step.epoch == epoch] for epoch in (0, 1)]
    assert by_epoch[0] != by_epoch[1]


def test_what_cannot_fill_a_step_is_told() -> None:
    with pytest.raises(InputError, match=r"batch_size is 100, and 80 training prompts have a pair: write at most 80"):
        steps_of(PROMPTS, recipe(batch_size=100), WHAT)
    with pytest.raises(InputError, match=r"workers\.actors is 9, and 16 prompts lie in \d row groups"):
        steps_of(PROMPTS, recipe(workers={"actors": 9}), WHAT)
