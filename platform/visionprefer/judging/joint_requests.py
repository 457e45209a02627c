"""Which images joint mode shows together, and in which order: planned as `requests/*.parquet` once they are there.

Units of work are a few prompts each. A unit's name holds a digest of its requests: when a failed image was made after
all, what its prompt's images were judged without it no longer counts, and they are judged anew.
"""

import pyarrow as pa
import pyarrow.compute as pc

from visionprefer.schema import content_id, uniform
from visionprefer.shards import Shards
from visionprefer.store import Store

PROMPTS_PER_UNIT = 8
UNITS_PER_FILE = 64
REQUESTED = pa.schema(
    [
        ("unit", pa.string()),
        ("prompt_id", pa.string()),
        ("repeat", pa.int32()),  # 0, or 1 where the images are shown once more in reverse order
        ("image_id", pa.string()),  # rows of one request stand side by side, in the order shown
        ("shard", pa.string()),  # of the image
    ]
)


def plan_requests(plan: pa.Table, images: Shards, swapped: float) -> pa.Table:
    """Plan requests about the images that are done.

    The order of a prompt's images is drawn by hash of their ids, so that no model and no candidate stands always first.

    Args:
        plan: of PLAN image_id and prompt_id.
        images: as far as they are made.
        swapped: share of the prompts, drawn by hash, whose images are shown in reverse order too.

    Returns:
        REQUESTED.
    """
    shard_of = {
        image: commit.shard
        for commit in images.commits.values()
        if commit.done
        for image in images.store.read_table(f"images/{commit.shard}.parquet", ["image_id"])["image_id"].to_pylist()
    }
    by_prompt: dict[str, list[str]] = {}
    for image, prompt in zip(plan["image_id"].to_pylist(), plan["prompt_id"].to_pylist(), strict=True):
        by_prompt.setdefault(prompt, []).extend([image] if image in shard_of else [])
    prompts, tables = sorted(by_prompt), [REQUESTED.empty_table()]
    for number, start in enumerate(range(0, len(prompts), PROMPTS_PER_UNIT)):
        asked = [
            (prompt, repeat, image)
            for prompt in prompts[start : start + PROMPTS_PER_UNIT]
            for repeat, order in enumerate(_orders(prompt, by_prompt[prompt], swapped))
            for image in order
        ]
        unit = f"{number:06d}-{content_id('unit', asked)[:8]}"
        rows = [(unit, *one, shard_of[one[-1]]) for one in asked]
        tables.append(pa.Table.from_pylist([dict(zip(REQUESTED.names, row, strict=True)) for row in rows], REQUESTED))
    return pa.concat_tables(tables)


def sizes(requests: pa.Table) -> dict[str, int]:
    """How many requests each unit has."""
    rows = requests.group_by(["unit", "prompt_id", "repeat"]).aggregate([])
    counts = rows.group_by("unit").aggregate([("prompt_id", "count")]).sort_by("unit")
    return dict(zip(counts["unit"].to_pylist(), counts["prompt_id_count"].to_pylist(), strict=True))


def write_requests(store: Store, requests: pa.Table) -> None:
    """Write requests as `requests/*.parquet`, over any that are there."""
    for name in store.sizes("requests"):
        store.delete(f"requests/{name}")
    names = pa.array([_file(unit) for unit in requests["unit"].to_pylist()], pa.string())
    for name in names.unique().to_pylist():
        store.write_table(name, requests.filter(pc.equal(names, name)))


def read_images(store: Store, unit: str, columns: list[str]) -> pa.Table:
    """The images of a unit's requests in the order shown, with the column repeat beside those that are named."""
    requests = store.read_table(_file(unit))
    requests = requests.filter(pc.equal(requests["unit"], unit))
    found = []
    for shard in requests["shard"].unique().to_pylist():
        images = store.read_shard(f"images/{shard}.parquet", columns)
        found.append(images.filter(pc.is_in(images["image_id"], requests["image_id"].combine_chunks())))
    images = pa.concat_tables(found)
    shown = images.take(pc.index_in(requests["image_id"], images["image_id"].combine_chunks()))
    return shown.append_column("repeat", requests["repeat"])


def _file(unit: str) -> str:
    return f"requests/{int(unit.split('-')[0]) // UNITS_PER_FILE:05d}.parquet"


def _orders(prompt: str, images: list[str], swapped: float) -> list[list[str]]:
    if not images:
        return []
    shown = sorted(images, key=lambda image: uniform("shown", image))
    again = len(shown) > 1 and uniform("swapped", prompt) < swapped
    return [shown, shown[::-1]] if again else [shown]
