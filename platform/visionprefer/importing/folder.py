"""A published dataset becomes the folder of a finished run, as readers of runs know it.

    importing/             while it lasts: what it is made from, and of each unit of rows all but the images
    images/000012.0.parquet
    …                      prompts, plan, preferences, judgements and the training table, as in any run
    rejected_rows.parquet  rows that do not fit, with the reason
    manifest.json          written last

A unit is committed when its file in importing/ is there. An import that was stopped goes on after the last of these.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from visionprefer.errors import InputError
from visionprefer.importing import hpdv2, imagerewarddb, pickapic
from visionprefer.importing.finishing import WORK, clear_work, finish, units_done, write_unit
from visionprefer.importing.source import chosen_splits, files_with_rows, find_folder
from visionprefer.importing.taking import Taker
from visionprefer.schema import FAILED_IMAGES, IMAGES, content_id
from visionprefer.shards import Shards
from visionprefer.store import Store

LAYOUTS = {"imagerewarddb": imagerewarddb, "hpdv2": hpdv2, "pickapic": pickapic}
MADE_FROM = f"{WORK}/made_from.json"


class Imported(NamedTuple):
    """What an import holds. Every row that was read is kept or rejected."""

    kept: int  # published rows
    rejected: int
    prompts: int
    images: int
    pairs: int  # of all aspects, ties among them
    ties: int


def import_dataset(
    layout: Literal["imagerewarddb", "hpdv2", "pickapic"],
    source: str,
    out: str,
    splits: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Imported:
    """Take over a published preference dataset, or go on taking it over.

    Rows of the published split "train" are our split "train", all others "held_out". Images stay byte for byte; an
    image of a prompt is stored once. Ranks and labels become pairs of the aspect "overall", ties among them, and
    ratings become judgements. In memory are a unit of images and the tables without images.

    Args:
        layout: in which it was published.
        source: folder of its repository, or hf://datasets/OWNER/NAME[@REVISION], which is fetched first.
        out: folder to write, local or s3://, gs://: new, empty, or of the same import.
        splits: published splits to take; None: all. Those that are part of another are taken only if named.
        say: told what happens, in sentences.

    Raises:
        InputError: if the source is not of this layout or cannot be read, no row of it fits, or `out` holds other
            things.
    """
    described = LAYOUTS[layout]
    chosen = chosen_splits(described, splits)
    folder = find_folder(source, described, chosen)
    files = files_with_rows(folder, described, chosen)
    listed = [(file.relative_to(folder).as_posix(), file.stat().st_size) for file in files]
    made_from = {"layout": layout, "splits": list(chosen), "rows": content_id("rows", listed)}
    store = Store(out)
    if _is_finished(store, made_from):
        clear_work(store)
        say(f"{out} is imported already")
        return Imported(**store.manifest()["import"]["counts"])
    images = _take(described, folder, files, store, say)
    say("writing the tables")
    counts = finish(store, described.TITLE, layout, source, images, made_from)
    clear_work(store)
    return Imported(**counts)


def _is_finished(store: Store, made_from: dict[str, Any]) -> bool:
    """Whether there is nothing left to do; if not, what is being made is noted. Raises InputError."""
    manifest = store.manifest()
    try:
        before = manifest.get("import", {}).get("made_from") if manifest else json.loads(store.read(MADE_FROM))
    except FileNotFoundError:
        if store.names(""):
            raise InputError(f"--out {store.root}: the folder holds other things. Write a new folder") from None
        store.write(MADE_FROM, json.dumps(made_from).encode())
        return False
    if before != made_from:
        raise InputError(f"--out {store.root}: a run or another import is there. Write another --out")
    return bool(manifest)


def _take(layout: Any, folder: Path, files: dict[Path, str], store: Store, say: Callable[[str], None]) -> Shards:
    """Commit the units that are not there yet, in order."""
    store.remove_unfinished()
    images, taker = Shards(store, "images", IMAGES), Taker(f"annotators of {layout.TITLE}")
    for commit in units_done(store):
        images.add(commit)
    if images.commits:
        say(f"{len(images.commits):,} units of rows are there already")
        for table in images.tables(["image_id", "prompt_id", "candidate"]):
            taker.remember(table)
    number = 0
    for file, split in files.items():
        rows = rejected = 0
        for unit in layout.units(folder, file, split):
            name = f"{number:06d}"
            number += 1
            if f"{name}.0" in images.commits:
                continue
            taken = taker.take(unit)
            commit = images.write(name, 0, taken.images, FAILED_IMAGES.empty_table())
            write_unit(store, commit, taken)
            images.add(commit)
            rows, rejected = rows + taken.rows, rejected + len(taken.rejected)
        if rows:
            say(f"{file.relative_to(folder)}: {rows:,} rows = {rows - rejected:,} kept + {rejected:,} rejected")
    return images
