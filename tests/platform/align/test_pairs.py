"""Which pairs are learnt from: those of the aspect, far enough apart; the best against the worst; one an epoch."""

from typing import Any

from visionprefer.align.pairs import Pair, drawn, usable
from visionprefer.align.recipe import DPORecipe


def recipe(**settings: Any) -> DPORecipe:
    return DPORecipe.model_validate({"name": "r", "model": "m", **settings})


def pair(aspect: str, chosen: int, rejected: int, margin: float) -> dict[str, Any]:
    return {"aspect": aspect, "chosen": chosen, "rejected": rejected, "margin": margin}


PAIRS = [
    pair("overall", 0, 1, 0.5),
    pair("overall", 2, 1, 2.0),
    pair("overall", 2, 0, 1.5),
    pair("fidelity", 1, 0, 3.0),
    pair("aesthetic", 0, 1, 1.0),
]


def test_an_aspect_and_a_least_margin_are_asked_for() -> None:
    assert usable(PAIRS, recipe()) == [Pair(0, 1, 0.5), Pair(2, 1, 2.0), Pair(2, 0, 1.5)]
    assert usable(PAIRS, recipe(min_margin=1.5)) == [Pair(2, 1, 2.0), Pair(2, 0, 1.5)]
    assert usable(PAIRS, recipe(aspect="fidelity")) == [Pair(1, 0, 3.0)]
    assert usable(PAIRS, recipe(aspect="harmlessness")) == []


def test_the_best_against_the_worst_is_the_pair_of_the_largest_margin() -> None:
    assert usable(PAIRS, recipe(pairs="best_worst")) == [Pair(2, 1, 2.0)]
    assert usable([], recipe(pairs="best_worst")) == []


def test_weights_make_the_overall_preference_anew() -> None:
    # 3 points for image 1 in fidelity, 1 point for image 0 in aesthetic
    assert usable(PAIRS, recipe(weights={"fidelity": 1, "aesthetic": 1})) == [Pair(1, 0, 1.0)]


def test_each_epoch_draws_one_pair_of_a_prompt_and_the_same_one_when_asked_again() -> None:
    pairs = usable(PAIRS, recipe())
    found = [drawn(pairs, "prompt", epoch, recipe()) for epoch in range(60)]
    assert found == [drawn(pairs, "prompt", epoch, recipe()) for epoch in range(60)]
    assert min(found.count(one) for one in pairs) >= 10
    assert found != [drawn(pairs, "another", epoch, recipe()) for epoch in range(60)]


def test_shuffled_labels_are_right_in_half_of_the_pairs_and_the_same_in_every_epoch() -> None:
    """A control has the pairs, margins and order of what it is compared with; only who won is drawn by lot."""
    pairs, shuffled = [Pair(0, 1, 0.5)], recipe(shuffled_labels=True)
    found = {prompt: [drawn(pairs, prompt, epoch, shuffled) for epoch in range(5)] for prompt in map(str, range(200))}
    assert all(set(of_one) <= {Pair(0, 1, 0.5), Pair(1, 0, 0.5)} and len(set(of_one)) == 1 for of_one in found.values())
    assert 70 < sum(of_one[0] == pairs[0] for of_one in found.values()) < 130
    other = recipe(shuffled_labels=True, seed=1)
    assert any(drawn(pairs, prompt, 0, other) != of_one[0] for prompt, of_one in found.items())
