"""Rewards are compared with those of their own prompt, once it has enough; a missing one changes nothing."""

import json
import math

import numpy as np
import pytest

from visionprefer.align.advantages import Advantages


def test_a_prompt_with_few_rewards_is_compared_with_the_batch_and_later_with_itself() -> None:
    advantages = Advantages(buffer_size=4, min_count=3)
    first = advantages.of(["a", "a", "b", "b"], [1, 2, 3, 6])
    assert first.tolist() == pytest.approx([(r - 3) / (np.std([1, 2, 3, 6]) + 1e-6) for r in (1, 2, 3, 6)])
    second = advantages.of(["a", "b"], [4, 0])
    of_a, of_b = [1, 2, 4], [3, 6, 0]
    by_hand = [(4 - np.mean(of_a)) / (np.std(of_a) + 1e-6), (0 - np.mean(of_b)) / (np.std(of_b) + 1e-6)]
    assert second.tolist() == pytest.approx(by_hand)


def test_scaled_by_the_batch_a_prompt_weighs_by_how_much_its_images_differ() -> None:
    rewards = [1.0, 3.0, 5.0, 5.2]
    by_group = Advantages(2, 2).of(["a", "a", "b", "b"], rewards)
    assert by_group.tolist() == pytest.approx([-1, 1, -1, 1], rel=1e-4)
    by_batch = Advantages(2, 2, "batch").of(["a", "a", "b", "b"], [*rewards])
    differences = [-1, 1, -0.1, 0.1]
    assert by_batch.tolist() == pytest.approx([d / np.std(differences) for d in differences], rel=1e-4)
    missing = Advantages(2, 2, "batch").of(["a", "a", "b", "b", "b"], [*rewards, None])
    assert missing[:4].tolist() == by_batch.tolist()
    assert np.isnan(missing[4])


def test_only_the_last_rewards_of_a_prompt_are_kept() -> None:
    advantages = Advantages(buffer_size=2, min_count=2)
    advantages.of(["a"] * 4, [100, 100, 1, 3])
    last = [3, 7]
    assert advantages.of(["a"], [7]).tolist() == pytest.approx([(7 - 5) / (np.std(last) + 1e-6)])


def test_integer_rewards_are_not_cut_to_integers() -> None:
    found = Advantages().of(["a", "b"], [1, 2])
    assert found.tolist() == pytest.approx([-1, 1], rel=1e-5)
    assert found.dtype == np.float64


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_missing_reward_has_no_advantage_and_changes_no_other(missing: float | None) -> None:
    with_it, without = Advantages(4, 2), Advantages(4, 2)
    for _ in range(2):
        found = with_it.of(["a", "b", "a"], [1.0, missing, 5.0])
        assert np.isnan(found[1])
        assert found[[0, 2]].tolist() == without.of(["a", "a"], [1.0, 5.0]).tolist()
    assert with_it.state_dict() == without.state_dict()
    assert np.isnan(with_it.of(["a"], [missing])).all()


def test_equal_rewards_have_an_advantage_of_zero() -> None:
    assert Advantages(4, 1).of(["a", "a"], [0.3, 0.3]).tolist() == [0, 0]


def test_a_training_that_goes_on_has_the_same_buffers() -> None:
    whole, first = Advantages(4, 2), Advantages(4, 2)
    for one in (whole, first):
        one.of(["a", "a", "b"], [1, 2, 3])
    later = Advantages(4, 2)
    later.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert later.of(["a", "b"], [4, 4]).tolist() == whole.of(["a", "b"], [4, 4]).tolist()


@pytest.mark.parametrize(("buffer_size", "min_count"), [(16, 17), (4, 0)])
def test_a_min_count_that_no_buffer_reaches_is_refused(buffer_size: int, min_count: int) -> None:
    with pytest.raises(ValueError, match=f"write a min_count of 1 to {buffer_size}"):
        Advantages(buffer_size, min_count)


def test_every_prompt_has_a_reward() -> None:
    with pytest.raises(ValueError, match="2 prompts and 1 rewards"):
        Advantages().of(["a", "b"], [1.0])
