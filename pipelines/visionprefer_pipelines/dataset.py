"""Prompts to judged images as one stream on Ray Data.

    blocks to make ─ MakeImages (actors) ─┐
                                          ├─ JudgeImages (actors) ─ shards that are judged
    shards made earlier, not yet judged ──┘

What flows is the name of a committed shard, never its bytes: an image is on disk before anybody else hears of it, so a
crash while judging costs no image, and memory does not grow with the run. Ray Data's own checkpoints are written at a
stream's end only; here every stage commits, and what is left to do follows from what is in the folder.
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from visionprefer.existing import ImportImages
from visionprefer.images import GenerateImages
from visionprefer.judging.judge import Judge
from visionprefer.judging.openai_engine import OpenAIEngine
from visionprefer.judging.transformers_engine import TransformersEngine
from visionprefer.models import Model
from visionprefer.recipe import JudgeSettings, Recipe, Workers
from visionprefer.schema import IMAGES
from visionprefer.store import Shards
from visionprefer_pipelines.tables import Unit, Work
from visionprefer_pipelines.units import JudgeImages, MakeImages
from visionprefer_pipelines.vllm_stream import judged_by_vllm

MOST_RAY_BLOCKS = 1000  # each costs the driver some milliseconds before the first of them runs
WAIT_FOR_NODES = 6 * 3600.0  # seconds without progress: an autoscaler may need long to find a GPU


def stream(
    recipe: Recipe,
    replies: Shards,
    models: list[Model],
    judge: Model,
    work: Work,
    log: Any,
    spent: float,
) -> Dataset:
    """The stream that does this work. Iterating over it runs it; each row is the name of a shard.

    In joint mode a stream makes images, or judges: what is shown together follows from which images there are.

    `spent` is the money that the judge's replies have cost so far.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False  # they would be drawn over ours
    context.execution_no_progress_timeout_s = WAIT_FOR_NODES
    if recipe.judge.mode == "joint" and not work.images:
        return _judged(_source(work.replies), recipe, judge, replies, log, spent)
    fresh = _source(work.images).map_batches(
        MakeImages,
        fn_constructor_args=(_image_stage(recipe, models), Shards(replies.store, "images", IMAGES), log),
        batch_size=1,
        **_placement(recipe.images.workers),
    )
    if recipe.judge.mode == "joint":
        return fresh
    return _judged(fresh.union(_source(work.replies)), recipe, judge, replies, log, spent)


def _judged(units: Dataset, recipe: Recipe, judge: Model, replies: Shards, log: Any, spent: float) -> Dataset:
    if recipe.judge.engine == "vllm":
        return judged_by_vllm(units, recipe.judge, judge, replies, log)
    judged = {
        "fn_constructor_args": (judge_stage(recipe.judge, judge, spent), replies, log),
        "batch_size": 1,
        **_placement(recipe.judge.workers, _shards_at_once(recipe)),
    }
    return units.map_batches(JudgeImages, **judged)


def _image_stage(recipe: Recipe, models: list[Model]) -> Callable[[], Any]:
    if recipe.images.existing:
        return ImportImages
    return lambda: GenerateImages(recipe.images, models)


def judge_stage(settings: JudgeSettings, model: Model, spent: float) -> Callable[[], Judge]:
    """What builds the judge, on the worker; `spent` is the money that its replies have cost so far.

    Engine vllm runs in stages of its own, and not here: see `vllm_stream`.
    """
    if settings.engine == "openai":
        return lambda: Judge(settings, model, OpenAIEngine(settings, model, spent))
    return lambda: Judge(settings, model, TransformersEngine(settings, model))


def _shards_at_once(recipe: Recipe) -> int:
    """How many shards an actor judges at a time: so many that a server has always as many requests as it may have."""
    if recipe.judge.engine != "openai":
        return 1
    return 2 + recipe.judge.api.concurrency // recipe.images.block_size


def _source(units: list[Unit]) -> Dataset:
    """One Ray block a unit, so that each goes on as soon as it is done; a few units a block in very long runs."""
    schema = pa.schema([("unit", pa.string()), ("generation", pa.int64())])
    size = -(-len(units) // MOST_RAY_BLOCKS) or 1
    chunks = [units[start : start + size] for start in range(0, len(units), size)] or [[]]
    return ray.data.from_arrow([pa.Table.from_pylist([unit._asdict() for unit in chunk], schema) for chunk in chunks])


def _placement(workers: Workers, calls_at_once: int = 1) -> dict[str, Any]:
    least, most = (workers.actors,) * 2 if isinstance(workers.actors, int) else workers.actors
    compute = ActorPoolStrategy(
        min_size=least,
        max_size=most,
        max_concurrent_calls_per_actor=calls_at_once,
        enable_true_multi_threading=calls_at_once > 1,
    )
    placement = {"compute": compute, "num_cpus": workers.num_cpus, "num_gpus": workers.num_gpus}
    return placement | ({"resources": workers.resources} if workers.resources else {})
