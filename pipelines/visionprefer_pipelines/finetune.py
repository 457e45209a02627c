"""Fine-tuning: an image model learns from the best image of each prompt of a run, where that is good enough."""

import functools
from pathlib import Path
from typing import Any

import pyarrow as pa

from visionprefer.align.best import best_images
from visionprefer.align.card import write_card
from visionprefer.align.recipe import FinetuneRecipe
from visionprefer.errors import InputError
from visionprefer.pictures import Pictures
from visionprefer.run_folder import RunFolder
from visionprefer.schema import TRAINING, content_id
from visionprefer.store import Store
from visionprefer_pipelines.cluster import connected
from visionprefer_pipelines.offline import encoded_folder, prepare
from visionprefer_pipelines.offline_worker import Part, learn
from visionprefer_pipelines.policies import base_of, tell_of_long_prompts
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.row_groups import READERS
from visionprefer_pipelines.training import ANY_WAY, Run, is_to_do, train

IMAGES_PER_FILE = 256


def train_finetune(
    recipe: FinetuneRecipe, data: str, out: str | Path, progress: Progress, address: str | None = None
) -> None:
    """Train an image model on the best images of a run, or go on training it.

    Args, returns and raises as `train_dpo`.
    """
    source = RunFolder(Store(data))
    best = best_images(source, recipe)
    if not best:
        raise InputError(
            f"{data}: no image of a training prompt has the scores that min_scores asks for, {recipe.min_scores}: "
            "write smaller ones"
        )
    model, about = base_of(recipe)
    trained_on = {
        "method": "finetune",
        "run": source.recipe.name,
        "prompts": len(best),
        "images": content_id(*best),
        **about,
        "recipe": recipe.model_dump(mode="json", exclude=ANY_WAY),
    }
    run = Run("finetune", Store(out), trained_on, recipe)
    if not is_to_do(run, progress):
        return
    prompt_of = dict(zip(*source.images.table(["image_id", "prompt"]).to_pydict().values(), strict=True))
    tell_of_long_prompts(model, [prompt_of[image_id] for image_id in best], progress)
    cuts = [best[start : start + IMAGES_PER_FILE] for start in range(0, len(best), IMAGES_PER_FILE)]
    parts = [
        {"image_ids": cut, "name": f"{encoded_folder(model)}/best-{content_id(*cut)[:16]}.parquet"} for cut in cuts
    ]
    with connected(address, {"workers": recipe.workers, "readers": READERS}, object_store_bytes=None):
        task = prepare(recipe, model, source.store, parts, _read, ("an image that is good enough", len), progress)
        train(run, learn, task, progress, write_card)


def _read(store: Store, part: Part) -> pa.Table:
    """Prompts, each with one image, as rows of TRAINING without pairs."""
    rows: list[dict[str, Any]] = []
    for image in _pictures(store).rows(part["image_ids"]):
        of_a_prompt = {name: image[name] for name in ("prompt_id", "prompt", "split")}
        rows.append({**of_a_prompt, "image_ids": [image["image_id"]], "images": [image["image"]], "pairs": []})
    return pa.Table.from_pylist(rows, schema=TRAINING)


@functools.cache
def _pictures(store: Store) -> Pictures:
    """Once for each process: it reads where all images of the run lie."""
    return Pictures(RunFolder(store))
