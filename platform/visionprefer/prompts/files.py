"""Files that a recipe names, opened for reading: on this machine, in a bucket or on the Hugging Face hub."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import httpx
import pyarrow as pa
from pyarrow import fs

from visionprefer.errors import InputError, missing_extra
from visionprefer.models import BUILTIN

BUILTIN_PROMPTS = Path(__file__).parents[1] / "blocksworld" / "prompts"
PLACES = "a local file, s3://BUCKET/FILE, gs://BUCKET/FILE, hf://datasets/OWNER/NAME or builtin:blocks-training"


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Whatever goes wrong while a file is read becomes an InputError that names it."""
    try:
        yield
    except (OSError, EOFError, pa.ArrowException, httpx.HTTPError) as error:
        raise InputError(f"{path}: cannot be read: {error}. Write {PLACES}") from error


def open_files(path: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Open a file, or the files of a dataset on the hub, one after the other.

    Args:
        path: A local file, `s3://…`, `gs://…`, `hf://datasets/OWNER/NAME[@REVISION][/FILE]`, or `builtin:NAME`.
        suffixes: Of the files that can be read; others of a dataset are passed over.

    Yields:
        The name by which rows of the file are called (the file's own name, or its whole address if it is not on this
        machine; for the hub with the commit that was read), and the open binary file.

    Raises:
        InputError: if there is no such file, or the dataset's files are of several kinds.
    """
    scheme, separator, rest = path.partition("://")
    if path.startswith(BUILTIN):
        with _builtin(path).open("rb") as shipped:
            yield f"{path}.txt", shipped
    elif not separator:
        with _local(Path(path).expanduser(), suffixes).open("rb") as local:
            yield os.fsencode(Path(path).name).decode(errors="replace"), local
    elif scheme == "hf":
        yield from _open_hub(path, rest, suffixes)
    else:
        files, inner = fs.FileSystem.from_uri(path)
        with files.open_input_file(inner) as remote:
            yield path, remote


def _builtin(path: str) -> Path:
    sets = {f"{BUILTIN}{file.stem}": file for file in sorted(BUILTIN_PROMPTS.glob("*.txt"))}
    if path not in sets:
        raise InputError(f"{path}: no such prompts come with the package. Write {' or '.join(sets)}")
    return sets[path]


def _local(path: Path, suffixes: tuple[str, ...]) -> Path:
    if path.is_dir():
        inside = sorted(file.name for file in path.iterdir() if file.suffix.lower() in suffixes)
        hint = ", ".join(inside[:10]) if inside else "there is none in it that can be read"
        raise InputError(f"{path} is a folder: write the path of one file ({hint})")
    if not path.exists():
        raise InputError(f"{path}: there is no such file. Write {PLACES}")
    if not path.is_file():
        raise InputError(f"{path} is neither a file nor a folder. Write {PLACES}")
    return path


def _open_hub(path: str, inner: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    try:
        from huggingface_hub import HfApi, HfFileSystem
    except ImportError as error:
        raise missing_extra("huggingface_hub", "local") from error
    if not inner.startswith("datasets/") or inner.count("/") < 2:
        raise InputError(f"{path}: not a dataset on the hub. Write hf://datasets/OWNER/NAME")
    hub = HfFileSystem()
    try:
        place = hub.resolve_path(inner)
        commit = HfApi().repo_info(place.repo_id, repo_type="dataset", revision=place.revision).sha
    except ValueError as error:
        raise InputError(f"{path}: {error}. Write hf://datasets/OWNER/NAME") from error
    root = f"datasets/{place.repo_id}@{commit}"
    found = hub.find(f"{root}/{place.path_in_repo}".rstrip("/"))
    for name in _of_one_kind(path, found, suffixes):
        with hub.open(name, "rb") as file:
            yield f"hf://{name}", file


def _of_one_kind(path: str, found: list[str], suffixes: tuple[str, ...]) -> list[str]:
    """The data files among those of a dataset; which to read is the user's to say if they are of several kinds."""
    names = sorted(name for name in found if PurePosixPath(name).suffix.lower() in suffixes)
    if not names:
        raise InputError(f"{path}: no file there ends in {', '.join(suffixes)}. Write another dataset, or a file in it")
    if len({PurePosixPath(name).suffix.lower() for name in names}) > 1:
        listed = "\n  ".join(f"hf://{name}" for name in names[:20])
        raise InputError(f"{path}: files of several kinds are there. Write the path of one:\n  {listed}")
    return names
