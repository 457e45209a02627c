"""Images that exist already: found with their captions, and taken over byte for byte."""

import posixpath
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from visionprefer.buckets import files_under, is_in_bucket, open_file
from visionprefer.errors import InputError
from visionprefer.imagebytes import check_image, image_column, read_sources
from visionprefer.prompts.columns import choose_column
from visionprefer.prompts.files import readable
from visionprefer.prompts.formats import decode, read_columns
from visionprefer.schema import FAILED_IMAGES, IMAGES, content_id
from visionprefer.store import Store

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
METADATA = ("metadata.jsonl", "metadata.csv")
OUR_ID = re.compile(r"[0-9a-f]{32}")
WRITE = (
    "Write a folder of images with NAME.txt beside each or a metadata.jsonl or metadata.csv (file_name, text), "
    "a Parquet file with an image and a prompt column, or the folder of a run"
)


class ExistingImage(NamedTuple):
    """An image that can be taken over."""

    prompt: str  # as it was found, without white space at its ends
    source: str  # absolute path or address of the file, or "FILE.parquet#ROW", rows from 0
    model: str | None  # what made it, if that is said
    image_id: str | None = None  # that it keeps, as an image of a run


class Existing(NamedTuple):
    """What lies under a path, in the order of file names and rows."""

    images: list[ExistingImage]
    rejected: list[tuple[str, str]]  # source, reason


class _Found(NamedTuple):
    source: str
    prompt: Any
    model: Any = None
    problem: str | None = None
    image_id: Any = None


def list_existing(path: str) -> Existing:
    """Find images and their captions; their bytes are left alone.

    Args:
        path: On this machine or in a bucket, s3://… or gs://…: a folder of .png, .jpg, .jpeg or .webp files, folders
            within it too, with captions in metadata.jsonl or metadata.csv (columns file_name, and prompt, text or
            caption) or in NAME.txt beside each image; a Parquet file, or a folder of them, with an image column
            (binary, or struct<bytes, path>) and a column of prompts; or the folder of a run or an import, whose images
            keep their ids. A column "model" says what made the image.

    Raises:
        InputError: if there is no such path, no image, no caption, or a column cannot be told.
    """
    place = _place(path)
    with readable(path):
        try:
            files = list(files_under(place))
        except FileNotFoundError as error:
            raise InputError(f"images.existing: {path}: there is no such file or folder. {WRITE}") from error
        if files == [place] and not place.lower().endswith(".parquet"):
            raise InputError(f"images.existing: {path} is neither a folder nor a Parquet file. {WRITE}")
        if f"{place}/manifest.json" in files and _is_of_a_run(place):
            existing = _taken(_found([file for file in files if file.startswith(f"{place}/images/")]))
        else:
            existing = _taken(found._replace(image_id=None) for found in _found(files))
    if not existing.images:
        first = f" with a caption. The first, {': '.join(existing.rejected[0])}" if existing.rejected else ""
        raise InputError(f"images.existing: {path}: there is no image{first}. {WRITE}")
    return existing


def _is_of_a_run(place: str) -> bool:
    """Whether its manifest.json is one of ours."""
    with suppress(InputError):
        return bool(Store(place).manifest())
    return False


def _taken(found: Iterable[_Found]) -> Existing:
    images: list[ExistingImage] = []
    named: set[ExistingImage | str] = set()
    rejected = []
    for each in found:
        image = ExistingImage(str(each.prompt or "").strip(), each.source, each.model or None, each.image_id)
        name = image.image_id or image
        problem = each.problem or _problem(each, image) or ("named twice" if name in named else None)
        if problem:
            rejected.append((_printable(each.source), _printable(problem)))
        else:
            images.append(image)
            named.add(name)
    return Existing(images, rejected)


def name_within(source: str, path: str) -> str:
    """A source as seen from the path that was listed, which may move."""
    return source.removeprefix(_place(path))


def listing_digest(images: list[ExistingImage], path: str) -> str:
    """Identifies images by name, size of the file, caption and model; the path that was listed may move."""
    files = [
        image.source if image.source.lower().endswith(SUFFIXES) else image.source.rpartition("#")[0] for image in images
    ]
    sizes = files_under(_place(path))
    listed = [
        (name_within(image.source, path), sizes[file], image.prompt, image.model)
        for image, file in zip(images, files, strict=True)
    ]
    return content_id("existing", listed)


def _problem(found: _Found, image: ExistingImage) -> str | None:
    if not isinstance(found.prompt, str) or not image.prompt:
        return "its caption is empty or no text"
    if not isinstance(found.model, str | None):
        return f"its model is {found.model!r}: write a name"
    if image.image_id is not None and not OUR_ID.fullmatch(str(image.image_id)):
        return f"its image_id is {image.image_id!r}, and a run's are 32 hexadecimal digits"
    try:
        f"{image.source}{image.prompt}{image.model}".encode()
    except UnicodeEncodeError:
        return "its name or caption is not UTF-8"
    return None


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _place(path: str) -> str:
    return path.rstrip("/") if is_in_bucket(path) else str(Path(path).expanduser().resolve())


