"""The training table as what a reward model learns from: which prompts share a step, and their images as tensors.

Shapes: N images, S scores, P pairs of one score.
"""

import io
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from visionprefer.errors import InputError
from visionprefer.reward.inputs import Inputs
from visionprefer.reward.loss import Pairs
from visionprefer.reward.recipe import RewardRecipe
from visionprefer.schema import PAIR, uniform
from visionprefer.store import Store
from visionprefer.training_table import ROWS_PER_GROUP, Group, reweighted

Purpose = Literal["training", "validation", "held_out"]


def serves(row: dict[str, Any], purpose: Purpose, recipe: RewardRecipe) -> bool:
    """Whether a prompt, by its split and id, is there for this purpose."""
    if row["split"] != "train":
        return purpose == "held_out"
    is_for_validation = uniform("validation", row["prompt_id"]) < recipe.validation
    if purpose == "training":
        return not is_for_validation and uniform("data", row["prompt_id"]) < recipe.data_fraction
    return purpose == "validation" and is_for_validation


def groups_of(store: Store, files: Sequence[str], recipe: RewardRecipe) -> dict[Purpose, list[Group]]:
    """The row groups that hold prompts for each purpose.

    Args:
        store, files: the training table.
        recipe: says which prompts serve what.

    Raises:
        InputError: if there is none to train on or to choose the best epoch by, or no pair of a score.
    """
    groups: dict[Purpose, list[Group]] = {"training": [], "validation": [], "held_out": []}
    aspects = set()
    for file in files:
        table = store.read_table(file, ["prompt_id", "split", "pairs"])
        for number, rows in enumerate(_chunks(table.to_pylist())):
            aspects |= {pair["aspect"] for row in rows for pair in row["pairs"]}
            for purpose, found in groups.items():
                if any(serves(row, purpose, recipe) for row in rows):
                    found.append(Group(file, number))
    if missing := [name for name in recipe.scores if name not in aspects]:
        raise InputError(f"scores: the training table has no pair of {missing[0]!r}. Write some of {sorted(aspects)}")
    for purpose in ("training", "validation"):
        if not groups[purpose]:
            raise InputError(
                f"the training table has no prompt for {purpose}: judge more prompts, or change validation"
            )
    return groups


def _chunks(rows: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(rows), ROWS_PER_GROUP):
        yield rows[start : start + ROWS_PER_GROUP]


def steps_of_epoch(groups: Sequence[Group], recipe: RewardRecipe, epoch: int) -> list[list[Group]]:
    """Which row groups share a step: drawn anew in each epoch, the same ones whatever the number of workers."""
    order = list(groups)
    random.Random(f"{recipe.seed} {epoch}").shuffle(order)  # noqa: S311
    size = recipe.batch_size // ROWS_PER_GROUP
    steps = [order[start : start + size] for start in range(0, len(order), size)]
    if len(steps) > 1 and len(steps[-1]) < min(size, int(str(recipe.workers.actors))):
        steps[-2:] = [steps[-2] + steps[-1]]  # too few for each worker to have one
    return steps


PREPARED = pa.schema(
    [
        ("pixels", pa.binary()),  # uint8 [images, 3, size, size]
        ("images", pa.int32()),
        ("input_ids", pa.list_(pa.int32())),
        ("attention_mask", pa.list_(pa.int32())),
        ("pairs", pa.list_(PAIR)),
    ]
)


class Batch(NamedTuple):
    """Images with their prompts, and which of them was preferred."""

    squares: torch.Tensor  # uint8 [N, 3, size, size]
    input_ids: torch.Tensor  # int64 [N, L]
    attention_mask: torch.Tensor
    pairs: Pairs

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        squares, ids, mask = (part.to(device, non_blocking=True) for part in self[:3])
        return Batch(squares, ids, mask, {place: pairs.to(device) for place, pairs in self.pairs.items()})


def prepared(rows: pa.Table, inputs: Inputs, recipe: RewardRecipe, purpose: Purpose) -> pa.Table:
    """Decode the images of prompts that serve this purpose.

    Columns in: TRAINING. Columns out: PREPARED, a row for each of these prompts.
    """
    found = []
    for row in rows.to_pylist():
        if serves(row, purpose, recipe):
            squares = inputs.squares([Image.open(io.BytesIO(image["bytes"])) for image in row["images"]])
            ids, mask = (part[0].tolist() for part in inputs.tokens([row["prompt"]]))
            pairs = row["pairs"] if recipe.weights is None else reweighted(row["pairs"], recipe.weights)
            pairs = [pair for pair in pairs if pair["aspect"] in recipe.scores and pair["margin"] >= recipe.min_margin]
            about = {"input_ids": ids, "attention_mask": mask, "pairs": pairs, "images": len(squares)}
            found.append(about | {"pixels": squares.contiguous().numpy().tobytes()})
    return pa.Table.from_pylist(found, schema=PREPARED)


def assembled(prompts: pa.Table, inputs: Inputs, recipe: RewardRecipe) -> Batch:
    """Prompts as one batch, each image in it once. Columns in: PREPARED."""
    size = inputs.sizes.image_size
    squares, first = [], 0
    pairs: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for row in prompts.select(["images", "pairs"]).to_pylist():
        for pair in row["pairs"]:
            place = recipe.scores.index(pair["aspect"])
            pairs[place].append((first + pair["chosen"], first + pair["rejected"]))
        first += row["images"]
    for cell in prompts["pixels"]:
        squares.append(np.frombuffer(cell.as_buffer(), np.uint8).reshape(-1, 3, size, size))
    ids, mask = (
        torch.tensor(prompts[name].to_pylist()).repeat_interleave(torch.tensor(prompts["images"].to_pylist()), dim=0)
        for name in ("input_ids", "attention_mask")
    )
    indices = {place: torch.tensor(found) for place, found in sorted(pairs.items())}
    return Batch(torch.from_numpy(np.concatenate(squares)), ids, mask, indices)
