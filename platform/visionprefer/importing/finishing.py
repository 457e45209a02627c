"""The tables of an import, from what each unit of rows left, and the manifest that makes them a finished run."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from visionprefer.errors import InputError
from visionprefer.importing.taking import Taken
from visionprefer.judging.preferences import in_order
from visionprefer.plan import plan_of, write_plan
from visionprefer.recipe import Recipe
from visionprefer.schema import (
    ASPECTS,
    IMAGES,
    JUDGEMENTS,
    PLAN,
    PREFERENCES,
    PROMPTS,
    REJECTED_PROMPTS,
    content_id,
)
from visionprefer.shards import Commit, Shards
from visionprefer.store import FORMAT, Store
from visionprefer.training_table import write_training

WORK = "importing"  # folder of an import that is not finished
REJECTED_ROWS = pa.schema(
    [
        ("file", pa.string()),  # as seen from the dataset's folder
        ("row", pa.int64()),  # of the file, from 0
        ("reason", pa.string()),
    ]
)
_TABLES = {"preferences": PREFERENCES, "judgements": JUDGEMENTS, "rejected": REJECTED_ROWS}


def write_unit(store: Store, commit: Commit, taken: Taken) -> None:
    """Note what a unit left beside its shard of images; with that it is committed."""
    left = {name: getattr(taken, name) for name in _TABLES}
    noted = {"commit": commit, "rows": taken.rows, **left}
    store.write(f"{WORK}/{commit.unit}.json", json.dumps(noted, allow_nan=False).encode())


def units_done(store: Store) -> list[Commit]:
    """The units that are committed, and whose images are there as they were written."""
    sizes = store.sizes("images")
    commits = [Commit(*noted["commit"]) for noted in _noted(store)]
    return [commit for commit in commits if sizes.get(f"{commit.shard}.parquet") == commit.size]


def clear_work(store: Store) -> None:
    """Delete what only an unfinished import needs."""
    for name in store.sizes(WORK):
        store.delete(f"{WORK}/{name}")
    with suppress(OSError):  # in a bucket there is no folder to remove
        Path(store.root, WORK).rmdir()


def finish(
    store: Store, title: str, layout: str, source: str, images: Shards, made_from: dict[str, Any]
) -> dict[str, int]:
    """Write the tables and, last, the manifest.

    Args:
        store: of the import.
        title: of the dataset.
        layout: its name among the layouts, and of the run.
        source: as it was given.
        images: all shards.
        made_from: what the import follows from, which the manifest keeps.

    Returns:
        The counts of `folder.Imported`.

    Raises:
        InputError: if no row was kept.
    """
    judgements, pairs, rejected, rows = _tables(store)
    plan = _plan(images)
    if not plan.num_rows:
        raise _nothing_fits(source, rejected)
    prompts = _prompts(plan)
    store.write_table("prompts.parquet", prompts)
    store.write_table("rejected_prompts.parquet", REJECTED_PROMPTS.empty_table())
    planned = write_plan(store, plan_of(plan)) | {"made_from": {"import": made_from}}
    pairs = in_order(pairs, prompts["prompt_id"])
    tables = {"judgements": judgements, "preferences": pairs, "rejected_rows": rejected}
    files = {f"{name}.parquet": store.write_table(f"{name}.parquet", table)[0] for name, table in tables.items()}
    commits = [list(images.commits[name]) for name in sorted(images.commits)]
    digest = content_id("imported", made_from, commits)
    derived = {"digest": digest, "files": files, "training": write_training(store, images, digest)}
    counts = {
        "kept": rows - rejected.num_rows,
        "rejected": rejected.num_rows,
        "prompts": prompts.num_rows,
        "images": plan.num_rows,
        "pairs": pairs.num_rows,
        "ties": pc.sum(pc.equal(pairs["label"], 0.5), min_count=0).as_py(),
    }
    told = {"plan": planned, "shards": {"images": commits}, "derived": derived}
    told |= {"import": {"made_from": made_from, "counts": counts}}
    rated = judgements["scorer"].unique().to_pylist()
    store.write_manifest(_manifest(title, layout, source, rated, prompts.num_rows) | told)
    return counts


def _manifest(title: str, layout: str, source: str, rated: list[str], prompts: int) -> dict[str, Any]:
    """What a manifest says of any run: here, images that exist already, which the publisher's people judged."""
    annotators, judge = f"annotators of {title}", content_id("annotators", layout)
    weighed = [aspect for aspect in ASPECTS if aspect in rated] or list(ASPECTS)
    recipe = {
        "name": layout,
        "images": {"existing": source},
        "judge": {"model": annotators},
        "preferences": {"weights": dict.fromkeys(weighed, 1 / len(weighed))},
    }
    return {
        "format": FORMAT,
        "name": layout,
        "recipe": Recipe.model_validate(recipe).model_dump(mode="json"),
        "judge": judge[:12],
        "judges": {judge[:12]: {"model": annotators, "digest": judge}},
        "models": [],
        "prompts": {"kept": prompts, "rejected": 0, "not_sampled": 0},
        "requests": 0,
    }


def _nothing_fits(source: str, rejected: pa.Table) -> InputError:
    if not rejected.num_rows:
        return InputError(f"{source}: its files hold no row. Write the folder of a dataset that has some")
    first = "{file}#{row}: {reason}".format(**rejected.slice(0, 1).to_pylist()[0])
    return InputError(
        f"{source}: none of {rejected.num_rows:,} rows fits. The first, {first} Mend it, and write another --out"
    )


def _noted(store: Store) -> Iterator[dict[str, Any]]:
    for name in store.sizes(WORK):
        if name.removesuffix(".json").isdigit():
            yield json.loads(store.read(f"{WORK}/{name}"))


def _tables(store: Store) -> tuple[pa.Table, pa.Table, pa.Table, int]:
    """Judgements, preferences with those of a prompt side by side, rejected rows, and how many rows were read."""
    parts: dict[str, list[pa.Table]] = {name: [schema.empty_table()] for name, schema in _TABLES.items()}
    rows = 0
    for noted in _noted(store):
        rows += noted["rows"]
        for name, schema in _TABLES.items():
            parts[name].append(pa.Table.from_pylist(noted[name], schema=schema))
    pairs = pa.concat_tables(parts["preferences"]).sort_by([("prompt_id", "ascending"), ("aspect", "ascending")])
    return pa.concat_tables(parts["judgements"]), pairs, pa.concat_tables(parts["rejected"]), rows


def _plan(images: Shards) -> pa.Table:
    """The images as a plan: a block for each unit that has some."""
    parts = [PLAN.empty_table()]
    for block, table in enumerate(images.tables([name for name in PLAN.names if name in IMAGES.names])):
        blocks = pa.array([block] * table.num_rows, pa.int32())
        parts.append(table.append_column("block", blocks).select(PLAN.names).replace_schema_metadata(None))
    return pa.concat_tables(parts)


def _prompts(plan: pa.Table) -> pa.Table:
    """PROMPTS in the order of their first images."""
    columns = pa.table({name: plan[name] for name in PROMPTS.names})
    first = columns.append_column("place", pa.array(range(plan.num_rows), pa.int64()))
    places = first.group_by("prompt_id").aggregate([("place", "min")])["place_min"]
    return columns.take(places.combine_chunks().sort()).cast(PROMPTS)