def _found(files: list[str]) -> Iterator[_Found]:
    tables = [file for file in files if _suffix(file) == ".parquet"]
    if any(_suffix(file) in SUFFIXES for file in files):
        yield from _in_folder(files)
        problem = "a Parquet file among images: take it over by itself"
        yield from (_Found(table, None, problem=problem) for table in tables)
    else:
        for table in tables:
            yield from _in_table(table)


def _suffix(file: str) -> str:
    return posixpath.splitext(file)[1].lower()


def _in_folder(files: list[str]) -> Iterator[_Found]:
    there = set(files)
    metadata = [file for file in files if posixpath.basename(file) in METADATA]
    described = [found for file in metadata for found in _in_metadata(file, there)]
    yield from described
    named = {found.source for found in described}
    images = (file for file in files if _suffix(file) in SUFFIXES)
    yield from (_beside(image, there) for image in images if image not in named)


def _in_metadata(file: str, there: set[str]) -> Iterator[_Found]:
    for found, name in _rows(file, "file_name"):
        if not isinstance(name, str) or not name:
            yield found._replace(problem=found.problem or f"file_name is {name!r}: write the name of an image")
            continue
        image = _beneath(posixpath.dirname(file), name)
        problem = None if image in there else f"{found.source} names it, and there is no such file in this folder"
        yield found._replace(source=image, problem=problem)


def _beneath(folder: str, name: str) -> str:
    """A file by its name in a folder, which may go up and down."""
    root, separator, inner = folder.rpartition("://")
    return root + separator + posixpath.normpath(posixpath.join(inner, name))


def _in_table(file: str) -> Iterator[_Found]:
    with open_file(file) as opened:
        image_column(pq.read_schema(opened), file)
    yield from (found for found, _ in _rows(file, None))


def _rows(file: str, also: str | None) -> Iterator[tuple[_Found, Any]]:
    """The rows of a file with captions, and what stands in another column of theirs."""
    with open_file(file) as opened:
        columns = read_columns(opened, file)
        yield from ((_Found(row.source, None, problem=row.reason), None) for row in columns.rejected)
        if not columns.sources:
            return
        if also is not None and also not in columns.types:
            raise InputError(f"{file}: there is no column {also!r}. The columns are: {', '.join(columns.types)}")
        types = {name: kind for name, kind in columns.types.items() if name not in ("model", "image_id", also)}
        prompts = columns.cells(choose_column(types, None, file, "Call the one with the prompts 'prompt'"))
        nothing = [None] * len(prompts)
        models, ids = (columns.cells(name) if name in columns.types else nothing for name in ("model", "image_id"))
        others = columns.cells(also) if also is not None else nothing
        for source, prompt, model, image_id, other in zip(columns.sources, prompts, models, ids, others, strict=True):
            yield _Found(source, prompt, model, image_id=image_id), other


def _beside(image: str, there: set[str]) -> _Found:
    caption = posixpath.splitext(image)[0] + ".txt"
    name = posixpath.basename(caption)
    if caption not in there:
        return _Found(image, None, problem=f"no caption: write {name} beside it, or a line in metadata.jsonl")
    try:
        with open_file(caption) as opened:
            return _Found(image, decode(opened.read(), name))
    except (OSError, InputError) as error:
        return _Found(image, None, problem=f"no caption: {error}")


class ImportImages:
    """A stage: takes images over, byte for byte, if they can be decoded.

    Columns in: PLAN, with `source` as `list_existing` gives it.
    Columns out: IMAGES for the rows that are done, FAILED_IMAGES for the others with the reason in `error`. Every row
    of the plan comes out once, in one of the two.
    """

    def __call__(self, plan: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Read the images of some rows of the plan."""
        rows = plan.to_pylist()
        read = read_sources({row["source"] for row in rows})
        done, failed = [], []
        for row in rows:
            try:
                done.append(row | _imported(row["image_id"], read[row["source"]]))
            except InputError as error:
                failed.append(row | {"error": str(error)})
        return pa.Table.from_pylist(done, schema=IMAGES), pa.Table.from_pylist(failed, schema=FAILED_IMAGES)

    def describe(self) -> str:
        """What was chosen, for the person at the terminal."""
        return "the images are there already, and are taken over byte for byte"


def _imported(image_id: str, data: bytes | InputError) -> dict[str, Any]:
    if isinstance(data, InputError):
        raise data
    width, height, suffix = check_image(data)
    return {"width": width, "height": height, "image": {"bytes": data, "path": image_id + suffix}}
