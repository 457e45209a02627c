"""How far a judge can be trusted, worked by hand."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from visionprefer.intervals import interval_over_prompts, wilson_interval
from visionprefer.judging import trust
from visionprefer.judging.scores import Scores
from visionprefer.schema import OVERALL

# By image: its prompt, the judge's aesthetic and overall score, its model and guidance.
IMAGES: dict[str, tuple[str, float, float, str | None, float | None]] = {
    "a0": ("a", 5, 4.0, "large", 2),
    "a1": ("a", 3, 4.0, "small", 8),
    "a2": ("a", 3, 1.5, "small", 2),
    "b0": ("b", 1, 2.0, "small", 8),
    "b1": ("b", 4, np.nan, "large", 2),
    "b2": ("b", 2, 3.0, None, None),
}


def compared(*known: tuple[str, str, str, float]) -> pa.Table:
    """The pairs of images 0 and 1 by aspect, with the known label."""
    rows = {"image_id": list(IMAGES), "prompt_id": [prompt for prompt, *_ in IMAGES.values()]}
    values_NA = np.array([[aesthetic, overall] for _, aesthetic, overall, *_ in IMAGES.values()])
    pairs = [
        {"prompt_id": f"theirs {first[0]}", "image_id_0": first, "image_id_1": second, "aspect": aspect, "label": label}
        for aspect, first, second, label in known
    ]
    return trust.compare(Scores(pa.table(rows), ["aesthetic", OVERALL], values_NA), pa.Table.from_pylist(pairs))


def images() -> pa.Table:
    columns = zip(*((name, model, guidance) for name, (*_, model, guidance) in IMAGES.items()), strict=True)
    return pa.table(dict(zip(("image_id", "model", "guidance_scale"), map(list, columns), strict=True)))


def test_the_judges_order_stands_beside_the_known_one() -> None:
    pairs = compared(("aesthetic", "a0", "a1", 0.0), (OVERALL, "a0", "a1", 1.0), (OVERALL, "a2", "a0", 0.0))
    assert pairs.select(["better", "said", "margin"]).to_pylist() == [
        {"better": -1, "said": 1, "margin": 2},
        {"better": 1, "said": 0, "margin": 0},
        {"better": -1, "said": -1, "margin": 2.5},
    ]
    assert pairs["prompt_id"].to_pylist() == ["a"] * 3  # whatever those who know the order call it


@pytest.mark.parametrize(
    "pair",
    [
        ("aesthetic", "a0", "a1", 0.5),  # a tie tells nothing of the judge
        ("aesthetic", "a0", "zz", 1.0),  # an image of another run
        ("fidelity", "a0", "a1", 1.0),  # an aspect that this judge does not score
        (OVERALL, "b0", "b1", 1.0),  # an image without a score
    ],
)
def test_what_cannot_be_compared_is_left_out(pair: tuple[str, str, str, float]) -> None:
    assert compared(pair).num_rows == 0
    assert compared(pair, ("aesthetic", "a0", "a2", 1.0)).num_rows == 1


def test_agreement_counts_ties_half_and_takes_prompts_for_independent() -> None:
    pairs = compared(
        ("aesthetic", "a0", "a1", 1.0),  # right
        ("aesthetic", "a1", "a2", 1.0),  # the judge's tie
        ("aesthetic", "a0", "a2", 0.0),  # wrong
        ("aesthetic", "b0", "b1", 0.0),  # right
    )
    found = trust.agreements(pairs, ["aesthetic", OVERALL])
    assert (found["aesthetic"].pairs, found["aesthetic"].agreement, found["aesthetic"].tie_rate) == (4, 2.5 / 4, 1 / 4)
    expected = interval_over_prompts(np.array([1.5, 1.0]), np.array([3, 1]))
    assert (found["aesthetic"].low, found["aesthetic"].high) == expected
    assert (found[OVERALL].pairs, found[OVERALL].agreement) == (0, None)


def test_certainty_is_counted_by_the_points_between_the_scores() -> None:
    pairs = compared(
        ("aesthetic", "a0", "a1", 1.0),  # 2 points, right
        ("aesthetic", "a0", "a2", 0.0),  # 2 points, wrong
        ("aesthetic", "b0", "b1", 0.0),  # 3 points, right
        ("aesthetic", "a1", "a2", 0.0),  # a tie
        (OVERALL, "a2", "a1", 0.0),  # 2.5 points, right
    )
    found = {(of.aspect, of.points): (of.pairs, of.agreement) for of in trust.certainties(pairs)}
    assert found == {("aesthetic", 2): (2, 0.5), ("aesthetic", 3): (1, 1.0), (OVERALL, 3): (1, 1.0)}
    [two, *_] = trust.certainties(pairs)
    assert (two.low, two.high) == interval_over_prompts(np.array([1.0]), np.array([2]))


def test_a_leaning_is_what_the_judge_prefers_beyond_what_is_known() -> None:
    """Of `large` against `small` the judge prefers `large` once and ties once; known is that `small` is better."""
    pairs = compared(
        (OVERALL, "a0", "a1", 0.0),
        (OVERALL, "a2", "a0", 1.0),
        (OVERALL, "a1", "a2", 1.0),  # of one model
        (OVERALL, "b0", "b2", 1.0),  # of no known model
    )
    large, small = trust.leanings(pairs, images(), "model")
    assert (large.value, large.pairs, large.judge, large.known) == ("large", 2, 0.75, 0.0)
    assert (small.value, small.pairs, small.judge, small.known) == ("small", 2, 0.25, 1.0)
    assert large.low <= 0.75 <= large.high
    assert (small.low, small.high) == pytest.approx((-large.high, -large.low), abs=0.2)
    low, high = trust.leanings(pairs, images(), "guidance_scale")
    assert (low.value, low.pairs, low.judge, low.known) == (2.0, 2, 0.25, 0.0)  # a0 ties with a1, a2 loses to a1
    assert (high.value, high.judge, high.known) == (8.0, 0.75, 1.0)


def test_a_judge_that_says_what_is_known_may_lean_by_what_chance_hides_from_so_many_prompts() -> None:
    """40 prompts without a difference leave as much doubt as 40 throws that all failed, not as 40 coins."""
    rows = [
        {"prompt_id": f"p{p}", "image_id_0": f"{p}-0", "image_id_1": f"{p}-1", "better": sign, "said": sign}
        for p in range(40)
        for sign in (1, -1)
    ]
    made = [{"image_id": f"{p}-{i}", "model": f"m{i}"} for p in range(40) for i in range(2)]
    for leaning in trust.leanings(pa.Table.from_pylist(rows), pa.Table.from_pylist(made), "model"):
        assert (leaning.judge, leaning.known) == (0.5, 0.5)
        assert leaning.high == wilson_interval(0, 40)[1] < 0.09
        assert leaning.low == -leaning.high


def test_the_worst_are_those_of_which_the_judge_is_most_certain_one_of_a_prompt() -> None:
    known: list[tuple[str, str, str, float]] = [
        (OVERALL, "a0", "a2", 0.0),  # wrong by 2.5
        (OVERALL, "a1", "a2", 0.0),  # as wrong, of the same prompt
        (OVERALL, "b0", "b2", 1.0),  # wrong by 1
        ("aesthetic", "a0", "a1", 0.0),  # another aspect
    ]
    found = trust.worst(compared(*known), 5)
    assert [(row["image_id_0"], row["image_id_1"]) for row in found] == [("a0", "a2"), ("b0", "b2")]
    assert len(trust.worst(compared(*known), 1)) == 1
    without_overall: list[dict[str, Any]] = trust.worst(compared(known[3]), 5)
    assert [row["aspect"] for row in without_overall] == ["aesthetic"]
    assert trust.worst(compared((OVERALL, "a0", "a2", 1.0)), 5) == []
