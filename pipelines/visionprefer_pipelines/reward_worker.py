"""What each worker of Ray Train does while VP-Score learns."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.train
import torch
from ray.train.torch import get_device, prepare_model

from visionprefer.devices import choose
from visionprefer.models import Model
from visionprefer.reward.batches import PREPARED, Batch, Group, Purpose, assembled, prepared, steps_of_epoch
from visionprefer.reward.fitting import Fit, freeze
from visionprefer.reward.inputs import Inputs
from visionprefer.reward.recipe import RewardRecipe
from visionprefer.reward.vpscore import VPScore
from visionprefer.store import Store
from visionprefer_pipelines.progress import SECONDS_BETWEEN_LINES

STATE = "state.pt"
MODEL = "model"
STEPS_BETWEEN_CHECKPOINTS = 500  # and one after each epoch
MOST_STEPS_FOR_NORMALISING = 256


class Task(NamedTuple):
    """What the driver tells its workers."""

    recipe: RewardRecipe
    backbone: Model
    trained_on: dict[str, Any]
    store: Store
    groups: dict[Purpose, list[Group]]
    log: Any


class _Source(NamedTuple):
    """Where a worker's part of each step comes from."""

    store: Store
    inputs: Inputs
    recipe: RewardRecipe
    worker: int
    workers: int

    def steps(self, steps: Sequence[Sequence[Group]], purpose: Purpose) -> Iterator[pa.Table]:
        """This worker's prompts of each step, decoded by tasks of Ray Data while earlier steps are learnt."""
        ray.data.DataContext.get_current().execution_options.preserve_order = True
        ray.data.DataContext.get_current().enable_progress_bars = False
        schema = pa.schema([("step", pa.int64()), ("file", pa.string()), ("group", pa.int64())])
        mine = [list(step)[self.worker :: self.workers] for step in steps]
        blocks = [
            pa.Table.from_pylist([{"step": step, **group._asdict()} for group in groups], schema)
            for step, groups in enumerate(mine)
        ]
        store, inputs, recipe = self.store, self.inputs, self.recipe

        def decode(block: pa.Table) -> pa.Table:
            rows = pa.concat_tables(store.read_row_group(row["file"], row["group"]) for row in block.to_pylist())
            found = prepared(rows, inputs, recipe, purpose)
            return found.append_column("step", pa.array([block["step"][0].as_py()] * found.num_rows, pa.int64()))

        stream = ray.data.from_arrow(blocks).map_batches(decode, batch_format="pyarrow", batch_size=None)
        held: list[pa.Table] = []
        for block in stream.iter_batches(batch_format="pyarrow", batch_size=None):
            found = cast(pa.Table, block)
            for step in pc.unique(found["step"]).to_pylist():
                if held and held[0]["step"][0].as_py() != step:
                    yield _joined(held)
                    held = []
                held.append(found.filter(pc.field("step") == step))
        if held:
            yield _joined(held)

    def batches(self, groups: Sequence[Group], purpose: Purpose) -> Iterator[Batch]:
        """This worker's part of all prompts for a purpose."""
        steps = [[group] * self.workers for group in groups[self.worker :: self.workers]]
        for rows in self.steps(steps, purpose):
            yield assembled(rows, self.inputs, self.recipe)


def _joined(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).select(PREPARED.names)


