"""What lies in buckets: models, brought to the machine that loads them, and files that are read where they are."""

import functools
import os
import shutil
import uuid
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from filelock import FileLock
from pyarrow import fs

from visionprefer.errors import InputError
from visionprefer.schema import content_id


def is_in_bucket(name: str) -> bool:
    """Whether a name is that of a folder in a bucket: `s3://…` or `gs://…`."""
    return "://" in name


def brought_here(name: str) -> Path:
    """The folder on this machine: copied once, and again when a file of it has changed.

    Copies are kept in `$XDG_CACHE_HOME/visionprefer`, or `~/.cache/visionprefer`.

    Args:
        name: a folder, which is itself, or `s3://bucket/folder`, `gs://bucket/folder`.

    Raises:
        InputError: if there is no such folder in the bucket, or the bucket does not answer.
    """
    if not is_in_bucket(name):
        return Path(name)
    try:
        files, prefix = fs.FileSystem.from_uri(name)
        listed = files.get_file_info(fs.FileSelector(prefix, recursive=True, allow_not_found=True))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be read: {error}. Write a folder, s3://… or gs://…") from error
    there = sorted((file.path, file.size, file.mtime_ns) for file in listed if file.is_file)
    if not there:
        raise InputError(f"{name}: there is no such folder in the bucket. Write one that was filled")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "visionprefer"
    folder = cache / content_id(name, there) / PurePosixPath(prefix).name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder.parent}.lock"):
        if not folder.exists():
            unfinished = folder.with_name(uuid.uuid4().hex)
            try:
                for path, *_ in there:  # not all buckets list folders, and who copies makes those alone that are listed
                    (unfinished / path[len(prefix) :].strip("/")).parent.mkdir(parents=True, exist_ok=True)
                fs.copy_files(prefix, str(unfinished), files, fs.LocalFileSystem())
                unfinished.rename(folder)
            except OSError as error:
                raise InputError(f"{name}: cannot be copied to {folder.parent}: {error}") from error
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def files_under(name: str) -> dict[str, int]:
    """Bytes of the files of a folder, those in its folders too, or of the file itself, in the order of names' parts.

    Args:
        name: an absolute path, or `s3://…`, `gs://…`.

    Raises:
        FileNotFoundError: if there is nothing of this name.
        OSError: if it cannot be listed, as where the bucket does not answer.
    """
    if not is_in_bucket(name):
        place = Path(name)
        if place.is_dir():
            return {str(file): file.stat().st_size for file in sorted(place.rglob("*")) if file.is_file()}
        return {name: place.stat().st_size}
    files, inner = _located(name.rstrip("/"))
    there = files.get_file_info(inner)
    listed = fs.FileSelector(inner, recursive=True, allow_not_found=True)
    found = [there] if there.is_file else files.get_file_info(listed)
    if not found:
        raise FileNotFoundError(f"{name}: no such file or folder")
    address = name.rstrip("/").removesuffix(inner)
    sizes = {address + file.path: file.size for file in found if file.is_file}
    return {file: sizes[file] for file in sorted(sizes, key=lambda each: each.split("/"))}


def file_size(name: str) -> int:
    """Bytes of a file, as `files_under` names it. Raises FileNotFoundError if it is gone or no file."""
    if is_in_bucket(name):
        files, inner = _located(name)
        found = files.get_file_info(inner)
        there, size = found.is_file, found.size
    else:
        there = Path(name).is_file()
        size = Path(name).stat().st_size if there else 0
    if not there:
        raise FileNotFoundError(f"{name}: gone, or not a file")
    return int(size)


def open_file(name: str) -> Any:
    """A file, as `files_under` names it, opened to read its bytes. Raises OSError."""
    if not is_in_bucket(name):
        return Path(name).open("rb")
    files, inner = _located(name)
    return files.open_input_file(inner)


def _located(name: str) -> tuple[fs.FileSystem, str]:
    """The file system of a name in a bucket, and its path there."""
    scheme, _, inner = name.partition("://")
    bucket, slash, path = inner.partition("/")
    return _bucket(f"{scheme}://{bucket}"), bucket.rpartition("@")[2] + slash + path  # who asks may stand before an @


@functools.cache
def _bucket(address: str) -> fs.FileSystem:
    try:
        return fs.FileSystem.from_uri(address)[0]
    except (pa.ArrowException, ValueError) as error:
        raise OSError(str(error)) from error
