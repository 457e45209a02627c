"""Intervals of shares: the published examples, and what holds of all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionprefer.intervals import interval_of_pairs, interval_over_prompts, wilson_interval


@pytest.mark.parametrize(
    ("wins", "comparisons", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_published_examples_of_the_wilson_interval(wins: int, comparisons: int, low: float, high: float) -> None:
    assert wilson_interval(wins, comparisons) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.integers(1, 10**7), st.floats(0, 1))
def test_the_interval_holds_the_rate_and_is_mirrored(comparisons: int, share: float) -> None:
    wins = round(2 * share * comparisons) / 2
    low, high = wilson_interval(wins, comparisons)
    assert 0 <= low <= wins / comparisons + 1e-12
    assert wins / comparisons - 1e-12 <= high <= 1
    assert wilson_interval(comparisons - wins, comparisons) == (pytest.approx(1 - high), pytest.approx(1 - low))


def test_prompts_that_agree_within_make_the_interval_wider() -> None:
    """20 prompts of 10 comparisons each: all won or all lost, or half of each prompt's."""
    ten = np.full(20, 10)
    low, high = interval_over_prompts(np.repeat([10.0, 0.0], 10), ten)
    # As wide as 20 coins, 1.96 · √(0.25/20) = 0.22 to either side, not as 200: 0.07.
    assert (low, high) == (pytest.approx(0.28, abs=0.03), pytest.approx(0.72, abs=0.03))
    low, high = interval_over_prompts(np.tile([4.0, 6.0], 10), ten)
    assert (low, high) == (pytest.approx(0.455, abs=0.02), pytest.approx(0.545, abs=0.02))


def test_prompts_weigh_as_they_have_comparisons() -> None:
    """One prompt with most comparisons decides; it is drawn at least once in 1 − (3/4)⁴ = 68 % of the draws."""
    low, high = interval_over_prompts(np.array([97.0, 0, 0, 0]), np.array([97, 1, 1, 1]))
    assert low == 0
    assert high > 0.98


def test_the_interval_over_prompts_is_the_same_every_time() -> None:
    wins, comparisons = np.array([1.0, 2.5, 0.0, 3.0]), np.array([2, 3, 1, 4])
    assert interval_over_prompts(wins, comparisons) == interval_over_prompts(wins, comparisons)


def test_prompts_of_one_share_leave_doubt_still() -> None:
    """Resampling them would give an interval without width."""
    assert interval_over_prompts(np.array([6.0, 3.0, 6.0]), np.array([6, 3, 6])) == wilson_interval(3, 3)
    assert interval_over_prompts(np.array([3.0]), np.array([6])) == wilson_interval(0.5, 1)


def test_pairs_are_gathered_by_their_prompts_whatever_numbers_those_have() -> None:
    wins, prompts = np.array([1.0, 0.5, 0.0, 1.0, 1.0]), np.array([7, 2, 7, 7, 2])
    assert interval_of_pairs(wins, prompts) == interval_over_prompts(np.array([1.5, 2.0]), np.array([2, 3]))
