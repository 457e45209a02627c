"""Row groups of a table, streamed by Ray Data to a training's worker in the order of its steps."""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import TaskPoolStrategy

from visionprefer.settings import Workers
from visionprefer.training_table import Group
from visionprefer_pipelines.resting import stream_context

READERS = Workers(actors=1)  # what a cluster needs beside the training's workers, or they would wait for ever
MOST_READERS = 4  # tasks of a worker at a time: each is a process, and more would take cores from who computes
_PLACES = pa.schema([("part", pa.int64()), ("file", pa.string()), ("group", pa.int64())])


def stream(parts: Sequence[Sequence[Group]], read: Callable[[list[Group]], pa.Table]) -> Iterator[pa.Table]:
    """The rows of each part that has any, in order, read by tasks while earlier parts are learnt.

    Args:
        parts: the row groups of each.
        read: some row groups of a part as rows; runs in a task.
    """
    if not parts:  # more workers than groups
        return
    stream_context().execution_options.preserve_order = True
    blocks = [
        pa.Table.from_pylist([{"part": number, **group._asdict()} for group in groups], _PLACES)
        for number, groups in enumerate(parts)
    ]

    def rows_of(block: pa.Table) -> pa.Table:
        found = read([Group(row["file"], row["group"]) for row in block.to_pylist()])
        return found.append_column("part", pa.array([block["part"][0].as_py()] * found.num_rows, pa.int64()))

    held: list[pa.Table] = []
    rows = ray.data.from_blocks(blocks).map_batches(
        rows_of, batch_format="pyarrow", batch_size=None, compute=TaskPoolStrategy(size=MOST_READERS)
    )
    for block in rows.iter_batches(batch_format="pyarrow", batch_size=None):
        found = cast(pa.Table, block)
        for part in pc.unique(found["part"]).to_pylist():
            if held and held[0]["part"][0].as_py() != part:
                yield _joined(held)
                held = []
            held.append(found.filter(pc.field("part") == part))
    if held:
        yield _joined(held)


def _joined(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).drop_columns("part")
