"""Prompts to judged images as one stream on Ray Data.

    blocks to make ─ MakeImages (actors) ─┐
                                          ├─ AskAbout (actors) ─── shards that are judged
    shards made earlier, not yet judged ──┘

What flows is the name of a committed shard, never its bytes: an image is on disk before anybody else hears of it, so a
crash while judging costs no image, and memory does not grow with the run. Ray Data's own checkpoints are written at a
stream's end only; here every stage commits, and what is left to do follows from what is in the folder.
"""

import functools
from collections.abc import Callable
from typing import Any

from ray.data import Dataset

from visionprefer.existing import ImportImages
from visionprefer.images import GenerateImages
from visionprefer.judging.judge import JudgeQuestions
from visionprefer.models import Model
from visionprefer.recipe import Recipe
from visionprefer.schema import IMAGES
from visionprefer.shards import Shards
from visionprefer_pipelines.answers import answered, placement, source
from visionprefer_pipelines.tables import Work
from visionprefer_pipelines.units import MakeImages, images_to_judge


def stream(
    recipe: Recipe,
    replies: Shards,
    models: list[Model],
    judge: Model,
    work: Work,
    log: Any,
) -> Dataset:
    """The stream that does this work. Iterating over it runs it; each row is the name of a shard.

    In joint mode a stream makes images, or judges: what is shown together follows from which images there are.
    """
    if recipe.judge.mode == "joint" and not work.images:
        return _judged(source(work.replies), recipe, judge, replies, log)
    fresh = source(work.images).map_batches(
        MakeImages,
        fn_constructor_args=(_image_stage(recipe, models), Shards(replies.store, "images", IMAGES), log),
        batch_size=1,
        **placement(recipe.images.workers),
    )
    if recipe.judge.mode == "joint":
        return fresh
    return _judged(fresh.union(source(work.replies)), recipe, judge, replies, log)


def _judged(units: Dataset, recipe: Recipe, judge: Model, replies: Shards, log: Any) -> Dataset:
    questions = JudgeQuestions(recipe.judge, judge)
    read = functools.partial(images_to_judge, settings=recipe.judge)
    return answered(units, questions, recipe.judge, judge, replies, read, log, recipe.images.block_size)


def _image_stage(recipe: Recipe, models: list[Model]) -> Callable[[], Any]:
    if recipe.images.existing:
        return ImportImages
    return lambda: GenerateImages(recipe.images, models)
