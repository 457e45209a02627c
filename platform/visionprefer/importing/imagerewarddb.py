"""ImageRewardDB as it was published: a row for each image, with its rank among those of its prompt and three ratings.

    metadata-SPLIT.parquet       image_path, prompt_id, prompt, rank, overall_rating, image_text_alignment_rating, …
    images/SPLIT/SPLIT_N.zip     the images of a part, or images/SPLIT/SPLIT_N/, that archive unpacked

Rank 1 is best, and images may share one. Ratings are 1 to 7. The subsets 1k, 2k, 4k and 8k are the first 4, 8, 16 and
32 parts of the training split: rows whose part is not there are rejected.

References: ImageReward (arXiv 2304.05977); THUDM/ImageRewardDB on the Hugging Face hub.
"""

import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from visionprefer.errors import InputError
from visionprefer.imagebytes import LARGEST_FILE
from visionprefer.importing.comparisons import (
    ROWS_PER_UNIT,
    Candidate,
    Comparison,
    Rejected,
    Unit,
    is_number,
    is_there,
    open_parquet,
    read_image,
    usable_prompt,
    whole,
    within,
)
from visionprefer.schema import OVERALL

TITLE = "ImageRewardDB"
ROWS = "metadata-{split}.parquet"  # files with rows
IMAGES = ("images/{split}/*",)  # further files, with images
SPLITS = ("train", "validation", "test")
SUBSETS: dict[str, str] = {}

# Their ratings as our scorers: two are aspects of ours, and what they call overall is no sum of ours.
RATINGS = {
    "image_text_alignment_rating": "prompt_following",
    "fidelity_rating": "fidelity",
    "overall_rating": "overall_rating",
}
ASPECTS = ("prompt_following", "fidelity")
LOWEST, HIGHEST = 1, 7
COLUMNS = ("image_path", "prompt_id", "prompt", "rank", *RATINGS)


class _Archive(NamedTuple):
    opened: zipfile.ZipFile
    members: dict[str, str]  # by the file's own name


Archives = Callable[[Path], _Archive]
Rows = list[tuple[int, dict[str, Any]]]


def units(folder: Path, file: Path, split: str) -> Iterator[Unit]:
    """The rows of ROWS_PER_UNIT prompts at a time. In memory are the rows of a file, which hold no images."""
    with open_parquet(file, COLUMNS) as parquet, whole(file):
        rows = parquet.read(list(COLUMNS)).to_pylist()
    by_prompt: dict[Any, Rows] = defaultdict(list)
    for number, row in enumerate(rows):
        by_prompt[row["prompt_id"]].append((number, row))
    groups, archives = list(by_prompt.values()), lru_cache(maxsize=2)(_open)
    for start in range(0, len(groups), ROWS_PER_UNIT):
        yield partial(_items, groups[start : start + ROWS_PER_UNIT], folder, file.name, split, archives)


def _items(
    groups: list[Rows], folder: Path, name: str, split: str, archives: Archives
) -> Iterator[Comparison | Rejected]:
    for rows in groups:
        kept: Rows = []
        for number, row in rows:
            try:
                _check(row, kept)
                kept.append((number, row))
            except InputError as error:
                yield Rejected(name, number, str(error))
        if kept:
            yield _comparison(kept, folder, name, split, archives)


def _check(row: dict[str, Any], before: Rows) -> None:
    """Raises InputError if a row does not fit, by itself or among those of its prompt."""
    prompt = usable_prompt(row["prompt"])
    if not row["prompt_id"]:
        raise InputError("The prompt_id is null.")
    if before and prompt != usable_prompt(before[0][1]["prompt"]):
        raise InputError(f"Another prompt than in row {before[0][0]}, which has the same prompt_id.")
    if not is_number(row["rank"]) or row["rank"] < 1:
        raise InputError(f"Unknown rank: rank is {row['rank']}, and the best has 1.")
    for rating in RATINGS:
        if not is_number(row[rating]) or not LOWEST <= row[rating] <= HIGHEST:
            raise InputError(f"Unknown rating: {rating} is {row[rating]}, and known are {LOWEST} to {HIGHEST}.")


def _comparison(rows: Rows, folder: Path, name: str, split: str, archives: Archives) -> Comparison:
    images = [
        Candidate(number, str(row["image_path"]), partial(_read, folder, row["image_path"], archives))
        for number, row in rows
    ]
    ratings = {scorer: [float(row[rating]) for _, row in rows] for rating, scorer in RATINGS.items()}
    scores = {OVERALL: [-float(row["rank"]) for _, row in rows]} | {aspect: ratings[aspect] for aspect in ASPECTS}
    return Comparison(name, split, usable_prompt(rows[0][1]["prompt"]), images, scores, ratings)


def _read(folder: Path, path: Any, archives: Archives) -> bytes:
    place = within(folder, path)
    if is_there(place):
        return read_image(place)
    packed = place.parent.parent / f"{place.parent.name}.zip"
    if not is_there(packed):
        raise InputError(f"The image is missing: there is no file {path}, and no archive of its part.")
    try:
        archive = archives(packed)
        with archive.opened.open(archive.members[place.name]) as member:
            return member.read(LARGEST_FILE + 1)
    except KeyError:
        raise InputError(f"The image is missing: {packed.relative_to(folder)} has no {place.name}.") from None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise InputError(f"The image cannot be read from {packed.relative_to(folder)}: {error}.") from error


def _open(file: Path) -> _Archive:
    opened = zipfile.ZipFile(file)
    return _Archive(opened, {PurePosixPath(name).name: name for name in opened.namelist()})
