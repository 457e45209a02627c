"""The training table: images and pairs side by side, one row a prompt, so that nobody joins bytes to pairs while
training and each image is encoded once.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionprefer.errors import InputError
from visionprefer.run_folder import RunFolder
from visionprefer.schema import OVERALL, TRAINING
from visionprefer.store import ROWS_WITH_BYTES, Shards, Store

ROWS_PER_GROUP = 4  # prompts a row group: readers fetch few bytes to show one
_NO_DIFFERENCE = 1e-9  # of weighted means that are equal but for rounding
HELD = 2048  # most images in memory that were read beside others and wait for their prompt

Row = dict[str, Any]


class Group(NamedTuple):
    """A row group of a file: a few prompts, which always share a step, so that it is read once an epoch."""

    file: str
    group: int


def row_groups(table: pa.Table) -> Iterator[pa.Table]:
    """A table as the row groups that it lies in, or is to lie in."""
    for start in range(0, table.num_rows, ROWS_PER_GROUP):
        yield table.slice(start, ROWS_PER_GROUP)


def write_training(
    store: Store, preferences: pa.Table, images: Shards, digest: str, images_per_file: int = 512
) -> list[str]:
    """Write the training table of a run, and delete the files of the one before.

    A prompt's images are all that its preferences compare; its pairs are those that are no tie. A prompt without such a
    pair is left out. In memory are the images of one file, and at most HELD more: images lie in the order of their
    prompts within all that share a model and guidance, so that few wait and each row group is read once.

    Columns in: PREFERENCES, the rows of a prompt side by side. Columns out: TRAINING, in the order of prompts.parquet.

    Args:
        store: the run's; its prompts.parquet gives the order.
        preferences: of the images that are done.
        images: where their bytes lie.
        digest: of everything that the table is made of; the files bear it.
        images_per_file: a file with so many images takes no more prompts.

    Returns:
        Names of the files, such as training/DIGEST-00000.parquet; none if no prompt has a pair.
    """
    order = store.read_table("prompts.parquet", ["prompt_id"])["prompt_id"]
    reader = _Images(images, preferences)
    written = []
    for number, rows in enumerate(_files(_rows(preferences, order), images_per_file)):
        # An Arrow array of its own for each prompt: those of many would pass the 2 GiB that an array of bytes can hold.
        prompts = [
            pa.Table.from_pylist([row | {"images": reader.take(row["image_ids"])}], schema=TRAINING) for row in rows
        ]
        written.append(f"training/{digest}-{number:05}.parquet")
        store.write_table(written[-1], pa.concat_tables(prompts), ROWS_PER_GROUP)
    for name in store.sizes("training"):
        if f"training/{name}" not in written:
            store.delete(f"training/{name}")
    return written


def _rows(preferences: pa.Table, order: pa.ChunkedArray) -> Iterator[Row]:
    """Rows of TRAINING, but for the images."""
    prompts = preferences["prompt_id"].dictionary_encode().combine_chunks()
    begins = np.flatnonzero(np.diff(prompts.indices.to_numpy(), prepend=-1)).tolist()
    slices = list(pairwise([*begins, len(prompts)]))
    for place in np.argsort(pc.index_in(prompts.dictionary, order).to_numpy()):
        begin, end = slices[place]
        rows = preferences.slice(begin, end - begin).to_pylist()
        image_ids = list(dict.fromkeys(row[name] for row in rows for name in ("image_id_0", "image_id_1")))
        pairs = [_pair(row, image_ids) for row in rows if row["label"] != 0.5]
        if pairs:
            known = {name: rows[0][name] for name in ("prompt_id", "prompt", "split")}
            yield known | {"image_ids": image_ids, "pairs": pairs}


def _pair(row: Row, image_ids: list[str]) -> Row:
    image_0, image_1 = image_ids.index(row["image_id_0"]), image_ids.index(row["image_id_1"])
    chosen, rejected = (image_0, image_1) if row["label"] == 1 else (image_1, image_0)
    return {"aspect": row["aspect"], "chosen": chosen, "rejected": rejected, "margin": row["margin"]}


def check_weights(weights: dict[str, float] | None, run: RunFolder) -> None:
    """Raises InputError if there are weights, and the run's training table lacks differences that they would weigh."""
    preferences = run.recipe.preferences
    lacking = []
    if preferences.pairs == "best_worst":
        lacking.append("preferences.pairs is best_worst")
    if preferences.tie_margin:
        lacking.append(f"preferences.tie_margin is {preferences.tie_margin:g}")
    if weights is not None and lacking:
        raise InputError(
            f"weights are {weights}, and the run's {' and '.join(lacking)}, so that its training table lacks "
            "differences of aspects: leave them out, write them into preferences.weights of the run's recipe, and run "
            f"it again (visionprefer run RECIPE --out {run.store.root}), which judges nothing anew"
        )


