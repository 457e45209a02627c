"""An image is learnt from if none of its prompt is better, and it is good enough."""

from collections.abc import Callable
from typing import Any

import pytest

from visionprefer.align.best import best_images
from visionprefer.align.recipe import FinetuneRecipe
from visionprefer.errors import InputError
from visionprefer.run_folder import RunFolder

SCORES = {  # of the images of a prompt: prompt_following, aesthetic, fidelity, harmlessness
    "plain": ("train", [[3, 3, 3, 3], [5, 4, 4, 5], [5, 5, 1, 5]]),
    "bad": ("train", [[1, 1, 1, 1], [2, 2, 2, 2]]),
    "equal": ("train", [[4, 4, 4, 4], [4, 4, 4, 4]]),
    "alone": ("train", [[5, 5, 5, 5]]),
    "hidden": ("held_out", [[5, 5, 5, 5], [1, 1, 1, 1]]),
    "lost": ("train", [None, [4, 4, 4, 4]]),
}


def best(run: RunFolder, **settings: Any) -> dict[str, int]:
    """The prompt and place of each image that is kept."""
    kept = best_images(run, FinetuneRecipe.model_validate({"name": "r", "model": "m", **settings}))
    rows = {row["image_id"]: row for row in run.images.table().to_pylist()}
    return {rows[image_id]["prompt"]: rows[image_id]["candidate"] for image_id in kept}


def test_the_best_image_of_each_training_prompt_is_kept(make_run: Callable[..., RunFolder]) -> None:
    run = make_run(SCORES)
    assert best(run) == {"plain": 1, "bad": 1, "equal": 0, "alone": 0, "lost": 1}
    assert best(run, aspect="aesthetic")["plain"] == 2


def test_an_image_has_to_reach_every_least_score(make_run: Callable[..., RunFolder]) -> None:
    """Another image of the prompt may, though it is not the best of all."""
    run = make_run(SCORES)
    assert best(run, min_scores={"aesthetic": 4}) == {"plain": 1, "equal": 0, "alone": 0, "lost": 1}
    assert best(run, min_scores={"aesthetic": 5}) == {"plain": 2, "alone": 0}
    assert best(run, min_scores={"aesthetic": 5, "fidelity": 4}) == {"alone": 0}


@pytest.mark.parametrize("settings", [{"aspect": "beauty"}, {"min_scores": {"beauty": 4}}])
def test_a_score_that_the_run_has_not_is_told(make_run: Callable[..., RunFolder], settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"no scores by 'beauty'\. Write some of: prompt_following, .*overall"):
        best(make_run(SCORES), **settings)
