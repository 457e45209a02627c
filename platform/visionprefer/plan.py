"""The plan: one row per image to make, with everything that will make it, written before anything expensive runs.

What a candidate is made with is drawn by hash of its prompt and number, never by position, so that prompts can be added
to a file without changing any image that was there.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionprefer.existing import ExistingImage, name_within
from visionprefer.models import Model
from visionprefer.recipe import ImageModel, ImageSettings
from visionprefer.schema import PLAN, content_id, uniform
from visionprefer.settings import Range
from visionprefer.store import Store

Row = dict[str, Any]


PROMPTS_AT_ONCE = 1000  # as rows of Python, which take ten times the memory of a table's
SHARED_BY_A_BATCH = ("model", "model_digest", "guidance_scale", "num_inference_steps")
BLOCKS_PER_FILE = 64  # a block is a row group, so that a worker reads its own block alone


class Plan(NamedTuple):
    """What is to be made."""

    rows: pa.Table  # PLAN, sorted by block
    padding: float  # share of the places in denoising batches that no planned image fills


def plan_generation(prompts: pa.Table, settings: ImageSettings, models: list[Model], seed: int) -> Plan:
    """Plan the images of all prompts.

    A candidate's seed follows from its id or, where every model makes all candidates, from the prompt and its number.

    Args:
        prompts: PROMPTS.
        settings: `models` in the same order as the argument.
        models: what was found under each model's name.
        seed: the run's seed.

    Returns:
        A plan in blocks of at most `block_size` images of one model, images of equal guidance and steps side by side.
        Where every model makes all candidates, those of the first come first, and those that models make from the same
        noise are `images_per_prompt` apart.
    """
    shares = [model.share if model.share is not None else 1 / len(models) for model in settings.models]

    def rows(prompt: Row) -> Iterator[Row]:
        for number in range(settings.images_per_prompt):
            draw = (seed, prompt["prompt_id"], number)
            chosen = range(len(models)) if settings.every_model else [_chosen(shares, uniform("model", *draw))]
            for place in chosen:
                candidate = number + place * settings.images_per_prompt * settings.every_model
                yield _row(prompt, candidate, settings, settings.models[place], models[place], draw)

    parts = [
        pa.Table.from_pylist([row for prompt in some.to_pylist() for row in rows(prompt)], schema=PLAN)
        for some in prompts.to_batches(max_chunksize=PROMPTS_AT_ONCE)
    ]
    return _packed(pa.concat_tables(parts) if parts else PLAN.empty_table(), settings)


def plan_existing(prompts: pa.Table, images: list[ExistingImage], root: str, block_size: int) -> Plan:
    """Plan to take in images that exist already.

    Args:
        prompts: PROMPTS, the cleaned captions; images whose caption was rejected must be left out by the caller.
        images: `prompt` is the cleaned caption.
        root: folder or file that was named; ids do not depend on where it lies.
        block_size: images that are committed together.
    """
    by_text = {prompt["prompt"]: prompt for prompt in prompts.to_pylist()}
    candidates: dict[str, int] = defaultdict(int)
    rows = []
    for image in images:
        prompt = by_text[image.prompt]
        candidate = candidates[image.prompt]
        candidates[image.prompt] += 1
        image_id = image.image_id or content_id("existing", prompt["prompt_id"], name_within(image.source, root))
        known = {"image_id": image_id, "candidate": candidate, "source": image.source, "model": image.model}
        rows.append(dict.fromkeys(PLAN.names) | _prompt_columns(prompt) | known)
    return Plan(_table([rows[i : i + block_size] for i in range(0, len(rows), block_size)]), 0.0)


def write_plan(store: Store, rows: pa.Table) -> int:
    """Write a plan as `plan/*.parquet`, over any that is there. Returns the number of blocks."""
    for name in store.sizes("plan"):
        store.delete(f"plan/{name}")
    starts = np.flatnonzero(np.diff(rows["block"].to_numpy(), prepend=-1))
    ends = [*starts[1:], rows.num_rows]
    blocks = [rows.slice(start, end - start) for start, end in zip(starts, ends, strict=True)]
    for file in range(-(-len(blocks) // BLOCKS_PER_FILE)):
        store.write_tables(
            f"plan/{file:05d}.parquet", PLAN, blocks[file * BLOCKS_PER_FILE : (file + 1) * BLOCKS_PER_FILE]
        )
    return len(blocks)


def read_plan(store: Store, columns: list[str] | None = None) -> pa.Table:
    """All planned rows."""
    return pa.concat_tables(store.read_table(f"plan/{name}", columns) for name in store.sizes("plan"))


def read_block(store: Store, unit: str) -> pa.Table:
    """The planned rows of one block, by the name of its unit of work."""
    file, group = divmod(int(unit), BLOCKS_PER_FILE)
    return store.read_row_group(f"plan/{file:05d}.parquet", group)


def unit_of_block(block: int) -> str:
    """The name of a block as a unit of work."""
    return f"{block:06d}"


def _prompt_columns(prompt: Row) -> Row:
    return {name: prompt[name] for name in ("prompt_id", "prompt", "split")}


def _row(
    prompt: Row, candidate: int, settings: ImageSettings, drawn: ImageModel, model: Model, draw: tuple[Any, ...]
) -> Row:
    made_with = {
        "guidance_scale": float(_drawn(drawn.guidance_scale, uniform("guidance_scale", *draw))),
        "num_inference_steps": int(_drawn(drawn.num_inference_steps, uniform("num_inference_steps", *draw))),
        "negative_prompt": settings.negative_prompt,
        "batch_size": settings.batch_size,
        # AGFSync (arXiv 2403.13352) Eq. 1 perturbs all candidates but the first.
        "prompt_embedding_noise": settings.prompt_embedding_noise if candidate else 0.0,
    }
    size_and_form = [settings.height, settings.width, settings.dtype, settings.format]
    image_id = content_id("image", *draw, model.digest, made_with, size_and_form)
    return {
        "image_id": image_id,
        **_prompt_columns(prompt),
        "candidate": candidate,
        "seed": int(content_id("seed", *(draw if settings.every_model else [image_id]))[:16], 16) >> 1,
        "model": model.label,
        "model_digest": model.digest,
        **made_with,
        "source": None,
    }


def _chosen(shares: list[float], u: float) -> int:
    total = 0.0
    for index, share in enumerate(shares):
        total += share
        if u < total:
            return index
    return len(shares) - 1


def _drawn(values: float | list[float] | list[int] | Range, u: float) -> float:
    if isinstance(values, Range):
        values = values.values()
    if isinstance(values, list):
        return values[int(u * len(values))]
    return values


def _packed(rows: pa.Table, settings: ImageSettings) -> Plan:
    """Rows that can share a denoising batch side by side, in the order of their prompts; whole batches in blocks."""
    rows = rows.take(pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in SHARED_BY_A_BATCH]))
    starts = [0, *_changes(rows, SHARED_BY_A_BATCH), rows.num_rows]
    of_models = set(_changes(rows, SHARED_BY_A_BATCH[:2]))
    blocks = np.zeros(rows.num_rows, np.int32)
    block = filled = batches = 0
    for first, end in itertools.pairwise(starts):
        for start in range(first, end, settings.batch_size):
            size = min(settings.batch_size, end - start)
            if filled and (start in of_models or filled + size > settings.block_size):
                block, filled = block + 1, 0
            blocks[start : start + size] = block
            filled, batches = filled + size, batches + 1
    places = batches * settings.batch_size
    rows = rows.set_column(rows.schema.get_field_index("block"), PLAN.field("block"), pa.array(blocks))
    return Plan(rows, 1 - rows.num_rows / places if places else 0.0)


def _changes(rows: pa.Table, names: Sequence[str]) -> list[int]:
    """Where a row differs from the one before in one of some columns."""
    columns = [rows[name] for name in names]
    differs = [pc.not_equal(column.slice(1), column.slice(0, max(0, len(column) - 1))) for column in columns]
    return (1 + np.flatnonzero(np.any([one.to_numpy() for one in differs], axis=0))).tolist()


def _table(blocks: list[list[Row]]) -> pa.Table:
    return pa.Table.from_pylist([row | {"block": i} for i, block in enumerate(blocks) for row in block], schema=PLAN)
