"""What each worker of Ray Train does while VP-Score learns."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import ray.train
import torch
from ray.train.torch import get_device, prepare_model

from visionprefer.devices import choose
from visionprefer.models import Model
from visionprefer.reward.batches import Batch, assembled
from visionprefer.reward.fitting import Fit, freeze
from visionprefer.reward.inputs import Inputs
from visionprefer.reward.recipe import RewardRecipe
from visionprefer.reward.steps import Purpose, Step, prepared
from visionprefer.reward.vpscore import VPScore
from visionprefer.store import Store
from visionprefer.training_table import ROWS_PER_GROUP, Group
from visionprefer_pipelines.row_groups import stream
from visionprefer_pipelines.training_worker import Course, total

STEPS_BETWEEN_CHECKPOINTS = 500  # and one after each epoch
MOST_STEPS_FOR_NORMALISING = 256


class Task(NamedTuple):
    """What the driver tells its workers."""

    recipe: RewardRecipe
    backbone: Model
    trained_on: dict[str, Any]
    store: Store
    epochs: list[list[Step]]
    validation: list[Group]


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
        """This worker's part of all groups, cut so that no part has more prompts than a step."""
        mine, size = groups[self.worker :: self.workers], self.recipe.batch_size // ROWS_PER_GROUP
        return [list(mine[start : start + size]) for start in range(0, len(mine), size)]

    def prompts(self, parts: Sequence[Sequence[Group]], purpose: Purpose) -> Iterator[pa.Table]:
        """The prompts of each part, decoded by tasks of Ray Data while earlier parts are learnt: PREPARED."""
        store, size, recipe = self.store, self.inputs.sizes.image_size, self.recipe

        def decode(groups: list[Group]) -> pa.Table:
            rows = pa.concat_tables(store.read_row_group(*group) for group in groups)
            return prepared(rows, size, recipe, purpose)

        return stream(parts, decode)

    def batches(self, parts: Sequence[Sequence[Group]], purpose: Purpose) -> Iterator[Batch]:
        """A batch of each part."""
        for prompts in self.prompts(parts, purpose):
            yield assembled(prompts, self.inputs, self.recipe)


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
    steps = [step for epoch in task.epochs for step in epoch]
    ends = {sum(map(len, task.epochs[: index + 1])): index + 1 for index in range(recipe.epochs)}
    learner = prepare_model(model, parallel_strategy_kwargs={"broadcast_buffers": False})
    fit = Fit(model, recipe, len(steps), dtype, learner, workers, total)
    course = RewardCourse(config["log"] if worker == 0 else None, len(steps))
    first = 0
    if saved := course.resumed():
        fit.load(saved)
        course.best, first = saved["best"], saved["step"]
    validation = source.shared(task.validation)
    for number, prompts in enumerate(source.prompts(source.mine(steps[first:]), "training"), start=first):
        losses = fit.step(_cut(prompts, source), number, worker)
        course.stepped(number, next(iter(losses.values())), {"loss": losses})
        if epoch := ends.get(number + 1):
            course.validated(epoch, number + 1, model, *fit.validate(source.batches(validation, "validation")))
        if epoch or (number + 1) % STEPS_BETWEEN_CHECKPOINTS == 0:
            course.report(number + 1, fit.state() | {"best": course.best})
    model.load_state_dict(course.best)
    fit.normalise(source.batches(source.mine(steps[:MOST_STEPS_FOR_NORMALISING]), "training"))
    course.report(len(steps), fit.state() | {"best": course.best}, model.save_pretrained)


class RewardCourse(Course):
    """How training has gone, and the best model so far."""

    def __init__(self, log: Any, steps: int) -> None:
        super().__init__(log, steps)
        self.best: dict[str, torch.Tensor] = {}

    def validated(
        self, epoch: int, step: int, model: VPScore, losses: dict[str, float], right: dict[str, float]
    ) -> None:
        """Tell of an epoch, and keep its model if it is the best so far."""
        score = model.config.scores[0]
        is_best = not self.history or losses[score] < min(one["loss"][score] for one in self.history)
        self.history.append({"epoch": epoch, "loss": losses, "right": right})
        self.measured(step, {"validation_loss": losses, "right": right})
        shares = ", ".join(f"{name} {share:.1%}" for name, share in right.items())
        self.say(f"epoch {epoch}: validation loss {losses[score]:.3f}{' (best)' if is_best else ''}; right: {shares}")
        if is_best:
            self.best = {name: weight.detach().cpu().clone() for name, weight in model.state_dict().items()}


def _cut(prompts: pa.Table, source: _Source) -> list[Batch]:
    """Prompts of one step as so many batches as its gradient is accumulated over."""
    size = -(-prompts.num_rows // source.recipe.accumulation)
    slices = [prompts.slice(start, size) for start in range(0, prompts.num_rows, size)]
    return [assembled(part, source.inputs, source.recipe) for part in slices]
