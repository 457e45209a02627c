"""Actors that do units of work, and commit each: what is on disk when it is said to be, whoever dies."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from visionprefer.errors import InputError, what_to_mend
from visionprefer.judging.joint_requests import read_images
from visionprefer.judging.judge import repeated
from visionprefer.plan import read_block
from visionprefer.recipe import JudgeSettings
from visionprefer.shards import Shards
from visionprefer_pipelines.measures import RowMeasures

Batch = dict[str, np.ndarray]
Read = Callable[[Shards, str, int], pa.Table]  # the rows of a unit in a generation; they stand in the shards' store
SECONDS_TO_COMMIT = 60.0  # that what stops a run waits for units which are done beside it
JUDGED_COLUMNS = ["image_id", "prompt_id", "prompt", "image"]


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class CommitLog:
    """What was written since the driver last asked; the driver enters it in the manifest."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, Any]] = []

    def add(self, kind: str, entry: Any) -> None:
        """Note a commit (kind: the folder of its shards), a sentence ("say"), a file's name and bytes ("file"), or what
        stops the run ("mend").
        """
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
        self.measures = RowMeasures(shards.folder.partition("/")[0])
        self.at_work, self.less_work = 0, threading.Condition()
        try:
            self.stage = build()
            log.add.remote("say", self.stage.describe())
        except InputError as error:
            self.problem = error  # told with the first unit: what an actor's start raises comes as a wall of text

    def __call__(self, batch: Batch) -> Batch:
        with telling_what_to_mend(self.log), self._after_the_others():
            shards = [self._commit(str(u), int(g)) for u, g in zip(batch["unit"], batch["generation"], strict=True)]
        return named(shards)

    @contextmanager
    def _after_the_others(self) -> Iterator[None]:
        """What stops the run is raised when the units that other threads do are committed: they may be paid for."""
        with self.less_work:
            self.at_work += 1
        stops = False
        try:
            yield
        except InputError:
            stops = True
            raise
        finally:
            with self.less_work:
                self.at_work -= 1
                self.less_work.notify_all()
                if stops:
                    self.less_work.wait_for(lambda: not self.at_work, SECONDS_TO_COMMIT)

    def _commit(self, unit: str, generation: int) -> str:
        if self.problem:
            raise self.problem
        # There already: a worker died between writing it and saying so, or an image shard was made again.
        commit = self.shards.written(unit, generation)
        if commit is None:
            began = time.monotonic()
            done, failed = self.work(unit, generation)
            commit = self.shards.write(unit, generation, done, failed)
            self.measures.add(done, failed, time.monotonic() - began)
        ray.get(self.log.add.remote(self.shards.folder, tuple(commit)))
        return commit.shard

    @abstractmethod
    def work(self, unit: str, generation: int) -> tuple[pa.Table, pa.Table]:
        """Rows done and failed of one unit."""


@contextmanager
def telling_what_to_mend(log: Any) -> Iterator[None]:
    """Tell the driver of an error that a person can mend: what Ray hands on has lost its cause."""
    try:
        yield
    except (InputError, OSError) as error:
        if (sentence := what_to_mend(error)) is not None:
            ray.get(log.add.remote("mend", sentence))
        raise


def named(shards: list[str]) -> Batch:
    """What flows on: the names of shards, each the next stage's unit."""
    return {"unit": np.array(shards), "generation": np.zeros(len(shards), dtype=np.int64)}


class MakeImages(_Committing):
    """Planned blocks become image shards."""

    def work(self, unit: str, generation: int) -> tuple[pa.Table, pa.Table]:
        """All images of the block or, in a later generation, those that failed."""
        plan = read_block(self.shards.store, unit)
        if generation:
            failed = self.shards.failed_rows(f"{unit}.{generation - 1}")["image_id"]
            plan = plan.filter(pc.is_in(plan["image_id"], failed.combine_chunks()))
        return self.stage(plan)


class AskAbout(_Committing):
    """Units of rows become shards of replies."""

    def __init__(self, build: Callable[[], Any], shards: Shards, log: Any, read: Read) -> None:
        super().__init__(build, shards, log)
        self.read = read

    def work(self, unit: str, generation: int) -> tuple[pa.Table, pa.Table]:
        """Replies about the unit's rows."""
        return self.stage(self.read(self.shards, unit, generation), generation)


def images_to_judge(replies: Shards, unit: str, generation: int, settings: JudgeSettings) -> pa.Table:
    """All images of a unit or, in a later generation, those with a request that is not done: it failed, or the image is
    one that earlier generations did not know; as `JudgeQuestions` wants them.
    """
    if settings.mode == "single":
        images = replies.store.read_shard(f"images/{unit}.parquet", JUDGED_COLUMNS)
        images = repeated(images, settings.repeats)
    else:
        images = read_images(replies.store, unit, JUDGED_COLUMNS)
    if not generation:
        return images
    shards = [f"{replies.folder}/{unit}.{earlier}.parquet" for earlier in range(generation)]
    answered = [row for shard in shards for row in replies.store.read_table(shard, ["image_ids", "repeat"]).to_pylist()]
    done = {(image, row["repeat"]) for row in answered for image in row["image_ids"]}
    asked = zip(images["image_id"].to_pylist(), images["repeat"].to_pylist(), strict=True)
    return images.filter(pa.array([one not in done for one in asked], pa.bool_()))


def commit_log() -> Any:
    """A CommitLog on the driver's own node, which lives as long as the run."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return CommitLog.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
