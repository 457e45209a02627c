"""The paid-for tables of a run: shards of rows, each written once.

A shard is named after its unit of work and its generation. Rows that failed are taken up again in the next generation,
whose shard supersedes them; rows that are done are never made again. The file of failed rows is written before the file
of done rows, whose existence means that the unit is committed, and which says how many failed.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import pyarrow as pa

from visionprefer.store import Store

FAILED = b"failed"  # in a shard's metadata: how many rows of the unit failed
SHARD = re.compile(r"(.+)\.(\d+)\.parquet")  # unit, generation
ROWS_WITH_BYTES = 16  # rows a row group where rows hold images: readers fetch few bytes to show one


class Commit(NamedTuple):
    """A unit of work that was written, as the manifest lists it."""

    unit: str
    generation: int
    done: int  # rows
    failed: int
    sha256: str  # of the file of done rows
    size: int  # bytes of that file

    @property
    def shard(self) -> str:
        """Name of the shard, without folder and suffix; the unit of the stage that follows."""
        return f"{self.unit}.{self.generation}"


class Counts(NamedTuple):
    """Where a paid-for table stands: planned = done + failed + pending."""

    done: int
    failed: int
    pending: int

    @property
    def planned(self) -> int:
        """All of them."""
        return sum(self)


class Shards:
    """One paid-for table of a run: its rows done and failed, by unit of work and generation."""

    def __init__(self, store: Store, folder: str, schema: pa.Schema) -> None:
        self.store = store
        self.folder = folder
        self.schema = schema
        self.commits: dict[str, Commit] = {}  # by shard

    def write(self, unit: str, generation: int, done: pa.Table, failed: pa.Table) -> Commit:
        """Write the rows of one unit: all of them or, if this is interrupted, none that count."""
        name = f"{unit}.{generation}.parquet"
        if failed.num_rows:
            self.store.write_table(f"failed/{self.folder}/{name}", failed)
        metadata = (done.schema.metadata or {}) | {FAILED: str(failed.num_rows).encode()}
        file = f"{self.folder}/{name}"
        digest, size = self.store.write_table(file, done.replace_schema_metadata(metadata), ROWS_WITH_BYTES)
        return Commit(unit, generation, done.num_rows, failed.num_rows, digest, size)

    def written(self, unit: str, generation: int) -> Commit | None:
        """The commit of a unit that is in the folder; None if it is not there or damaged."""
        name = f"{unit}.{generation}.parquet"
        try:
            done, metadata = self.store.footer(f"{self.folder}/{name}")
            failed = int(metadata[FAILED])
            if failed and not self.store.exists(f"failed/{self.folder}/{name}"):
                return None
            data = self.store.read(f"{self.folder}/{name}")
        except (pa.ArrowInvalid, OSError, KeyError):
            return None
        return Commit(unit, generation, done, failed, hashlib.sha256(data).hexdigest(), len(data))

    def add(self, commit: Commit) -> None:
        """Count a unit that was written."""
        self.commits[commit.shard] = commit

    def recover(self, listed: list[list[Any]], units: Container[str] | None = None) -> list[str]:
        """Count what is in the folder: what the manifest lists, and what was written after the manifest was.

        A shard that is damaged is set aside, and with it the later generations of its unit, which took up what failed
        in it: the unit is done again.

        Args:
            listed: commits, as the manifest lists them.
            units: count the shards of these alone; the others stay where they are.

        Returns:
            The names of the files that were set aside.
        """
        known = {commit.shard: commit for commit in (Commit(*row) for row in listed)}
        failed_files = self.store.sizes(f"failed/{self.folder}")
        aside = []
        self.commits = {}
        shards = [(m[1], int(m[2]), m[0], size) for m, size in self._files()]
        for unit, generation, name, size in sorted(shards):
            if units is not None and unit not in units:
                continue
            commit = known.get(f"{unit}.{generation}")
            if commit is None or commit.size != size or (commit.failed and name not in failed_files):
                commit = self.written(unit, generation)
            if commit is None or (generation and f"{unit}.{generation - 1}" not in self.commits):
                self.store.set_aside(f"{self.folder}/{name}")
                aside.append(f"{self.folder}/{name}")
            else:
                self.add(commit)
        return aside

    def damaged(self) -> list[str]:
        """Names of the files that are gone, or whose bytes are not those that were committed. All of them are read."""
        found = []
        for shard, commit in self.commits.items():
            file = f"{self.folder}/{shard}.parquet"
            with suppress(FileNotFoundError):
                if hashlib.sha256(self.store.read(file)).hexdigest() == commit.sha256:
                    continue
            found.append(file)
        return found

    def rows(self) -> dict[str, int]:
        """Rows of each unit that are done, or failed still."""
        found: Counter[str] = Counter()
        for commit in self.commits.values():
            found[commit.unit] += commit.done
        for commit in self.latest().values():
            found[commit.unit] += commit.failed
        return dict(found)

    def set_aside(self, unit: str) -> list[str]:
        """Set aside all shards of a unit, which is done again. Returns the names of their files."""
        files = {f"{self.folder}/{shard}.parquet" for shard, commit in self.commits.items() if commit.unit == unit}
        for file in files:
            self.store.set_aside(file)
        self.commits = {shard: commit for shard, commit in self.commits.items() if commit.unit != unit}
        return sorted(files)

    def _files(self) -> Iterator[tuple[re.Match[str], int]]:
        for name, size in self.store.sizes(self.folder).items():
            if match := SHARD.fullmatch(name):
                yield match, size

    def latest(self) -> dict[str, Commit]:
        """The newest generation of each unit: the one whose failed rows are failed still."""
        return {commit.unit: commit for commit in sorted(self.commits.values(), key=lambda c: (c.unit, c.generation))}

    def counts(self, planned: int) -> Counts:
        """Rows done, failed and still to do, of those planned."""
        done = sum(commit.done for commit in self.commits.values())
        failed = sum(commit.failed for commit in self.latest().values())
        return Counts(done, failed, planned - done - failed)

    def failed_rows(self, shard: str) -> pa.Table:
        """The rows of one shard's unit that failed."""
        return self.store.read_table(f"failed/{self.folder}/{shard}.parquet")

    def failed(self) -> pa.Table | None:
        """All rows that are failed still; None if there are none."""
        tables = [self.failed_rows(commit.shard) for commit in self.latest().values() if commit.failed]
        return pa.concat_tables(tables) if tables else None

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows that are done, a shard at a time, in the order of the plan."""
        for shard in sorted(self.commits):
            if self.commits[shard].done:
                yield self.store.read_table(f"{self.folder}/{shard}.parquet", columns)

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """The rows that are done, as one table; name the columns where rows hold bytes."""
        names = columns or self.schema.names
        empty = pa.schema([self.schema.field(name) for name in names]).empty_table()
        return pa.concat_tables([empty, *(table.select(names) for table in self.tables(columns))])
