"""Images that are there, to be learnt from: encoded once, by Ray Data, and kept with the run, then cut into steps."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import ray
import ray.data

from visionprefer.align.encoded import ENCODED, Shapes, common_shapes, shapes_of
from visionprefer.align.recipe import DPORecipe, FinetuneRecipe
from visionprefer.align.steps import steps_of
from visionprefer.errors import InputError
from visionprefer.models import Model
from visionprefer.schema import content_id
from visionprefer.store import Store
from visionprefer.training_table import Group, row_groups
from visionprefer_pipelines.offline_worker import Encode, Part, Read, Task
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.resting import stream_context
from visionprefer_pipelines.units import commit_log


def encoded_folder(model: Model) -> str:
    """Where a run keeps what this model's autoencoder and text encoders make of its images and prompts."""
    return f"encoded/{content_id(model.digest, ENCODED.to_string())[:16]}"


def prepare(
    recipe: DPORecipe | FinetuneRecipe,
    model: Model,
    store: Store,
    parts: list[Part],
    read: Read,
    what: tuple[str, Callable[[list[dict[str, Any]]], int]],
    progress: Progress,
) -> Task:
    """Encode what is not encoded yet, and cut it into steps.

    Args:
        recipe: of the training.
        model: that it begins with.
        store: of the run.
        parts: each becomes the file whose "name" it gives.
        read: see `Encode`.
        what: a prompt must have to be learnt from, in words, and how many of some rows of ENCODED have it.
        progress: told what happens.

    Raises:
        InputError: if an image cannot be used, or there are too few.
    """
    missing = [part for part in parts if not store.exists(part["name"])]
    if missing:
        _encode(recipe, model, store, missing, read, progress)
    else:
        progress.say("latents and text embeddings are there already")
    words, count = what
    prompts: dict[Group, int] = {}
    shapes: list[Shapes | None] = []
    for name in (part["name"] for part in parts):
        table = store.read_table(name, ["prompt_id", "pairs"])
        prompts |= {Group(name, at): count(rows.to_pylist()) for at, rows in enumerate(row_groups(table))}
        shapes.append(shapes_of(table))
    common = common_shapes(shapes)
    if common is None:
        raise InputError("the run has no prompt of the training split to learn from: judge more prompts")
    progress.say(f"{sum(prompts.values()):,} training prompts have {words}")
    return Task(recipe, model, store, steps_of(prompts, recipe, words), common)


def _encode(
    recipe: DPORecipe | FinetuneRecipe, model: Model, store: Store, parts: list[Part], read: Read, progress: Progress
) -> None:
    workers, log = recipe.workers, commit_log()
    stream_context()
    stream = ray.data.from_blocks([pa.Table.from_pylist([part]) for part in parts]).map_batches(
        Encode,
        fn_constructor_args=(recipe, model, store, read, log),
        compute=ray.data.ActorPoolStrategy(size=min(len(parts), int(str(workers.actors)))),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=workers.num_cpus,
        num_gpus=workers.num_gpus,
        resources=workers.resources or None,
    )
    done = 0
    try:
        for _ in stream.iter_batches(batch_size=None, batch_format="pyarrow"):
            done += 1
            progress.say(f"encoded {done} of {len(parts)} files")
    except Exception as error:  # Ray's, which has lost its cause
        for kind, sentence in ray.get(log.take.remote()):
            if kind == "mend":
                raise InputError(sentence) from error
        raise
