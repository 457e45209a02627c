"""Prompts to judged images as one stream on Ray Data.

    blocks to make ─ MakeImages (actors) ─┐
                                          ├─ JudgeImages (actors) ─ shards that are judged
    shards made earlier, not yet judged ──┘

What flows is the name of a committed shard, never its bytes: an image is on disk before anybody else hears of it, so a
crash while judging costs no image, and memory does not grow with the run. Ray Data's own checkpoints are written at a
stream's end only; here every stage commits, and what is left to do follows from what is in the folder.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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
from visionprefer.schema import IMAGES, REPLIES
from visionprefer.store import Shards, Store
from visionprefer_pipelines.units import JudgeImages, MakeImages
from visionprefer_pipelines.vllm_stream import judged_by_vllm

MOST_RAY_BLOCKS = 1000  # each costs the driver some milliseconds before the first of them runs
WAIT_FOR_NODES = 6 * 3600.0  # seconds without progress: an autoscaler may need long to find a GPU


class Unit(NamedTuple):
    """A unit of work still to do."""

    unit: str
    generation: int


class Work(NamedTuple):
    """What a run has still to do."""

    images: list[Unit]
    replies: list[Unit]  # about images that are there already

    def __bool__(self) -> bool:
        return bool(self.images or self.replies)


def work_to_do(images: Shards, replies: Shards, blocks: list[str], retry_failed: bool, asks_once: bool = False) -> Work:
    """What is planned and not committed and, if asked for, what failed.

    Args:
        images, replies: as recovered from the folder.
        blocks: names of all planned blocks.
        retry_failed: take up failed rows again, in a new generation.
        asks_once: the engine leaves asking a second time to the next generation.
    """

    def left(shards: Shards, planned: list[str]) -> list[Unit]:
        latest = shards.latest()
        units = [Unit(unit, 0) for unit in planned if unit not in latest]
        if retry_failed:
            units += [Unit(commit.unit, commit.generation + 1) for commit in latest.values() if commit.failed]
        return units

    work = Work(left(images, blocks), left(replies, sorted(images.commits)))
    if asks_once and not retry_failed:
        again = [commit for commit in replies.latest().values() if commit.failed and asked_once(replies, commit.shard)]
        work.replies.extend(Unit(commit.unit, commit.generation + 1) for commit in again)
    return work


def asked_once(replies: Shards, shard: str) -> bool:
    """Whether a request of the shard failed that was asked only once."""
    return 1 in replies.failed_rows(shard)["asked"].to_pylist()


def stream(
    recipe: Recipe,
    store: Store,
    judge_folder: str,
    models: list[Model],
    judge: Model,
    work: Work,
    log: Any,
    spent: float,
) -> Dataset:
    """The stream that does this work. Iterating over it runs it; each row is the name of a shard that was judged.

    `spent` is the money that the judge's replies have cost so far.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False  # they would be drawn over ours
    context.execution_no_progress_timeout_s = WAIT_FOR_NODES
    fresh = _source(work.images).map_batches(
        MakeImages,
        fn_constructor_args=(_image_stage(recipe, models), Shards(store, "images", IMAGES), log),
        batch_size=1,
        **_placement(recipe.images.workers),
    )
    replies = Shards(store, judge_folder, REPLIES)
    shards = fresh.union(_source(work.replies))
    if recipe.judge.engine == "vllm":
        return judged_by_vllm(shards, recipe.judge, judge, replies, log)
    judged = {
        "fn_constructor_args": (judge_stage(recipe.judge, judge, spent), replies, log),
        "batch_size": 1,
        **_placement(recipe.judge.workers, _shards_at_once(recipe)),
    }
    return shards.map_batches(JudgeImages, **judged)


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
