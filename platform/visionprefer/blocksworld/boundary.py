"""Where the blocks world ends, and with it all that the built-in models know."""

from visionprefer.blocksworld.wording import understand
from visionprefer.models import is_builtin
from visionprefer.recipe import Recipe


def is_about_blocks(recipe: Recipe) -> bool:
    """Whether any model of the recipe is a built-in one, so that the oracle is to be asked."""
    return any(map(is_builtin, [recipe.judge.model, *(asked.model for asked in recipe.images.models)]))


def warning(recipe: Recipe, prompts: list[str]) -> str | None:
    """A sentence about the prompts that the recipe's built-in models cannot understand; None if there are none."""
    outside = sum(understand(prompt) is None for prompt in prompts) if is_about_blocks(recipe) else 0
    if not outside:
        return None
    return (
        f"{outside:,} of {len(prompts):,} prompts are outside the blocks world, which is all that the built-in models "
        "know: their images and scores mean nothing there"
    )
