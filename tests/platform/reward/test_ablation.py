"""What an ablation found, as a table and a plot; and recipes of ablations that say what is wrong."""

import io

import pytest
from PIL import Image

from visionprefer.reward.ablation import AblationFigures, Trained, plot, table
from visionprefer.reward.recipe import AblationRecipe


def figures() -> AblationFigures:
    models = [
        Trained(variant="BLIP", seed=seed, prompts=900, right={"overall": right, "fidelity": 0.7})
        for seed, right in enumerate((0.8, 0.84, 0.82))
    ]
    models.append(Trained(variant="CLIP", seed=0, prompts=900, right={"overall": 0.75}))
    return AblationFigures(against="oracle on quickstart", judge={"overall": 0.76, "fidelity": 0.74}, models=models)


def test_the_table_has_means_and_deviations_and_the_judge_beside_them() -> None:
    found = table(figures())
    assert found.columns == ["variant", "prompts", "overall", "fidelity"]
    assert found.rows == [
        ["BLIP", "900", "82.0 % ± 2.0", "70.0 %"],
        ["CLIP", "900", "75.0 %", ""],
        ["the judge itself", "", "76.0 %", "74.0 %"],
    ]


def test_the_plot_is_a_picture_that_differs_with_the_figures() -> None:
    drawn = plot(figures())
    assert Image.open(io.BytesIO(drawn)).size[0] > 600
    assert drawn != plot(figures().model_copy(update={"judge": {}}))


@pytest.mark.parametrize(
    ("variants", "told"),
    [({"a b": {}}, "the variant's name is 'a b'"), ({"a": {"seed": 3}}, "variant a sets a seed"), ({}, "at least 1")],
)
def test_what_is_no_ablation_is_told(variants: dict[str, dict[str, int]], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        AblationRecipe(name="r", base="blocks-vpscore", variants=variants)
