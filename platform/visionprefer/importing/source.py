"""Where a published dataset lies, a folder, a bucket or the Hugging Face hub, and which files hold its rows."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from visionprefer.buckets import brought_here
from visionprefer.errors import InputError, missing_extra

_HUB = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@(.+))?")


def find_folder(source: str, layout: Any, splits: Sequence[str]) -> Path:
    """The folder of a dataset; one in a bucket is fetched, and one on the hub as far as its splits are wanted.

    Raises:
        InputError: if there is no such folder, or the bucket or the hub cannot be reached or has no such dataset.
    """
    if not source.startswith("hf:"):
        folder = brought_here(source).expanduser()
        if not folder.is_dir():
            raise InputError(f"{source}: there is no such folder. Write the dataset's, or hf://datasets/OWNER/NAME")
        return folder
    match = _HUB.fullmatch(source)
    if not match:
        raise InputError(f"{source}: not a dataset on the hub. Write hf://datasets/OWNER/NAME or …/NAME@REVISION")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise missing_extra("huggingface_hub", "local") from error
    wanted = patterns(layout, splits)
    try:
        return Path(snapshot_download(match[1], repo_type="dataset", revision=match[2], allow_patterns=wanted))
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise InputError(f"{source}: the hub has or gives no such dataset: {str(error).splitlines()[0]}") from error


def patterns(layout: Any, splits: Sequence[str]) -> list[str]:
    """Of the names of files that these splits take, as the hub's client matches them."""
    return [pattern.format(split=split) for pattern in (layout.ROWS, *layout.IMAGES) for split in splits]


def chosen_splits(layout: Any, splits: Sequence[str] | None) -> tuple[str, ...]:
    """The published splits to take, in their order; None: all that are no subset of another.

    Raises:
        InputError: if there is no such split, or one is a subset of another.
    """
    if splits is None:
        return tuple(layout.SPLITS)
    known = (*layout.SPLITS, *layout.SUBSETS)
    for split in splits:
        if split not in known:
            raise InputError(f"split {split!r}: {layout.TITLE} has none of this name. Write some of {', '.join(known)}")
        if layout.SUBSETS.get(split) in splits:
            raise InputError(f"split {split!r}: {layout.SUBSETS[split]!r} has its rows too. Write one of the two")
    return tuple(split for split in known if split in splits)


def files_with_rows(folder: Path, layout: Any, splits: Sequence[str]) -> dict[Path, str]:
    """The files that hold rows, in the order of splits and names, with the split of each. Raises InputError if none."""
    found = {file: split for split in splits for file in sorted(folder.glob(layout.ROWS.format(split=split)))}
    if not found:
        looked_for = ", ".join(layout.ROWS.format(split=split) for split in splits)
        subsets = f", or a split {' or '.join(layout.SUBSETS)}" if layout.SUBSETS else ""
        raise InputError(
            f"{folder}: {layout.TITLE} has there none of {looked_for}. Write the folder of its repository{subsets}"
        )
    return found
