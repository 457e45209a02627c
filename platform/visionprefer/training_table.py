"""The training table: images and pairs side by side, one row a prompt, so that nobody joins bytes to pairs while
training and each image is encoded once.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from visionprefer.errors import InputError
from visionprefer.run_folder import RunFolder
from visionprefer.schema import OVERALL, TRAINING
from visionprefer.shards import ROWS_WITH_BYTES, Shards
from visionprefer.store import Store

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


def write_training(store: Store, images: Shards, digest: str, images_per_file: int = 512) -> list[str]:
    """Write the training table of a run from its preferences.parquet, and delete the files of the table before.

    A prompt's images are all that its preferences compare; its pairs are those that are no tie. A prompt without such a
    pair is left out. In memory are the images of one file, and at most HELD more: images lie in the order of their
    prompts within all that share a model and guidance, so that few wait and each row group is read once.

    Columns out: TRAINING, in the order of the preferences, where the rows of a prompt lie side by side.

    Args:
        store: the run's.
        images: where their bytes lie.
        digest: of everything that the table is made of; the files bear it.
        images_per_file: a file with so many images takes no more prompts.

    Returns:
        Names of the files, such as training/DIGEST-00000.parquet; none if no prompt has a pair.
    """
    reader = _Images(images, _compared(store))
    written = []
    for number, rows in enumerate(_files(_rows(store), images_per_file)):
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


def _compared(store: Store) -> np.ndarray:
    """The ids of all images that some preference compares, sorted."""
    batches = store.batches("preferences.parquet", ["image_id_0", "image_id_1"])
    found = [_ids(column.unique()) for batch in batches for column in batch.columns]
    return np.unique(np.concatenate([_ids(pa.array([], pa.string())), *found]))


def _ids(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Ids, which are hex, as bytes: they take a third of the memory of text."""
    return np.array(column.to_pylist(), dtype=bytes)


def _rows(store: Store) -> Iterator[Row]:
    """Rows of TRAINING, but for the images."""
    columns = ["prompt_id", "prompt", "split", "image_id_0", "image_id_1", "aspect", "label", "margin"]
    preferences = (row for batch in store.batches("preferences.parquet", columns) for row in batch.to_pylist())
    for _, of_prompt in groupby(preferences, key=itemgetter("prompt_id")):
        rows = list(of_prompt)
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

    def __init__(self, shards: Shards, wanted_N: np.ndarray) -> None:
        self._shards = shards
        self._names = [shard for shard in sorted(shards.commits) if shards.commits[shard].done]
        self._wanted_N = np.append(wanted_N, b"\xff")  # ids, sorted, and an end that is no id
        self._is_left_N = np.zeros(len(self._wanted_N), dtype=bool)  # still to be taken
        self._shard_N, self._group_N = (np.zeros(len(self._wanted_N), dtype=np.int32) for _ in range(2))
        self._held: dict[str, Row] = {}
        for number, shard in enumerate(shards.tables(["image_id"])):
            place_R, is_wanted_R = self._places(_ids(shard["image_id"]))
            place = place_R[is_wanted_R]
            self._is_left_N[place] = True
            self._shard_N[place] = number
            self._group_N[place] = np.flatnonzero(is_wanted_R) // ROWS_WITH_BYTES

    def take(self, image_ids: list[str]) -> list[Row]:
        """Bytes and path of each image."""
        while len(self._held) > HELD:
            del self._held[next(iter(self._held))]  # the one held longest; it is read again when it is wanted
        places, _ = self._places(np.array(image_ids, dtype=bytes))
        for image_id, place in zip(image_ids, places, strict=True):
            if image_id not in self._held:
                self._read(self._names[self._shard_N[place]], int(self._group_N[place]))
        self._is_left_N[places] = False
        return [self._held.pop(image_id) for image_id in image_ids]

    def _read(self, shard: str, group: int) -> None:
        table = self._shards.store.read_row_group(f"{self._shards.folder}/{shard}.parquet", group)
        place_R, is_wanted_R = self._places(_ids(table["image_id"]))
        is_wanted_R &= self._is_left_N[place_R]
        held = table.select(["image_id", "image"]).filter(pa.array(is_wanted_R))
        self._held |= {row["image_id"]: row["image"] for row in held.to_pylist()}

    def _places(self, ids_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where each id is among those that are wanted, and whether it is there."""
        place_R = np.searchsorted(self._wanted_N, ids_R)
        return place_R, self._wanted_N[place_R] == ids_R
