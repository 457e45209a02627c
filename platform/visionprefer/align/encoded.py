"""The training table as latents and text embeddings: what a step learns from, made once.

Shapes: P pairs; T tokens, D dimensions; C channels, H rows, W columns of latents.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image

from visionprefer.align.encoding import Condition, condition_of, encode_images, encode_prompts
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


class PairBatch(NamedTuple):
    """Pairs with the prompts that their images were made for."""

    prompt_ids: list[str]
    chosen_PCHW: torch.Tensor
    rejected_PCHW: torch.Tensor
    condition: Condition


class ImageBatch(NamedTuple):
    """An image of each prompt."""

    prompt_ids: list[str]
    images_PCHW: torch.Tensor
    condition: Condition


def encode(rows: pa.Table, pipeline: Any) -> pa.Table:
    """Encode prompts of the training split, with their images; others are left out.

    Columns in: TRAINING. Columns out: ENCODED.

    Raises:
        InputError: if an image cannot be decoded, naming its prompt, or if images differ in size.
    """
    rows = rows.filter(pc.field("split") == "train")
    if not rows.num_rows:
        return ENCODED.empty_table()
    latents, sizes = [], []
    for row in rows.select(["prompt_id", "images"]).to_pylist():
        images = [_opened(image["bytes"], row["prompt_id"]) for image in row["images"]]
        latents.append(encode_images(pipeline, images))
        sizes.append((images[0].height, images[0].width))
        if sizes[-1] != sizes[0]:
            raise InputError(
                f"the images of prompt {row['prompt_id']} are {images[0].width} × {images[0].height} pixels, and those "
                f"of others {sizes[0][1]} × {sizes[0][0]}: make or resize them all to one size"
            )
    hidden_BTD, pooled_BD, _ = encode_prompts(pipeline, rows["prompt"].to_pylist(), *sizes[0])
    shapes = Shapes(
        tuple(hidden_BTD.shape[1:]),
        None if pooled_BD is None else tuple(pooled_BD.shape[1:]),
        tuple(latents[0].shape[1:]),
        sizes[0],
    )
    columns = [
        rows["prompt_id"],
        list(map(_code, hidden_BTD)),
        [None] * len(hidden_BTD) if pooled_BD is None else list(map(_code, pooled_BD)),
        [list(map(_code, of_a_prompt)) for of_a_prompt in latents],
        rows["pairs"],
    ]
    return pa.table(columns, schema=ENCODED.with_metadata({"shapes": json.dumps(shapes)}))


def shapes_of(table: pa.Table) -> Shapes | None:
    """The shapes of the codes of an encoded table; None if it has no row."""
    told = (table.schema.metadata or {}).get(b"shapes")
    if told is None:
        return None
    hidden, pooled, latents, size = json.loads(told)
    return Shapes(tuple(hidden), pooled and tuple(pooled), tuple(latents), tuple(size))


def common_shapes(found: Sequence[Shapes | None]) -> Shapes | None:
    """The shapes that tables share; None if none has a row. Raises InputError if they differ."""
    distinct = sorted({shapes for shapes in found if shapes is not None}, key=str)
    if len(distinct) > 1:
        told = " and ".join(f"{shapes.size[1]} × {shapes.size[0]}" for shapes in distinct)
        raise InputError(f"the images of the run are {told} pixels: make or resize them all to one size")
    return distinct[0] if distinct else None


def pair_batch(rows: pa.Table, shapes: Shapes, recipe: DPORecipe, epoch: int) -> PairBatch | None:
    """The pairs that an epoch learns from these prompts, one of each; None if none has a pair.

    Columns in: ENCODED.
    """
    learnt, pairs = [], []
    for row in rows.to_pylist():
        if found := usable(row["pairs"], recipe):
            learnt.append(row)
            pairs.append(drawn(found, row["prompt_id"], epoch, recipe))
    if not learnt:
        return None
    chosen, rejected = (
        _tensor([row["latents"][pair[place]] for row, pair in zip(learnt, pairs, strict=True)], shapes.latents)
        for place in (0, 1)
    )
    return PairBatch([row["prompt_id"] for row in learnt], chosen, rejected, _condition(learnt, shapes))


def image_batch(rows: pa.Table, shapes: Shapes) -> ImageBatch:
    """The first image of each prompt.

    Columns in: ENCODED.
    """
    learnt = rows.to_pylist()
    images = _tensor([row["latents"][0] for row in learnt], shapes.latents)
    return ImageBatch([row["prompt_id"] for row in learnt], images, _condition(learnt, shapes))


def _condition(rows: list[dict[str, Any]], shapes: Shapes) -> Condition:
    hidden = _tensor([row["hidden"] for row in rows], shapes.hidden)
    pooled = None if shapes.pooled is None else _tensor([row["pooled"] for row in rows], shapes.pooled)
    return condition_of(hidden, pooled, *shapes.size)


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
