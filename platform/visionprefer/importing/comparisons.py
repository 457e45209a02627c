"""What a published dataset says: images of one prompt side by side, and how people ordered them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from visionprefer.errors import InputError
from visionprefer.imagebytes import LARGEST_FILE
from visionprefer.prompts import clean_text
from visionprefer.prompts.cleaning import LONGEST

ROWS_PER_UNIT = 64  # published rows, or prompts where a row is an image, that are committed together


class Rejected(NamedTuple):
    """A row that does not fit."""

    file: str  # as seen from the dataset's folder
    row: int  # of the file, from 0
    reason: str


class Candidate(NamedTuple):
    """An image that is compared. A broken one takes its row with it, and all images of that row."""

    row: int  # that speaks of it, from 0
    source: str  # where its bytes lie, as seen from the dataset's folder
    read: Callable[[], bytes]  # at most a byte more than LARGEST_FILE; raises InputError
    uid: str | None = None  # the publisher's; None: images are told apart by their bytes
    model: str | None = None  # what made it, if that is said


class Comparison(NamedTuple):
    """Images of one prompt that were compared with each other."""

    file: str
    split: str  # as it was published
    prompt: str  # cleaned
    images: list[Candidate]
    scores: dict[str, list[float]]  # by aspect, of each image: the higher of two is preferred, equal ones are a tie
    ratings: dict[str, list[float]]  # by scorer, of each image


Unit = Callable[[], Iterator[Comparison | Rejected]]  # some rows of a file, read when it is called


def usable_prompt(prompt: Any) -> str:
    """A prompt, cleaned. Raises InputError if it is no text, empty or too long."""
    if not isinstance(prompt, str):
        raise InputError("The prompt is null." if prompt is None else f"The prompt is no text: {prompt!r}.")
    cleaned = clean_text(prompt)
    if not cleaned:
        raise InputError("The prompt is empty.")
    if len(cleaned) > LONGEST:
        raise InputError(f"The prompt has {len(cleaned):,} characters; at most {LONGEST:,} are taken.")
    return cleaned


def pair_labels(labels: Sequence[Any], name: str) -> list[float]:
    """The labels of two images, checked: 1 and 0, 0 and 1, or 0.5 each for a tie. Raises InputError."""
    if not all(is_number(label) for label in labels):
        raise InputError(f"A label is null: {name} is {list(labels)}.")
    if abs(sum(labels) - 1) > 1e-6:
        raise InputError(f"The labels do not sum to 1: {name} is {list(labels)}.")
    if len(labels) != 2 or any(label not in (0, 0.5, 1) for label in labels):
        raise InputError(f"Unknown labels: {name} is {list(labels)}, and known are 1 and 0, 0 and 1, 0.5 and 0.5.")
    return [float(label) for label in labels]


def is_number(value: Any) -> bool:
    """Whether it is a number, and neither NaN nor a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def within(folder: Path, name: Any) -> Path:
    """A file that a row names, in the dataset's folder. Raises InputError if it points out of it."""
    if not isinstance(name, str) or not name or "\0" in name or not _is_utf8(name):
        raise InputError(f"The name of its image is {name!r}.")
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise InputError(f"{name!r} is outside the folder of the dataset.")
    return folder / name


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def is_there(file: Path) -> bool:
    """Whether there is such a file; a name that no file can have is that of none."""
    try:
        return file.is_file()
    except OSError:
        return False


def read_image(file: Path) -> bytes:
    """The bytes of an image file. Raises InputError if it cannot be read."""
    try:
        with file.open("rb") as opened:
            return opened.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"The image cannot be read: {error.strerror}.") from error


@contextmanager
def whole(file: Path) -> Iterator[None]:
    """Whatever goes wrong while a file with rows is read becomes an InputError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read: {error}. Fetch it again from where it was published") from error


def check_columns(file: Path, schema: pa.Schema, wanted: Sequence[str]) -> None:
    """Raises InputError if a Parquet file lacks a column of its published layout."""
    if missing := [name for name in wanted if name not in schema.names]:
        raise InputError(
            f"{file}: there is no column {', '.join(missing)}. Write the folder of a dataset of this layout, whose "
            f"columns are {', '.join(wanted)}"
        )


def open_parquet(file: Path, wanted: Sequence[str]) -> pq.ParquetFile:
    """A Parquet file of a published layout. Raises InputError if it cannot be read, or lacks a column."""
    with whole(file):
        parquet = pq.ParquetFile(file)
    check_columns(file, parquet.schema_arrow, wanted)
    return parquet
