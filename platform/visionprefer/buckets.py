"""A model's folder in a bucket, brought to the machine that loads it."""

import os
import shutil
import uuid
from pathlib import Path, PurePosixPath

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
        raise InputError(f"{name}: there is no such folder in the bucket. Write one that a training has filled")
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
