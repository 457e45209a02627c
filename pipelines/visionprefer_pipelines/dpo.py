"""Diffusion-DPO: an image model learns on Ray Train from the training table of a run, which is encoded once, by Ray
Data, and kept with the run. Running again goes on where it stopped.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data

from visionprefer.align.card import write_card
from visionprefer.align.encoded import ENCODED, Shapes, common_shapes, shapes_of
from visionprefer.align.pairs import usable
from visionprefer.align.recipe import DPORecipe
from visionprefer.align.steps import steps_of
from visionprefer.errors import InputError
from visionprefer.models import Model
from visionprefer.run_folder import RunFolder
from visionprefer.schema import content_id
from visionprefer.store import Store
from visionprefer.training_table import Group, row_groups
from visionprefer_pipelines.cluster import connected
from visionprefer_pipelines.dpo_worker import EncodeTraining, Task, learn
from visionprefer_pipelines.policies import base_of
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.resting import stream_context
from visionprefer_pipelines.row_groups import READERS
from visionprefer_pipelines.training import ANY_WAY, Run, is_to_do, train
from visionprefer_pipelines.units import commit_log


def train_dpo(recipe: DPORecipe, data: str, out: Path, progress: Progress, address: str | None = None) -> Path:
    """Train an image model on preferences, or go on training it.

    Args:
        recipe: how.
        data: folder of a finished run.
        out: folder that gets LoRA weights or a whole pipeline, as stock diffusers loads them, a card, and
            `training.json` with how it went; checkpoints until it is done.
        progress: told what happens.
        address: of a Ray cluster; None: see `cluster.connected`.

    Returns:
        The folder.

    Raises:
        InputError: if something that was given cannot be used. Checkpoints, and what was encoded, stay.
    """
    source = RunFolder(Store(data))
    files = source.training_files()
    if not files:
        raise InputError(f"{data}: no prompt has a pair that is not a tie, so there is nothing to learn from")
    model, about = base_of(recipe)
    trained_on = {
        "method": "dpo",
        "run": source.recipe.name,
        "training_table": Path(files[0]).stem.rpartition("-")[0],
        **about,
        "recipe": recipe.model_dump(mode="json", exclude=ANY_WAY),
    }
    if not is_to_do(out, trained_on, progress):
        return out
    with connected(address, {"workers": recipe.workers, "readers": READERS}, object_store_bytes=None):
        encoded = _encoded(recipe, model, source.store, files, progress)
        prompts, shapes = _usable(source.store, encoded, recipe)
        progress.say(f"{sum(prompts.values()):,} training prompts have a pair to learn from")
        task = Task(recipe, model, source.store, steps_of(prompts, recipe), shapes)
        train(Run("dpo", out, trained_on, recipe.workers, recipe.retries), learn, task, progress, write_card)
    return out


def _encoded(recipe: DPORecipe, model: Model, store: Store, files: list[str], progress: Progress) -> list[str]:
    """The training table as this model's latents and embeddings, file by file; those that are there stay."""
    folder = f"encoded/{content_id(model.digest, ENCODED.to_string())[:16]}"
    names = {file: f"{folder}/{Path(file).name}" for file in files}
    missing = [file for file, name in names.items() if not store.exists(name)]
    if missing:
        workers, log = recipe.workers, commit_log()
        stream_context()
        rows = ray.data.from_arrow([pa.table({"file": [file], "name": [names[file]]}) for file in missing])
        stream = rows.map_batches(
            EncodeTraining,
            fn_constructor_args=(recipe, model, store, log),
            compute=ray.data.ActorPoolStrategy(size=min(len(missing), int(str(workers.actors)))),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=workers.num_cpus,
            num_gpus=workers.num_gpus,
            resources=workers.resources or None,
        )
        _encode(stream, log, len(missing), progress)
    else:
        progress.say("latents and text embeddings are there already")
    return list(names.values())


def _encode(stream: Any, log: Any, files: int, progress: Progress) -> None:
    done = 0
    try:
        for _ in stream.iter_batches(batch_size=None, batch_format="pyarrow"):
            done += 1
            progress.say(f"encoded {done} of {files} files of the training table")
    except Exception as error:  # Ray's, which has lost its cause
        for kind, sentence in ray.get(log.take.remote()):
            if kind == "mend":
                raise InputError(sentence) from error
        raise


def _usable(store: Store, files: list[str], recipe: DPORecipe) -> tuple[dict[Group, int], Shapes]:
    """How many prompts of each row group have a pair that the recipe wants, and the shapes of all codes."""
    prompts: dict[Group, int] = {}
    shapes: list[Shapes | None] = []
    for file in files:
        table = store.read_table(file, ["pairs"])
        for group, rows in enumerate(row_groups(table)):
            prompts[Group(file, group)] = sum(bool(usable(pairs, recipe)) for pairs in rows["pairs"].to_pylist())
        shapes.append(shapes_of(table))
    common = common_shapes(shapes)
    if common is None:
        raise InputError("the training table has no prompt of the training split: judge more prompts")
    return prompts, common
