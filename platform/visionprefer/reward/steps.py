"""Which prompts of the training table serve what, which share a step, and their images decoded. Nothing here needs
torch: tasks that only decode start sooner.
"""

import io
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
from PIL import Image

from visionprefer.errors import InputError
from visionprefer.reward.recipe import RewardRecipe
from visionprefer.reward.squares import squares
from visionprefer.schema import PAIR, uniform
from visionprefer.store import Store
from visionprefer.training_table import ROWS_PER_GROUP, Group, reweighted

Purpose = Literal["training", "validation", "held_out"]
Step = list[Group]  # what an optimizer step learns from


def serves(row: dict[str, Any], purpose: Purpose, recipe: RewardRecipe) -> bool:
    """Whether a prompt, by its split and id, is there for this purpose."""
    if row["split"] != "train":
        return purpose == "held_out"
    is_for_validation = uniform("validation", row["prompt_id"]) < recipe.validation
    if purpose == "training":
        return not is_for_validation and uniform("data", row["prompt_id"]) < recipe.data_fraction
    return purpose == "validation" and is_for_validation


def wanted(row: dict[str, Any], purpose: Purpose, recipe: RewardRecipe) -> list[dict[str, Any]]:
    """The pairs of a prompt, of any aspect, that the recipe wants for this purpose; none of a prompt of another."""
    if not serves(row, purpose, recipe):
        return []
    pairs = row["pairs"] if recipe.weights is None else reweighted(row["pairs"], recipe.weights)
    return [pair for pair in pairs if pair["margin"] >= recipe.min_margin]


def groups_of(store: Store, files: Sequence[str], recipe: RewardRecipe) -> dict[Purpose, Counter[Group]]:
    """How many prompts with a pair for training and for validation each row group holds, where it holds any.

    Args:
        store, files: the training table.
        recipe: says which prompts and pairs serve what.

    Raises:
        InputError: if there is no pair of a score to train on, or none of the first to choose the best epoch by.
    """
    groups: dict[Purpose, Counter[Group]] = {"training": Counter(), "validation": Counter()}
    aspects: dict[Purpose, set[str]] = {"training": set(), "validation": set()}
    for file in files:
        table = store.read_table(file, ["prompt_id", "split", "pairs"])
        for number, row in enumerate(table.to_pylist()):
            for purpose, prompts in groups.items():
                there = {pair["aspect"] for pair in wanted(row, purpose, recipe)}
                aspects[purpose] |= there
                if not there.isdisjoint(recipe.scores):
                    prompts[Group(file, number // ROWS_PER_GROUP)] += 1
    _check_scores(aspects, recipe)
    return groups


def _check_scores(aspects: dict[Purpose, set[str]], recipe: RewardRecipe) -> None:
    """Raises InputError if a score has no pair where it needs some."""
    least = f" that differs by {recipe.min_margin:g} or more" if recipe.min_margin else ""
    smaller = ", or a smaller min_margin" if recipe.min_margin else ""
    missing = [name for name in recipe.scores if name not in aspects["training"]]
    if missing and aspects["training"]:
        raise InputError(
            f"scores: the training table has no pair of {missing[0]!r}{least} for training. "
            f"Write some of {sorted(aspects['training'])}{smaller}"
        )
    first = recipe.scores[0]
    for purpose, there in aspects.items():
        if first not in there:
            raise InputError(
                f"validation is {recipe.validation:g}, and the training table has no pair of {first!r}{least} for "
                f"{purpose}: judge more prompts, or write another validation{smaller}"
            )


def epochs_of(prompts: Mapping[Group, int], recipe: RewardRecipe) -> list[list[Step]]:
    """The steps of each epoch.

    Each epoch draws the order of the row groups anew and cuts it where a step has `batch_size` prompts, or up to three
    more, since a row group is not divided; what is left over is a step too.

    Args:
        prompts: how many of each row group are learnt from.
        recipe: how many epochs of steps of how many prompts.

    Raises:
        InputError: if a step has fewer row groups than there are workers to share it.
    """
    epochs = [_steps(prompts, recipe, epoch) for epoch in range(recipe.epochs)]
    fewest, workers = min(len(step) for steps in epochs for step in steps), _workers(recipe)
    if fewest < workers:
        larger = ", or a larger batch_size" if fewest < len(prompts) else ""
        raise InputError(
            f"workers.actors is {workers}, and a step may have no more than {fewest} row groups, which are not "
            f"divided: write {fewest} or fewer{larger}"
        )
    return epochs


def _steps(prompts: Mapping[Group, int], recipe: RewardRecipe, epoch: int) -> list[Step]:
    order = list(prompts)
    random.Random(f"{recipe.seed} {epoch}").shuffle(order)  # noqa: S311
    steps: list[Step] = []
    left: Step = []
    for group in order:
        left.append(group)
        if sum(prompts[one] for one in left) >= recipe.batch_size:
            steps.append(left)
            left = []
    if steps and len(left) < _workers(recipe):
        steps[-1] += left  # none, or too few for each worker to have one
    else:
        steps.append(left)
    return steps


def _workers(recipe: RewardRecipe) -> int:
    return int(str(recipe.workers.actors))


PREPARED = pa.schema(
    [
        ("pixels", pa.binary()),  # uint8 [images, 3, size, size]
        ("images", pa.int32()),
        ("prompt", pa.string()),
        ("pairs", pa.list_(PAIR)),
    ]
)


def prepared(rows: pa.Table, image_size: int, recipe: RewardRecipe, purpose: Purpose) -> pa.Table:
    """Decode the images of prompts that have a pair for this purpose.

    Columns in: TRAINING. Columns out: PREPARED, a row for each prompt that `groups_of` counts.
    """
    found = []
    for row in rows.to_pylist():
        pairs = [pair for pair in wanted(row, purpose, recipe) if pair["aspect"] in recipe.scores]
        if pairs:
            pixels = squares([Image.open(io.BytesIO(image["bytes"])) for image in row["images"]], image_size)
            about = {"prompt": row["prompt"], "pairs": pairs, "images": len(pixels)}
            found.append(about | {"pixels": pixels.tobytes()})
    return pa.Table.from_pylist(found, schema=PREPARED)
