"""The recipe of Diffusion-DPO has the paper's numbers, and tells what cannot be meant."""

from typing import Any

import pytest

from visionprefer.align.recipe import DPORecipe


def recipe(**settings: Any) -> DPORecipe:
    return DPORecipe.model_validate({"name": "r", "model": "m", **settings})


def test_left_out_everything_is_as_in_the_paper() -> None:
    assert recipe().peak_learning_rate == pytest.approx(2.048e-5)
    assert (recipe().beta, recipe().steps, recipe().warm_up * recipe().steps) == (5000, 2000, 500)
    assert recipe(learning_rate=1e-4).peak_learning_rate == 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": {}}, "weights are {}: write some above 0"),
        ({"weights": {"fidelity": -1}}, "write some above 0 and none below"),
        ({"weights": {"fidelity": 1}, "aspect": "fidelity"}, "aspect is 'fidelity': leave one of them out"),
    ],
)
def test_what_cannot_be_meant_is_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**settings)