def reweighted(pairs: list[dict[str, Any]], weights: dict[str, float]) -> list[dict[str, Any]]:
    """Pairs of PAIR of one prompt, the overall ones anew: by the weighted mean of the aspects' differences.

    A difference that is no pair counts as none; see `check_weights`. There remain ties of other kinds: a judge that saw
    the images together says now this and now the opposite, or as many judges are for the one as for the other.
    """
    margins: dict[tuple[int, int], float] = defaultdict(float)
    for pair in pairs:
        share = weights.get(pair["aspect"], 0.0) / sum(weights.values())
        first, second = sorted((pair["chosen"], pair["rejected"]))
        margins[first, second] += share * pair["margin"] * (1 if pair["chosen"] == first else -1)
    overall = [
        {"aspect": OVERALL, "chosen": first, "rejected": second, "margin": margin}
        if margin > 0
        else {"aspect": OVERALL, "chosen": second, "rejected": first, "margin": -margin}
        for (first, second), margin in margins.items()
        if abs(margin) > _NO_DIFFERENCE
    ]
    return [pair for pair in pairs if pair["aspect"] != OVERALL] + overall


def _files(rows: Iterable[Row], images_per_file: int) -> Iterator[list[Row]]:
    """Rows that share a file."""
    file: list[Row] = []
    for row in rows:
        file.append(row)
        if sum(len(row["image_ids"]) for row in file) >= images_per_file:
            yield file
            file = []
    if file:
        yield file


class _Images:
    """Images by id, each taken once, read a row group at a time."""

    def __init__(self, shards: Shards, preferences: pa.Table) -> None:
        self._shards = shards
        self._places: dict[str, tuple[str, int]] = {}  # shard and row group of images still to be taken
        self._held: dict[str, Row] = {}
        compared = {image for name in ("image_id_0", "image_id_1") for image in preferences[name].unique().to_pylist()}
        names = [shard for shard in sorted(shards.commits) if shards.commits[shard].done]
        for name, shard in zip(names, shards.tables(["image_id"]), strict=True):
            for row, image_id in enumerate(shard["image_id"].to_pylist()):
                if image_id in compared:
                    self._places[image_id] = (name, row // ROWS_WITH_BYTES)

    def take(self, image_ids: list[str]) -> list[Row]:
        """Bytes and path of each image."""
        while len(self._held) > HELD:
            del self._held[next(iter(self._held))]  # the one held longest; it is read again when it is wanted
        for image_id in image_ids:
            if image_id not in self._held:
                self._read(*self._places[image_id])
            del self._places[image_id]
        return [self._held.pop(image_id) for image_id in image_ids]

    def _read(self, shard: str, group: int) -> None:
        table = self._shards.store.read_row_group(f"{self._shards.folder}/{shard}.parquet", group)
        for image_id, image in zip(table["image_id"].to_pylist(), table["image"].to_pylist(), strict=True):
            if image_id in self._places:
                self._held[image_id] = image