def learn(config: dict[str, Any]) -> None:
    """Train, validate after each epoch, keep the best, and report checkpoints to Ray Train."""
    task: Task = config["task"]
    recipe, context = task.recipe, ray.train.get_context()
    worker, workers = context.get_world_rank(), context.get_world_size()
    device = get_device()
    _, dtype = choose(device.type, recipe.dtype, on_gpu="bfloat16")
    model = VPScore.from_backbone(task.backbone.location, task.backbone.revision, recipe.scores, recipe.seed)
    model.config = model.config.model_copy(update={"trained_on": task.trained_on})
    freeze(model, recipe.frozen)
    model.to(device)
    source = _Source(task.store, model.inputs, recipe, worker, workers)
    epochs = [steps_of_epoch(task.groups["training"], recipe, epoch) for epoch in range(recipe.epochs)]
    steps = [step for epoch in epochs for step in epoch]
    ends = {sum(map(len, epochs[: index + 1])): index + 1 for index in range(len(epochs))}
    learner = prepare_model(model, parallel_strategy_kwargs={"broadcast_buffers": False})
    fit = Fit(model, recipe, len(steps), dtype, learner, workers, _total)
    course = Course(task.log if worker == 0 else None, len(steps))
    first = _resume(fit, course)
    for number, rows in enumerate(source.steps(steps[first:], "training"), start=first):
        course.stepped(number, fit.step(_parts(rows, source), number, worker))
        if epoch := ends.get(number + 1):
            course.validated(epoch, model, *fit.validate(source.batches(task.groups["validation"], "validation")))
        if epoch or (number + 1) % STEPS_BETWEEN_CHECKPOINTS == 0:
            _report(course, fit, number + 1)
    model.load_state_dict(course.best)
    fit.normalise(_merged(source, steps[:MOST_STEPS_FOR_NORMALISING]))
    _report(course, fit, len(steps), model)


class Course:
    """How training has gone: what is told, and the best model so far."""

    def __init__(self, log: Any, steps: int) -> None:
        self.log, self.steps = log, steps
        self.began = self.told = time.monotonic()
        self.seconds_before = 0.0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, torch.Tensor] = {}

    def say(self, sentence: str) -> None:
        """Tell the person at the terminal."""
        if self.log is not None:
            self.log.add.remote("say", sentence)

    def stepped(self, number: int, losses: dict[str, float]) -> None:
        """Tell of a step, now and then."""
        if time.monotonic() - self.told > SECONDS_BETWEEN_LINES:
            self.told = time.monotonic()
            overall = next(iter(losses.values()))
            self.say(f"step {number + 1:,} of {self.steps:,}, loss {overall:.3f}")

    def validated(self, epoch: int, model: VPScore, losses: dict[str, float], right: dict[str, float]) -> None:
        """Tell of an epoch, and keep its model if it is the best so far."""
        score = model.config.scores[0]
        is_best = not self.history or losses[score] < min(one["loss"][score] for one in self.history)
        self.history.append({"epoch": epoch, "loss": losses, "right": right})
        shares = ", ".join(f"{name} {share:.1%}" for name, share in right.items())
        self.say(f"epoch {epoch}: validation loss {losses[score]:.3f}{' (best)' if is_best else ''}; right: {shares}")
        if is_best:
            self.best = {name: weight.detach().cpu().clone() for name, weight in model.state_dict().items()}

    @property
    def seconds(self) -> float:
        """Of training so far, before an interruption too."""
        return self.seconds_before + time.monotonic() - self.began


def _parts(rows: pa.Table, source: _Source) -> list[Batch]:
    size = -(-rows.num_rows // source.recipe.accumulation)
    slices = [rows.slice(start, size) for start in range(0, rows.num_rows, size)]
    return [assembled(part, source.inputs, source.recipe) for part in slices]


def _merged(source: _Source, steps: Sequence[Sequence[Group]]) -> Iterator[Batch]:
    for rows in source.steps(steps, "training"):
        yield assembled(rows, source.inputs, source.recipe)


def _total(tensor: torch.Tensor) -> torch.Tensor:
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(tensor)
    return tensor


def _resume(fit: Fit, course: Course) -> int:
    """Take up the latest checkpoint, if there is one. Returns the step to go on with."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        saved = torch.load(Path(folder) / STATE, weights_only=True, map_location="cpu")
    fit.load(saved)
    course.history, course.best, course.seconds_before = saved["history"], saved["best"], saved["seconds"]
    course.say(f"going on at step {saved['step']:,} of {course.steps:,}")
    return int(saved["step"])


def _report(course: Course, fit: Fit, step: int, finished: VPScore | None = None) -> None:
    """Every worker reports; the first one's checkpoint is kept."""
    metrics = {"step": step, "history": course.history, "seconds": course.seconds}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if ray.train.get_context().get_world_rank() == 0:
            kept = {"step": step, "history": course.history, "best": course.best, "seconds": course.seconds}
            torch.save(fit.state() | kept, Path(folder) / STATE)
            if finished:
                finished.save_pretrained(Path(folder) / MODEL)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(metrics, checkpoint=checkpoint)
