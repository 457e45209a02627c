"""HPD v2 as it was published: JSON files that name the images, which lie beside them.

    train.json   [{"prompt", "file_path" or "image_path": [a, b], "human_preference": [1, 0]}, …]
    test.json    [{"prompt", "image_path": […], "rank": […], "raw_annotations": …}, …]     rank 1 is best
    train/, test/                                  the images: train.tar.gz and test.tar.gz, unpacked

References: HPS v2 (arXiv 2306.09341), github.com/tgxs002/HPSv2; ymhao/HPDv2 on the Hugging Face hub.
"""

import json
import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from visionprefer.errors import InputError
from visionprefer.importing.comparisons import (
    ROWS_PER_UNIT,
    Candidate,
    Comparison,
    Rejected,
    Unit,
    is_number,
    is_there,
    pair_labels,
    read_image,
    usable_prompt,
    whole,
    within,
)
from visionprefer.schema import OVERALL

TITLE = "HPD v2"
ROWS = "{split}.json"  # files with rows
IMAGES = ("{split}/*", "{split}.tar*")  # further files, with images
SPLITS = ("train", "test")
SUBSETS: dict[str, str] = {}

_BETWEEN = re.compile(r"[\s,]*")


def units(folder: Path, file: Path, split: str) -> Iterator[Unit]:
    """The entries of a file, ROWS_PER_UNIT at a time. Raises InputError if the images are still packed."""
    packed = sorted(folder.glob(f"{split}.tar*"))
    if packed and not (folder / split).is_dir():
        raise InputError(f"{folder}: the images are packed. Write: tar -xf {packed[0].name} in that folder, then again")
    first, entries = 0, _entries(file)
    while batch := list(islice(entries, ROWS_PER_UNIT)):
        yield partial(_items, batch, first, folder, file.name, split)
        first += len(batch)


def _entries(file: Path) -> Iterator[Any]:
    """The entries of a JSON list, decoded one by one: the published file would fill gigabytes as objects."""
    with whole(file):
        text = file.read_text(encoding="utf-8")
    decoder, place = json.JSONDecoder(), len(text) - len(text.lstrip())
    if text[place : place + 1] != "[":
        raise InputError(f"{file}: not a JSON list. Fetch it again from where it was published")
    place = _next(text, place + 1)
    while text[place : place + 1] != "]":
        try:
            entry, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise InputError(f"{file}: not whole: {error}. Fetch it again from where it was published") from error
        yield entry
        place = _next(text, place)


def _next(text: str, place: int) -> int:
    match = _BETWEEN.match(text, place)
    return match.end() if match else place


def _items(batch: list[Any], first: int, folder: Path, name: str, split: str) -> Iterator[Comparison | Rejected]:
    for number, entry in enumerate(batch, first):
        try:
            yield _comparison(entry, number, folder, name, split)
        except InputError as error:
            yield Rejected(name, number, str(error))


def _comparison(entry: Any, number: int, folder: Path, name: str, split: str) -> Comparison:
    if not isinstance(entry, dict):
        raise InputError(f"The entry is no object: {str(entry)[:40]!r}.")
    prompt = usable_prompt(entry.get("prompt"))
    paths = entry.get("image_path") or entry.get("file_path")
    said = "human_preference" if entry.get("human_preference") else "rank"
    values = entry.get(said)
    if not isinstance(paths, list) or not isinstance(values, list):
        raise InputError("No label: it has no image_path, or neither human_preference nor rank.")
    if len(paths) != len(values):
        raise InputError(f"{len(paths)} images, and {said} has {len(values)} values.")
    if len(paths) < 2:
        raise InputError("One image alone: there is nothing to compare.")
    scores = pair_labels(values, said) if said == "human_preference" else _scores_of(values)
    images = [_candidate(folder, split, path, number) for path in paths]
    return Comparison(name, split, prompt, images, {OVERALL: scores}, {})


def _scores_of(ranks: list[Any]) -> list[float]:
    """Ranks turned round, so that more is better."""
    if not all(is_number(rank) for rank in ranks):
        raise InputError(f"A rank is no number: rank is {ranks}.")
    return [-float(rank) for rank in ranks]


def _candidate(folder: Path, split: str, path: Any, number: int) -> Candidate:
    """An image by its path, which is relative to the split's folder or to the dataset's."""
    place = within(folder / split, path)
    if not is_there(place):
        place = within(folder, path)
    if not is_there(place):
        raise InputError(f"The image is missing: there is no file {split}/{path}.")
    return Candidate(number, place.relative_to(folder).as_posix(), partial(read_image, place))
