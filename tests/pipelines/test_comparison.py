"""All ways to teach a model are given recipes that can be read, and one evaluation in which all models meet."""

from pathlib import Path

import pytest

from visionprefer.blocksworld.comparison import Compared, Share, tables
from visionprefer.recipe_file import load_dpo_recipe, load_finetune_recipe, load_ppo_recipe, load_recipe
from visionprefer.schema import ASPECTS
from visionprefer_pipelines import comparison
from visionprefer_pipelines.comparison import METHODS, RECIPES

LOADERS = {"dpo": load_dpo_recipe, "finetune": load_finetune_recipe, "ppo": load_ppo_recipe}


@pytest.mark.parametrize("name", METHODS)
def test_each_method_has_a_recipe_for_the_same_model_and_steps(name: str) -> None:
    method = METHODS[name]
    recipe = LOADERS[method.command](RECIPES / f"{method.recipe}.yaml", [*method.changes, "seed=2"])
    assert recipe.model == f"builtin:{comparison.MODEL}"
    assert recipe.seed == 2
    if name.startswith("control"):
        against = load_dpo_recipe(RECIPES / "blocks-dpo.yaml")
        assert (recipe.steps, recipe.batch_size) == (against.steps, against.batch_size)


def test_all_models_draw_the_same_prompts_each_with_its_guidance(tmp_path: Path) -> None:
    models = [(f"builtin:{comparison.MODEL}", 2.5), (str(tmp_path / "dpo-0"), 2.0)]
    file = tmp_path / "evaluation.yaml"
    file.write_text(comparison._recipe(models))
    recipe = load_recipe(file, ["prompts.sample=32"])
    assert recipe.images.every_model
    assert recipe.images.images_per_prompt == 1
    assert recipe.prompts.sample == 32
    assert [(model.model, model.guidance_scale) for model in recipe.images.models] == models


def test_what_came_of_it_is_told_in_two_tables() -> None:
    gained = {"fully_right": Share(0.1, 0.05, 0.15), **dict.fromkeys(ASPECTS, Share(-0.5, -0.75, -0.25))}
    rows = [
        Compared("before", 1, Share(0.3, 0.25, 0.35), {}),
        Compared("DPO", 3, Share(0.4, 0.35, 0.45), gained),
    ]
    right, gains = tables(rows)
    assert right.rows[0] == ["before", "1", "30.0 %", "25.0 to 35.0", "", ""]
    assert right.rows[1] == ["DPO", "3", "40.0 %", "35.0 to 45.0", "+10.0", "+5.0 to +15.0"]
    assert gains.rows == [["DPO", *["-0.50 (-0.75)"] * 4]]
