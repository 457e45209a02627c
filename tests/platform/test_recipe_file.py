"""A recipe says at once what is wrong with it, where, and what to write instead."""

from pathlib import Path

import pytest
import yaml

from visionprefer.errors import InputError
from visionprefer.recipe import Recipe
from visionprefer.recipe_file import (
    load_any_recipe,
    load_dpo_recipe,
    load_finetune_recipe,
    load_ppo_recipe,
    load_recipe,
    recipe_schema,
)
from visionprefer.settings import Range

RECIPES = Path(__file__).parents[2] / "pipelines" / "visionprefer_pipelines" / "recipes"
OPENAI = {"engine": "openai", "model": "gpt"}
GOOD = {
    "name": "trial",
    "prompts": {"path": "prompts.txt"},
    "images": {"models": [{"model": "one", "share": 0.5}, {"model": "two", "share": 0.5}]},
    "judge": {"model": "judge"},
}


def written(folder: Path, data: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def changed(place: str, value: object) -> dict:
    data = yaml.safe_load(yaml.safe_dump(GOOD))
    *parents, last = place.split(".")
    target = data
    for parent in parents:
        target = target[int(parent)] if parent.isdecimal() else target[parent]
    target[last] = value
    return data


def test_defaults_are_filled_in_and_the_recipe_is_immutable(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, GOOD))
    assert recipe.images.images_per_prompt == 4
    assert sum(recipe.preferences.weights.values()) == 1
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("image", {}, "image: no such field; did you mean images?"),
        ("images.batchsize", 4, "images.batchsize: no such field; did you mean batch_size?"),
        ("images.models.0.guidance", 4, "images.models.0.guidance: no such field; did you mean guidance_scale?"),
        ("images.batch_size", "many", "images.batch_size: input should be a valid integer.*'many'"),
        ("images.batch_size", 0, "images.batch_size: input should be greater than or equal to 1, and it is 0"),
        ("images.models.0.share", 0.4, r"shares are \[0.4, 0.5\] and add up to 0.9: write shares that add up to 1"),
        ("images.models.0.share", None, "give every model a share, or none"),
        ("images.models.0.guidance_scale", {"low": 5, "high": 3, "step": 1}, "write low ≤ high"),
        ("images.models.0.guidance_scale", "high", "images.models.0.guidance_scale.*'high'"),
        ("images.existing", "folder", "write either models .* or existing"),
        ("images.workers", {"actors": [3, 1]}, "1 ≤ fewest ≤ most"),
        ("prompts.path", None, "write prompts.path, or images.existing"),
        (
            "judge.engine",
            "oracle",
            "judge.engine: input should be 'transformers', 'vllm' or 'openai', and it is 'oracle'",
        ),
        ("preferences", {"pairs": "some"}, "preferences.pairs: input should be 'all' or 'best_worst'"),
        ("images.height", 64, "images: .*'width': None.* is half a size: write width too, or neither"),
        ("images.width", 64, "write height too, or neither"),
        ("images.models.0.guidance_scale", [], r"images.models.0: guidance_scale is \[\]: write a number, a list"),
        ("images.models.0.num_inference_steps", [], r"num_inference_steps is \[\]: write a number, a list"),
        ("images.models.0.num_inference_steps", {"low": 0, "high": 4, "step": 1}, "'low': 0.0.*whole numbers from 1"),
        ("images.models.0.num_inference_steps", {"low": 1, "high": 4, "step": 0.5}, "whole numbers from 1"),
        ("preferences", {"weights": {"asthetic": 1}}, "weights.asthetic is 1, and nothing.*did you mean aesthetic?"),
        ("judge.api", {"concurrency": 2}, "api is for engine openai, and engine is transformers"),
        ("judge", {"model": "judge", "sampling": {"top_p": 0.8}}, "transformers knows the temperature alone"),
        ("judge", OPENAI | {"sampling": {"max_tokens": 8}}, "sampling.max_tokens is said by max_new_tokens"),
        ("judge", {"model": "judge", "swapped": 0.5}, "swapped is 0.5, and a single image has no order: write mode"),
        (
            "judge",
            {"model": "judge", "repeats": 2},
            "repeats is 2, and temperature 0 says the same again",
        ),
        ("judge", {"model": "judge", "repeats": 2, "mode": "joint"}, "repeats is 2, and mode is joint: write swapped"),
        ("judge", OPENAI | {"workers": {"actors": 2}}, "write api.concurrency in place of workers"),
        ("judge", OPENAI | {"api": {"budget": 5}}, "budget is 5, and price is missing: write price.prompt"),
        ("judge", OPENAI | {"api": {"base_url": "https://me:key@host/v1"}}, "write it without user and query"),
        ("judge", OPENAI | {"api": {"concurency": 2}}, "did you mean concurrency"),
        ("preferences", {"weights": {"xyz": 1}}, "weights.xyz is 1, .*write some of prompt_following, aesthetic"),
        ("preferences", {"weights": {"fidelity": 0}}, "weights are {'fidelity': 0.0}: write one that is not 0"),
        ("name", "a b", "name: .*'a b'"),
        ("seed", float("nan"), "seed"),
    ],
)
def test_a_wrong_field_is_told_with_its_value_and_what_to_write(
    tmp_path: Path, place: str, value: object, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        load_recipe(written(tmp_path, changed(place, value)))


def test_a_size_that_models_cannot_make_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="images: height is 100: write a multiple of 8, such as 96"):
        load_recipe(written(tmp_path, GOOD), ["images.height=100", "images.width=64"])
    assert load_recipe(written(tmp_path, GOOD), ["images.height=96", "images.width=64"]).images.height == 96


