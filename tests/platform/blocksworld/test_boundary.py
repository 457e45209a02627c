"""Prompts that the built-in models cannot understand are told, and only where such a model is used."""

from typing import Any

import pytest

from visionprefer.blocksworld.boundary import is_about_blocks, warning
from visionprefer.recipe import Recipe

PROMPTS = ["a red circle", "a cat", "two blue squares above a ring", "three green crosses on black"]


def recipe(*models: str, judge: str = "owner/judge") -> Recipe:
    images: dict[str, Any] = {"models": [{"model": model} for model in models]} if models else {"existing": "pictures"}
    prompts = {"path": "prompts.txt"} if models else {}
    return Recipe.model_validate({"name": "n", "prompts": prompts, "images": images, "judge": {"model": judge}})


@pytest.mark.parametrize(
    "about_blocks",
    [
        recipe("builtin:a"),
        recipe("owner/a", "builtin:b"),
        recipe("owner/a", judge="builtin:c"),
        recipe(judge="builtin:c"),
    ],
)
def test_prompts_outside_are_counted_for_any_builtin_model(about_blocks: Recipe) -> None:
    assert is_about_blocks(about_blocks)
    told = warning(about_blocks, PROMPTS)
    assert told
    assert told.startswith("2 of 4 prompts are outside the blocks world")
    assert warning(about_blocks, PROMPTS[::3]) is None


def test_other_models_are_free_to_draw_cats() -> None:
    assert not is_about_blocks(recipe("owner/a"))
    assert warning(recipe("owner/a"), PROMPTS) is None
