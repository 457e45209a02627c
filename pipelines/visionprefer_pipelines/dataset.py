"""Prompts to judged images as one stream on Ray Data.

    blocks to make ─ MakeImages (actors) ─┐
                                          ├─ JudgeImages (actors) ─ shards that are judged
    shards made earlier, not yet judged ──┘

What flows is the name of a committed shard, never its bytes: an image is on disk before anybody else hears of it, so a
crash while judging costs no image, and memory does not grow with the run. Ray Data's own checkpoints are written at a
stream's end only; here every stage commits, and what is left to do follows from what is in the folder.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from visionprefer.errors import InputError, what_to_mend
from visionprefer.existing import ImportImages
from visionprefer.images import GenerateImages
from visionprefer.judging.judge import Judge
from visionprefer.judging.openai_engine import OpenAIEngine
from visionprefer.judging.transformers_engine import TransformersEngine
from visionprefer.models import Model
from visionprefer.plan import read_block
from visionprefer.recipe import JudgeSettings, Recipe, Workers
from visionprefer.schema import IMAGES, REPLIES
from visionprefer.store import Shards, Store

Batch = dict[str, np.ndarray]
MOST_RAY_BLOCKS = 1000  # each costs the driver some milliseconds before the first of them runs
WAIT_FOR_NODES = 6 * 3600.0  # seconds without progress: an autoscaler may need long to find a GPU
JUDGED_COLUMNS = ["image_id", "prompt_id", "prompt", "image"]


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


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class CommitLog:
    """What was written since the driver last asked; the driver enters it in the manifest."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, Any]] = []

    def add(self, kind: str, entry: Any) -> None:
        """Note a commit (kind: the folder of its shards), a sentence ("say") or what stops the run ("mend")."""
        self.entries.append((kind, entry))

    def take(self) -> list[tuple[str, Any]]:
        """Hand over what was noted."""
        taken, self.entries = self.entries, []
        return taken


class _Committing(ABC):
    """An actor that does units of work and commits each."""

    def __init__(self, build: Callable[[], Any], shards: Shards, log: Any) -> None:
        self.shards = shards
        self.log = log
        self.problem: InputError | None = None
        try:
            self.stage = build()
            log.add.remote("say", self.stage.describe())
        except InputError as error:
            self.problem = error  # told with the first unit: what an actor's start raises comes as a wall of text

    def __call__(self, batch: Batch) -> Batch:
        try:
            shards = [self._commit(str(u), int(g)) for u, g in zip(batch["unit"], batch["generation"], strict=True)]
        except (InputError, OSError) as error:
            if (sentence := what_to_mend(error)) is not None:
                ray.get(self.log.add.remote("mend", sentence))  # what Ray hands on has lost its cause
            raise
        return {"unit": np.array(shards), "generation": np.zeros(len(shards), dtype=np.int64)}

    def _commit(self, unit: str, generation: int) -> str:
        if self.problem:
            raise self.problem
        # There already: a worker died between writing it and saying so, or an image shard was made again.
        commit = self.shards.written(unit, generation)
        if commit is None:
            commit = self.shards.write(unit, generation, *self.work(unit, generation))
        ray.get(self.log.add.remote(self.shards.folder, tuple(commit)))
        return commit.shard

    @abstractmethod
    def work(self, unit: str, generation: int) -> tuple[pa.Table, pa.Table]:
        """Rows done and failed of one unit."""

    def failed_before(self, unit: str, generation: int, column: str) -> pa.ChunkedArray:
        """What the generation before left as failed."""
        return self.shards.failed_rows(f"{unit}.{generation - 1}")[column]


class MakeImages(_Committing):
    """Planned blocks become image shards."""

    def work(self, unit: str, generation: int) -> tuple[pa.Table, pa.Table]:
        """All images of the block or, in a later generation, those that failed."""
        plan = read_block(self.shards.store, unit)
        if generation:
            plan = plan.filter(
                pc.is_in(plan["image_id"], self.failed_before(unit, generation, "image_id").combine_chunks())
            )
        return self.stage(plan)


class JudgeImages(_Committing):
    """Image shards become shards of replies."""

    def work(self, unit: str, generation: int) -> tuple[pa.Table, pa.Table]:
        """All images of the shard or, in a later generation, those whose request failed."""
        images = self.shards.store.read_table(f"images/{unit}.parquet", JUDGED_COLUMNS)
        if generation:
            shown = pc.list_flatten(self.failed_before(unit, generation, "image_ids").combine_chunks())
            images = images.filter(pc.is_in(images["image_id"], shown))
        return self.stage(images, generation)


def work_to_do(images: Shards, replies: Shards, blocks: list[str], retry_failed: bool) -> Work:
    """What is planned and not committed and, if asked for, what failed.

    Args:
        images, replies: as recovered from the folder.
        blocks: names of all planned blocks.
        retry_failed: take up failed rows again, in a new generation.
    """

    def left(shards: Shards, planned: list[str]) -> list[Unit]:
        latest = shards.latest()
        units = [Unit(unit, 0) for unit in planned if unit not in latest]
        if retry_failed:
            units += [Unit(commit.unit, commit.generation + 1) for commit in latest.values() if commit.failed]
        return units

    return Work(left(images, blocks), left(replies, sorted(images.commits)))


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
    judged = {
        "fn_constructor_args": (judge_stage(recipe.judge, judge, spent), replies, log),
        "batch_size": 1,
        **_placement(recipe.judge.workers, _shards_at_once(recipe)),
    }
    return fresh.union(_source(work.replies)).map_batches(JudgeImages, **judged)


def commit_log() -> Any:
    """A CommitLog on the driver's own node, which lives as long as the run."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return CommitLog.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]


def _image_stage(recipe: Recipe, models: list[Model]) -> Callable[[], Any]:
    if recipe.images.existing:
        return ImportImages
    return lambda: GenerateImages(recipe.images, models)


def judge_stage(settings: JudgeSettings, model: Model, spent: float) -> Callable[[], Judge]:
    """What builds the judge, on the worker; `spent` is the money that its replies have cost so far."""
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
