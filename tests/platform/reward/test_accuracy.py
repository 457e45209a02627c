"""Three published ways to count accuracy, on pairs counted by hand; they differ where scores or labels tie."""

import pytest

from visionprefer.reward.accuracy import (
    Comparison,
    hpd_accuracy,
    imagereward_accuracy,
    pickapic_accuracy,
    pickapic_threshold,
)

RIGHT, WRONG = Comparison(1, 2.0, 1.0), Comparison(0, 2.0, 1.0)
KNOWN_TIE, EQUAL_SCORES = Comparison(0.5, 2.0, 1.0), Comparison(1, 1.0, 1.0)


def test_imagereward_pools_pairs_without_known_ties_and_equal_scores_are_wrong() -> None:
    assert imagereward_accuracy([RIGHT, RIGHT, WRONG, KNOWN_TIE, EQUAL_SCORES]) == pytest.approx(2 / 4)


def test_hpd_takes_the_mean_over_prompts_and_known_ties_are_right() -> None:
    assert hpd_accuracy([[RIGHT, WRONG, KNOWN_TIE], [WRONG]]) == pytest.approx((2 / 3 + 0) / 2)
    assert hpd_accuracy([[EQUAL_SCORES]]) == 0


def test_pickapic_gives_half_where_one_side_alone_is_a_tie() -> None:
    assert pickapic_accuracy([RIGHT, WRONG, KNOWN_TIE, EQUAL_SCORES], threshold=0.0) == pytest.approx(
        (1 + 0 + 0.5 + 0.5) / 4
    )
    # σ(1) − σ(−1) = 0.462: with 0.5 all of these are predicted as ties.
    assert pickapic_accuracy([RIGHT, WRONG, KNOWN_TIE, EQUAL_SCORES], threshold=0.5) == pytest.approx(
        (0.5 + 0.5 + 1 + 0.5) / 4
    )


def test_of_no_pair_nothing_is_said() -> None:
    assert imagereward_accuracy([KNOWN_TIE]) is None
    assert hpd_accuracy([]) is None
    assert pickapic_accuracy([], threshold=0.0) is None


def test_the_threshold_is_the_smallest_of_the_best() -> None:
    assert pickapic_threshold([RIGHT, RIGHT]) == 0
    assert pickapic_threshold([KNOWN_TIE, KNOWN_TIE, RIGHT]) == 0.5
