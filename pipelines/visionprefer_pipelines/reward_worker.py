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
from visionprefer.training_table import ROWS_PER_GROUP
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
    """Where this worker's prompts come from."""

    store: Store
    inputs: Inputs
    recipe: RewardRecipe
    worker: int
    workers: int

    def mine(self, steps: Sequence[Sequence[Group]]) -> list[list[Group]]:
        """This worker's part of each step."""
        return [list(step[self.worker :: self.workers]) for step in steps]

    def shared(self, groups: Sequence[Group]) -> list[list[Group]]:
        """This worker's part of all groups, cut as large as steps are."""
        mine, size = groups[self.worker :: self.workers], self.recipe.batch_size // ROWS_PER_GROUP
        return [list(mine[start : start + size]) for start in range(0, len(mine), size)]

    def prompts(self, parts: Sequence[Sequence[Group]], purpose: Purpose) -> Iterator[pa.Table]:
        """The prompts of each part, decoded by tasks of Ray Data while earlier parts are learnt: PREPARED."""
        if not parts:  # more workers than groups
            return
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        schema = pa.schema([("part", pa.int64()), ("file", pa.string()), ("group", pa.int64())])
        blocks = [
            pa.Table.from_pylist([{"part": number, **group._asdict()} for group in groups], schema)
            for number, groups in enumerate(parts)
        ]
        store, inputs, recipe = self.store, self.inputs, self.recipe

        def decode(block: pa.Table) -> pa.Table:
            rows = pa.concat_tables(store.read_row_group(row["file"], row["group"]) for row in block.to_pylist())
            found = prepared(rows, inputs, recipe, purpose)
            return found.append_column("part", pa.array([block["part"][0].as_py()] * found.num_rows, pa.int64()))

        stream = ray.data.from_arrow(blocks).map_batches(decode, batch_format="pyarrow", batch_size=None)
        held: list[pa.Table] = []
        for block in stream.iter_batches(batch_format="pyarrow", batch_size=None):
            found = cast(pa.Table, block)
            for part in pc.unique(found["part"]).to_pylist():
                if held and held[0]["part"][0].as_py() != part:
                    yield _joined(held)
                    held = []
                held.append(found.filter(pc.field("part") == part))
        if held:
            yield _joined(held)

    def batches(self, parts: Sequence[Sequence[Group]], purpose: Purpose) -> Iterator[Batch]:
        """A batch of each part."""
        for prompts in self.prompts(parts, purpose):
            yield assembled(prompts, self.inputs, self.recipe)


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
    validation = source.shared(task.groups["validation"])
    for number, prompts in enumerate(source.prompts(source.mine(steps[first:]), "training"), start=first):
        course.stepped(number, fit.step(_cut(prompts, source), number, worker))
        if epoch := ends.get(number + 1):
            course.validated(epoch, model, *fit.validate(source.batches(validation, "validation")))
        if epoch or (number + 1) % STEPS_BETWEEN_CHECKPOINTS == 0:
            _report(course, fit, number + 1)
    model.load_state_dict(course.best)
    fit.normalise(source.batches(source.mine(steps[:MOST_STEPS_FOR_NORMALISING]), "training"))
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


def _cut(prompts: pa.Table, source: _Source) -> list[Batch]:
    """Prompts of one step as so many batches as its gradient is accumulated over."""
    size = -(-prompts.num_rows // source.recipe.accumulation)
    slices = [prompts.slice(start, size) for start in range(0, prompts.num_rows, size)]
    return [assembled(part, source.inputs, source.recipe) for part in slices]


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
