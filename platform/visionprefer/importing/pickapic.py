"""Pick-a-Pic v1 and v2 as they were published: Parquet files of pairs, each row with the bytes of its two images.

    data/SPLIT-NNNNN-of-NNNNN-DIGEST.parquet    caption, jpg_0, jpg_1, label_0, label_1, has_label, image_0_uid, …

A label is 1 for the image that was preferred, and 0.5 for both where neither was. Rows that nobody has decided have
`has_label` false.

References: Pick-a-Pic (arXiv 2305.01569); yuvalkirstain/pickapic_v1 and pickapic_v2 on the Hugging Face hub.
"""

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from visionprefer.errors import InputError
from visionprefer.importing.comparisons import (
    ROWS_PER_UNIT,
    Candidate,
    Comparison,
    Rejected,
    Unit,
    open_parquet,
    pair_labels,
    usable_prompt,
    whole,
)
from visionprefer.schema import OVERALL

TITLE = "Pick-a-Pic"
ROWS = "data/{split}-*.parquet"  # files with rows
IMAGES: tuple[str, ...] = ()  # further files, with images
SPLITS = ("train", "validation", "test")
SUBSETS = {"validation_unique": "validation", "test_unique": "test"}  # rows that the split on the right has too

COLUMNS = (
    *("caption", "has_label", "jpg_0", "jpg_1", "label_0", "label_1"),
    *("image_0_uid", "image_1_uid", "model_0", "model_1"),
)


def units(folder: Path, file: Path, split: str) -> Iterator[Unit]:
    """The rows of a file, ROWS_PER_UNIT at a time; a row group is read when the first of its units is."""
    first, name = 0, file.relative_to(folder).as_posix()
    with open_parquet(file, COLUMNS) as parquet:
        for group in range(parquet.num_row_groups):
            read = cache(partial(parquet.read_row_group, group, list(COLUMNS)))
            rows = parquet.metadata.row_group(group).num_rows
            for start in range(0, rows, ROWS_PER_UNIT):
                yield partial(_items, read, start, first, file, name, split)
            first += rows


def _items(read: Any, start: int, first: int, file: Path, name: str, split: str) -> Iterator[Comparison | Rejected]:
    with whole(file):
        rows = read().slice(start, ROWS_PER_UNIT).to_pylist()
    for number, row in enumerate(rows, first + start):
        try:
            yield _comparison(row, number, name, split)
        except InputError as error:
            yield Rejected(name, number, str(error))


def _comparison(row: dict[str, Any], number: int, name: str, split: str) -> Comparison:
    prompt = usable_prompt(row["caption"])
    if row["has_label"] is not True:
        raise InputError(f"No label: has_label is {str(row['has_label']).lower()}.")
    labels = pair_labels([row["label_0"], row["label_1"]], "label_0, label_1")
    images = [
        Candidate(
            row=number,
            source=f"{name}#{number}",
            read=partial(_bytes, row, f"jpg_{side}"),
            uid=row[f"image_{side}_uid"] or None,
            model=row[f"model_{side}"] or None,
        )
        for side in (0, 1)
    ]
    return Comparison(name, split, prompt, images, {OVERALL: labels}, {})


def _bytes(row: dict[str, Any], column: str) -> bytes:
    if not isinstance(row[column], bytes):
        raise InputError(f"The image is missing: {column} is null.")
    return row[column]
