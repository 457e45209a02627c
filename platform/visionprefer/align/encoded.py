"""The training table as latents and text embeddings: what Diffusion-DPO reads in each step, made once.

Shapes: P pairs; T tokens, D dimensions; C channels, H rows, W columns of latents.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from visionprefer.align.dpo_fit import PairBatch
from visionprefer.align.encoding import Condition, encode_images, encode_prompts
from visionprefer.align.pairs import drawn, usable
from visionprefer.align.recipe import DPORecipe
from visionprefer.errors import InputError
from visionprefer.imagebytes import open_image
from visionprefer.schema import PAIR

# Codes are float16, little-endian; their shapes stand in the schema's metadata under "shapes".
ENCODED = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("hidden", pa.binary()),
        ("pooled", pa.binary()),  # null for SD1 and SD2
        ("latents", pa.list_(pa.binary())),  # of each image
        ("pairs", pa.list_(PAIR)),  # chosen and rejected are positions in `latents`
    ]
)


class Shapes(NamedTuple):
    """What all rows of a table share."""

    hidden: tuple[int, ...]  # T, D
    pooled: tuple[int, ...] | None  # D
    latents: tuple[int, ...]  # C, H, W
    size: tuple[int, int]  # of the images: height and width, pixels


def encode(rows: pa.Table, pipeline: Any) -> pa.Table:
    """Encode prompts of the training split, with their images; others are left out.

    Columns in: TRAINING. Columns out: ENCODED.

    Raises:
        InputError: if an image cannot be decoded, naming its prompt, or if images differ in size.
    """
    found: list[dict[str, Any]] = []
    shapes = None
    for row in rows.to_pylist():
        if row["split"] != "train":
            continue
        images = [_opened(image["bytes"], row["prompt_id"]) for image in row["images"]]
        latents = encode_images(pipeline, images)
        condition = encode_prompts(pipeline, [row["prompt"]], images[0].height, images[0].width)
        pooled = None if condition.pooled_BD is None else condition.pooled_BD[0]
        now = Shapes(
            tuple(condition.hidden_BTD.shape[1:]),
            None if pooled is None else tuple(pooled.shape),
            tuple(latents.shape[1:]),
            (images[0].height, images[0].width),
        )
        check_same(shapes or now, now, row["prompt_id"])
        shapes = now
        found.append(
            {
                "prompt_id": row["prompt_id"],
                "hidden": _code(condition.hidden_BTD[0]),
                "pooled": None if pooled is None else _code(pooled),
                "latents": list(map(_code, latents)),
                "pairs": row["pairs"],
            }
        )
    metadata = {"shapes": json.dumps(shapes)} if shapes else {}
    return pa.Table.from_pylist(found, schema=ENCODED.with_metadata(metadata))


def shapes_of(table: pa.Table) -> Shapes | None:
    """The shapes of the codes of an encoded table; None if it has no row."""
    told = (table.schema.metadata or {}).get(b"shapes")
    if told is None:
        return None
    hidden, pooled, latents, size = json.loads(told)
    return Shapes(tuple(hidden), pooled and tuple(pooled), tuple(latents), tuple(size))


def check_same(first: Shapes, other: Shapes, prompt_id: str) -> None:
    """Raise InputError if images of two prompts differ in size: no step could hold both."""
    if first.size != other.size:
        raise InputError(
            f"the images of prompt {prompt_id} are {other.size[1]} × {other.size[0]} pixels, and those of others "
            f"{first.size[1]} × {first.size[0]}: make or resize them all to one size"
        )


def pair_batch(rows: pa.Table, shapes: Shapes, recipe: DPORecipe, epoch: int) -> PairBatch | None:
    """The pairs that an epoch learns from these prompts, one of each; None if none has a pair.

    Columns in: ENCODED.
    """
    ids, chosen, rejected, hidden, pooled = [], [], [], [], []
    for row in rows.to_pylist():
        pairs = usable(row["pairs"], recipe)
        if not pairs:
            continue
        pair = drawn(pairs, row["prompt_id"], epoch, recipe.seed)
        ids.append(row["prompt_id"])
        chosen.append(row["latents"][pair.chosen])
        rejected.append(row["latents"][pair.rejected])
        hidden.append(row["hidden"])
        pooled.append(row["pooled"])
    if not ids:
        return None
    condition = Condition(_tensor(hidden, shapes.hidden))
    if shapes.pooled is not None:
        height, width = shapes.size
        sizes = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32).expand(len(ids), 6)
        condition = Condition(condition.hidden_BTD, _tensor(pooled, shapes.pooled), sizes)
    return PairBatch(ids, _tensor(chosen, shapes.latents), _tensor(rejected, shapes.latents), condition)


def _code(tensor: torch.Tensor) -> bytes:
    return tensor.to("cpu", torch.float16).numpy().astype("<f2").tobytes()


def _tensor(codes: Sequence[bytes], shape: tuple[int, ...]) -> torch.Tensor:
    """Codes as float32 [codes, *shape]."""
    return torch.from_numpy(np.frombuffer(b"".join(codes), "<f2").reshape(-1, *shape).astype(np.float32))


def _opened(data: bytes, prompt_id: str) -> Image.Image:
    try:
        return open_image(data)
    except InputError as error:
        raise InputError(f"an image of prompt {prompt_id}: {error}") from error