def test_a_missing_field_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="judge: missing"):
        load_recipe(written(tmp_path, {key: value for key, value in GOOD.items() if key != "judge"}))


@pytest.mark.parametrize("text", ["", "just words", "- a\n- list", "{unclosed: ["])
def test_a_file_that_is_no_recipe_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError, match=r"recipe\.yaml"):
        load_recipe(tmp_path / "recipe.yaml")


def test_overrides_reach_every_place(tmp_path: Path) -> None:
    overrides = ["images.batch_size=2", "images.models.1.guidance_scale=[1, 3]", "preferences.tie_margin=0.5"]
    recipe = load_recipe(written(tmp_path, GOOD), overrides)
    assert recipe.images.batch_size == 2
    assert recipe.images.models[1].guidance_scale == [1, 3]
    assert recipe.preferences.tie_margin == 0.5


@pytest.mark.parametrize("override", ["images.batch_size", "images.models.7.share=1", "name.first.second=x"])
def test_an_override_that_leads_nowhere_is_told(tmp_path: Path, override: str) -> None:
    with pytest.raises(InputError, match=r"--set"):
        load_recipe(written(tmp_path, GOOD), [override])


def test_files_are_found_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat")
    (tmp_path / "one").mkdir()
    recipe = load_recipe(written(tmp_path, GOOD))
    assert recipe.prompts.path == str(tmp_path / "prompts.txt")
    assert recipe.images.models[0].model == str(tmp_path / "one")
    assert recipe.images.models[1].model == "two"


def test_a_range_includes_both_ends() -> None:
    assert Range(low=3, high=5, step=0.5).values() == [3, 3.5, 4, 4.5, 5]
    assert Range(low=0.1, high=0.3, step=0.1).values() == [0.1, 0.2, 0.3]


def test_the_schema_for_editors_has_a_sentence_for_every_field() -> None:
    assert '"additionalProperties": false' in recipe_schema()
    untold = [
        f"{model.__name__}.{name}"
        for model in _models(Recipe)
        for name, field in model.model_fields.items()
        if not field.description and name not in ("prompts", "images", "judge", "polish", "preferences", "workers")
    ]
    assert untold == []


def _models(model: type) -> list[type]:
    from visionprefer import recipe

    return [m for m in vars(recipe).values() if isinstance(m, type) and issubclass(m, recipe.Settings)]


def test_every_recipe_that_teaches_an_image_model_and_comes_with_the_package_can_be_read() -> None:
    for load, name in [
        (load_dpo_recipe, "dpo"),
        (load_dpo_recipe, "sdxl-dpo"),
        (load_dpo_recipe, "blocks-dpo"),
        (load_finetune_recipe, "blocks-dreamsync"),
        (load_ppo_recipe, "ppo"),
        (load_ppo_recipe, "blocks-ppo"),
    ]:
        assert load(RECIPES / f"{name}.yaml").model.split("/")[-1] in {
            "stable-diffusion-v1-5",
            "stable-diffusion-xl-base-1.0",
            "builtin:blocks-sd-small",
        }


def test_a_wrong_field_of_a_reward_is_told_with_its_nearest_name(tmp_path: Path) -> None:
    wrong = {"name": "r", "model": "m", "prompts": {"path": "p"}, "rewards": [{"scor": "fidelity"}]}
    with pytest.raises(InputError, match=r"rewards\.0\.scor: no such field; did you mean score\?"):
        load_ppo_recipe(written(tmp_path, wrong))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("quickstart", "Recipe"),
        ("visionprefer", "Recipe"),
        ("sdxl", "Recipe"),
        ("vpscore", "RewardRecipe"),
        ("blocks-vpscore", "RewardRecipe"),
        ("blocks-ablations", "AblationRecipe"),
        ("dpo", "DPORecipe"),
        ("sdxl-dpo", "DPORecipe"),
        ("blocks-dpo", "DPORecipe"),
        ("blocks-dreamsync", "FinetuneRecipe"),
        ("blocks-ppo", "PPORecipe"),
    ],
)
def test_a_recipe_is_of_the_kind_whose_fields_it_has(name: str, kind: str) -> None:
    assert type(load_any_recipe(RECIPES / f"{name}.yaml")).__name__ == kind


def test_a_recipe_that_may_be_of_two_trainings_is_not_guessed_at(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("name: mine\nmodel: builtin:blocks-sd-small\nsteps: 10\n")
    with pytest.raises(InputError, match=r"dpo or of finetune.* beta: 5000, or min_scores: \{\}"):
        load_any_recipe(file)
    file.write_text(file.read_text() + "min_scores: {}\n")
    assert type(load_any_recipe(file)).__name__ == "FinetuneRecipe"


def test_a_training_recipe_with_a_wrong_word_is_still_told_as_one(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("name: mine\nmodel: builtin:blocks-sd-small\nbeta: 500\nstepz: 10\n")
    with pytest.raises(InputError, match=r"stepz: no such field.*steps"):
        load_any_recipe(file)
