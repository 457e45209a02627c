"""Diffusion-DPO: an image model learns from the training table of a run."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from visionprefer.align.card import write_card
from visionprefer.align.pairs import usable
from visionprefer.align.recipe import DPORecipe
from visionprefer.errors import InputError
from visionprefer.run_folder import RunFolder
from visionprefer.store import Store
from visionprefer.training_table import check_weights
from visionprefer_pipelines.cluster import connected
from visionprefer_pipelines.offline import encoded_folder, prepare
from visionprefer_pipelines.offline_worker import Part, learn
from visionprefer_pipelines.policies import base_of, tell_of_long_prompts
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.row_groups import READERS
from visionprefer_pipelines.training import ANY_WAY, Run, is_to_do, train


def train_dpo(recipe: DPORecipe, data: str, out: str | Path, progress: Progress, address: str | None = None) -> None:
    """Train an image model on preferences, or go on training it.

    Args:
        recipe: how.
        data: folder of a finished run.
        out: folder, local or s3://, gs://, that gets LoRA weights or a whole pipeline, as stock diffusers loads them, a
            card, and `training.json` with how it went; checkpoints until it is done.
        progress: told what happens.
        address: of a Ray cluster; None: see `cluster.connected`.

    Raises:
        InputError: if something that was given cannot be used. Checkpoints, and what was encoded, stay.
    """
    source = RunFolder(Store(data))
    files = source.training_files()
    if not files:
        raise InputError(f"{data}: no prompt has a pair that is not a tie, so there is nothing to learn from")
    check_weights(recipe.weights, source)
    model, about = base_of(recipe)
    trained_on = {
        "method": "dpo",
        "run": source.recipe.name,
        "training_table": Path(files[0]).stem.rpartition("-")[0],
        **about,
        "recipe": recipe.model_dump(mode="json", exclude=ANY_WAY),
    }
    run = Run("dpo", Store(out), trained_on, recipe)
    if not is_to_do(run, progress):
        return
    tell_of_long_prompts(model, [prompt for file in files for prompt in _prompts(source.store, file)], progress)
    parts = [{"file": file, "name": f"{encoded_folder(model)}/{Path(file).name}"} for file in files]
    least = f" that differs by {recipe.min_margin:g} or more" if recipe.min_margin else ""

    def learnable(rows: list[dict[str, Any]]) -> int:
        return sum(bool(usable(row["pairs"], recipe)) for row in rows)

    with connected(address, {"workers": recipe.workers, "readers": READERS}, object_store_bytes=None):
        what = f"a pair of {recipe.aspect!r}{least}"
        task = prepare(recipe, model, source.store, parts, _read, (what, learnable), progress)
        train(run, learn, task, progress, write_card)


def _prompts(store: Store, file: str) -> list[str]:
    rows = store.read_table(file, ["prompt", "split"])
    return rows.filter(pc.field("split") == "train")["prompt"].to_pylist()


def _read(store: Store, part: Part) -> pa.Table:
    return pa.concat_tables(store.row_groups(part["file"]))
