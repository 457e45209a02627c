"""The plan: one row per image to make, with everything that will make it, written before anything expensive runs.

What a candidate is made with is drawn by hash of its prompt and number, never by position, so that prompts can be added
to a file without changing any image that was there.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from visionprefer.existing import ExistingImage, name_within
from visionprefer.models import Model
from visionprefer.recipe import ImageSettings
from visionprefer.schema import PLAN, content_id, uniform
from visionprefer.settings import Range
from visionprefer.store import Store

Row = dict[str, Any]

# What is drawn for an image: its prompt's place, its candidate's number, its model's place, and how that draws it.
DRAW = [("prompt", "i4"), ("candidate", "i4"), ("model", "i4"), ("guidance_scale", "f8"), ("num_inference_steps", "i4")]
BLOCKS_PER_FILE = 64  # a block is a row group, so that a worker reads its own block alone


@dataclass(frozen=True)
class Plan:
    """What is to be made.

    Attributes:
        blocks: makes the rows block by block, PLAN each: of a million images they would take a gigabyte.
        num_rows: images of all blocks.
        padding: share of the places in denoising batches that no planned image fills.
    """

    blocks: Callable[[], Iterator[pa.Table]]
    num_rows: int
    padding: float = 0.0

    @property
    def rows(self) -> pa.Table:
        """All blocks as one table."""
        return pa.concat_tables([PLAN.empty_table(), *self.blocks()])


def plan_of(rows: pa.Table) -> Plan:
    """The plan of rows that are there: PLAN, sorted by block."""
    starts = np.flatnonzero(np.diff(rows["block"].to_numpy(), prepend=-1)).tolist()
    bounds = list(itertools.pairwise([*starts, rows.num_rows]))
    return Plan(lambda: (rows.slice(start, end - start) for start, end in bounds), rows.num_rows)


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
    draws = np.fromiter(_draws(prompts, settings, seed), DRAW)
    _, ranks = np.unique([f"{model.label}\0{model.digest}" for model in models], return_inverse=True)
    shared = (draws["num_inference_steps"], draws["guidance_scale"], ranks[draws["model"]])  # by a denoising batch
    order = np.lexsort(shared)
    bounds, padding = _packed([column[order] for column in shared], settings)

    def blocks() -> Iterator[pa.Table]:
        for first in range(0, len(bounds), BLOCKS_PER_FILE):
            these = bounds[first : first + BLOCKS_PER_FILE]
            begin = these[0][0]
            some = draws[order[begin : these[-1][1]]]
            asked = prompts.take(some["prompt"]).to_pylist()
            rows = [
                _row(prompt, draw, settings, models, seed) for prompt, draw in zip(asked, some.tolist(), strict=True)
            ]
            for block, (start, end) in enumerate(these, first):
                own = [row | {"block": block} for row in rows[start - begin : end - begin]]
                yield pa.Table.from_pylist(own, schema=PLAN)

    return Plan(blocks, len(draws), padding)


def _draws(prompts: pa.Table, settings: ImageSettings, seed: int) -> Iterator[tuple[int, int, int, float, int]]:
    """What each image is made with, as DRAW has it."""
    shares = [model.share if model.share is not None else 1 / len(settings.models) for model in settings.models]
    for index, prompt_id in enumerate(prompts["prompt_id"].to_pylist()):
        for number in range(settings.images_per_prompt):
            draw = (seed, prompt_id, number)
            places = range(len(shares)) if settings.every_model else [_chosen(shares, uniform("model", *draw))]
            for place in places:
                candidate = number + place * settings.images_per_prompt * settings.every_model
                drawn = settings.models[place]
                guidance_scale = float(_drawn(drawn.guidance_scale, uniform("guidance_scale", *draw)))
                steps = int(_drawn(drawn.num_inference_steps, uniform("num_inference_steps", *draw)))
                yield index, candidate, place, guidance_scale, steps


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
    blocks = [row | {"block": place // block_size} for place, row in enumerate(rows)]
    return plan_of(pa.Table.from_pylist(blocks, schema=PLAN))


def write_plan(store: Store, plan: Plan) -> dict[str, Any]:
    """Write a plan as `plan/*.parquet`, over any that is there.

    Returns:
        What a manifest says of it: its rows, its blocks, and a digest of its images.
    """
    for name in store.sizes("plan"):
        store.delete(f"plan/{name}")
    digests: list[str] = []

    def counted(blocks: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for block in blocks:
            digests.append(content_id("block", block["image_id"].to_pylist()))
            yield block

    blocks = counted(plan.blocks())
    for file in itertools.count():
        if (first := next(blocks, None)) is None:
            break
        some = itertools.chain([first], itertools.islice(blocks, BLOCKS_PER_FILE - 1))
        store.write_tables(f"plan/{file:05d}.parquet", PLAN, some)
    return {"rows": plan.num_rows, "blocks": len(digests), "digest": content_id("plan", digests)}


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


def _row(prompt: Row, draw: tuple[Any, ...], settings: ImageSettings, models: list[Model], seed: int) -> Row:
    _, candidate, place, guidance_scale, steps = draw
    model = models[place]
    made_with = {
        "guidance_scale": guidance_scale,
        "num_inference_steps": steps,
        "negative_prompt": settings.negative_prompt,
        "batch_size": settings.batch_size,
        # AGFSync (arXiv 2403.13352) Eq. 1 perturbs all candidates but the first.
        "prompt_embedding_noise": settings.prompt_embedding_noise if candidate else 0.0,
    }
    size_and_form = [settings.height, settings.width, settings.dtype, settings.format]
    number = candidate % settings.images_per_prompt if settings.every_model else candidate
    drawn_by = seed, prompt["prompt_id"], number
    image_id = content_id("image", *drawn_by, model.digest, made_with, size_and_form)
    return {
        "image_id": image_id,
        **_prompt_columns(prompt),
        "candidate": candidate,
        "seed": int(content_id("seed", *(drawn_by if settings.every_model else [image_id]))[:16], 16) >> 1,
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


def _packed(shared: list[np.ndarray], settings: ImageSettings) -> tuple[list[tuple[int, int]], float]:
    """Where blocks of whole denoising batches begin and end, and the share of places in those that stay empty.

    Args:
        shared: of each image what all of a batch have in common, the last being the model, which a block has.
        settings: how large batches and blocks are.
    """
    total = len(shared[0])
    of_models = set(_changes(shared[-1:]))
    starts = [0]
    batches = 0
    for first, end in itertools.pairwise([0, *_changes(shared), total]):
        for start in range(first, end, settings.batch_size):
            size = min(settings.batch_size, end - start)
            if start > starts[-1] and (start in of_models or start + size - starts[-1] > settings.block_size):
                starts.append(start)
            batches += 1
    bounds = list(itertools.pairwise([*starts, total])) if total else []
    return bounds, 1 - total / (batches * settings.batch_size) if batches else 0.0


def _changes(columns: list[np.ndarray]) -> list[int]:
    """Where a row differs from the one before in one of some columns."""
    return (1 + np.flatnonzero(np.any([column[1:] != column[:-1] for column in columns], axis=0))).tolist()
