"""What actors of Ray Data and workers of Ray Train do while an image model learns from images that are there."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa
import ray.train
from ray.train.torch import get_device, prepare_model

from visionprefer.align.encoded import (
    ImageBatch,
    PairBatch,
    Shapes,
    common_shapes,
    encode,
    image_batch,
    pair_batch,
    shapes_of,
)
from visionprefer.align.fit import DPOFit, FinetuneFit
from visionprefer.align.recipe import DPORecipe, FinetuneRecipe, OfflineRecipe
from visionprefer.align.steps import Step
from visionprefer.devices import choose
from visionprefer.images import load_pipeline
from visionprefer.models import Model
from visionprefer.store import Store
from visionprefer.training_table import ROWS_PER_GROUP, Group, row_groups
from visionprefer_pipelines.policies import policy_of
from visionprefer_pipelines.row_groups import stream
from visionprefer_pipelines.training_worker import Course, total
from visionprefer_pipelines.units import telling_what_to_mend

Part = dict[str, Any]
Read = Callable[[Store, Part], pa.Table]


class Encode:
    """Prompts with their images become a file of latents and text embeddings, a few prompts a row group.

    Args:
        recipe: of the training.
        model: whose autoencoder and text encoders are used.
        store: of the run.
        read: the prompts of a part, as TRAINING.
        log: a CommitLog, told what is wrong.
    """

    def __init__(self, recipe: OfflineRecipe, model: Model, store: Store, read: Read, log: Any) -> None:
        self.recipe, self.model, self.store, self.read, self.log = recipe, model, store, read, log
        self.pipeline: Any = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Encode the parts of a batch, each into the file that it names."""
        with telling_what_to_mend(self.log):
            if self.pipeline is None:
                device, dtype = choose(self.recipe.device, self.recipe.dtype, on_gpu="float16")
                self.pipeline = load_pipeline(self.model, device, dtype)
            for part in batch.to_pylist():
                rows = self.read(self.store, part)
                encoded = [encode(few, self.pipeline) for few in row_groups(rows)]
                self.store.write_table(part["name"], _joined(encoded), ROWS_PER_GROUP)
        return batch


def _joined(tables: list[pa.Table]) -> pa.Table:
    """All rows of tables, of which those that have any tell the shapes of their codes.

    Raises:
        InputError: if their images differ in size.
    """
    filled = [table for table in tables if table.num_rows]
    common_shapes([shapes_of(table) for table in filled])
    return pa.concat_tables(filled or tables[:1])


class Task(NamedTuple):
    """What the driver tells its workers."""

    recipe: DPORecipe | FinetuneRecipe
    model: Model
    store: Store
    steps: list[Step]
    shapes: Shapes


def learn(config: dict[str, Any]) -> None:
    """Train, and report checkpoints to Ray Train."""
    task: Task = config["task"]
    recipe, context = task.recipe, ray.train.get_context()
    worker, workers = context.get_world_rank(), context.get_world_size()
    is_dpo = isinstance(recipe, DPORecipe)
    policy, dtype = policy_of(recipe, task.model, get_device(), with_reference=is_dpo)
    if recipe.gradient_checkpointing:
        policy.unet.enable_gradient_checkpointing()
    policy.learner = prepare_model(policy.unet)
    fit = (DPOFit if is_dpo else FinetuneFit)(policy, recipe, dtype, workers, total)
    course = Course(config["log"] if worker == 0 else None, recipe.steps)
    first = 0
    if saved := course.resumed():
        fit.load(saved)
        first = saved["step"]
    store, steps = task.store, task.steps[first:]

    def read(groups: list[Group]) -> pa.Table:
        return pa.concat_tables(store.read_row_group(*group) for group in groups)

    told: list[dict[str, float]] = []
    prompts = stream([step.groups[worker::workers] for step in steps], read)
    for number, (step, rows) in enumerate(zip(steps, prompts, strict=True), start=first):
        told.append(fit.step(_cut(rows, task, step.epoch), number))
        course.stepped(number, told[-1]["loss"], told[-1])
        if course.is_due(number + 1):
            _note(course, number + 1, told)
            course.report(number + 1, fit.state())
            told = []
    if told:
        _note(course, recipe.steps, told)
    state = fit.state()
    fit.finish()
    course.report(recipe.steps, state, policy.save_pretrained)


def _cut(rows: pa.Table, task: Task, epoch: int) -> list[PairBatch | ImageBatch]:
    """Prompts of one step as so many batches as its gradient is accumulated over."""
    recipe, shapes = task.recipe, task.shapes
    size = -(-rows.num_rows // recipe.accumulation)
    slices = [rows.slice(start, size) for start in range(0, rows.num_rows, size)]
    if isinstance(recipe, FinetuneRecipe):
        return [image_batch(part, shapes) for part in slices]
    batches = [pair_batch(part, shapes, recipe, epoch) for part in slices]
    return [batch for batch in batches if batch is not None]


def _note(course: Course, step: int, told: list[dict[str, float]]) -> None:
    """Keep the means over some steps, and tell of them."""
    means = {name: sum(one[name] for one in told) / len(told) for name in told[0]}
    course.history.append({"step": step, "seconds": course.seconds, **means})
    right = f"; {means['right']:.1%} of the pairs moved the right way" if "right" in means else ""
    course.say(f"step {step:,} of {course.steps:,}: loss {means['loss']:.4f}{right}")
