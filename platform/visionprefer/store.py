"""A run's folder, local or in a bucket: whole files, shards of paid-for rows, and the manifest.

    manifest.json                      what is here and what it was made from; written last
    prompts.parquet, rejected_prompts.parquet
    plan/00000.parquet                 64 blocks a file, a block a row group
    images/000012.0.parquet            block 12, generation 0
    replies/JUDGE/000012.0.0.parquet   the replies about images/000012.0, generation 0
    failed/images/…, failed/replies/…  rows that failed, with their reasons, under the same names
    damaged/…                          shards that could not be read, and were made again
    judgements.parquet, preferences.parquet, training/…, and oracle.parquet where a model is built in

A shard is named after its unit of work and its generation. Rows that failed are taken up again in the next generation,
whose shard supersedes them; rows that are done are never made again. The file of failed rows is written before the file
of done rows, whose existence means that the unit is committed, and which says how many failed.
"""

import hashlib
import json
import os
import re
import uuid
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from visionprefer.errors import InputError

FORMAT = 1  # of a run's folder
FAILED = b"failed"  # in a shard's metadata: how many rows of the unit failed
UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}")  # what `Store.write` calls a file until it is whole
SHARD = re.compile(r"(.+)\.(\d+)\.parquet")  # unit, generation
ROWS_WITH_BYTES = 16  # rows a row group where rows hold images: readers fetch few bytes to show one


class Store:
    """Whole files under one root: a local folder, or `s3://bucket/prefix`, `gs://bucket/prefix`.

    Nobody ever sees half a file: locally a file is renamed into place, object stores do the like by themselves.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root) if "://" in str(root) else str(Path(root).expanduser().resolve())
        try:
            self._files, self._prefix = fs.FileSystem.from_uri(self.root)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(
                f"{root}: no place that can be opened: {error}. Write a folder, s3://… or gs://…"
            ) from error
        self._local = isinstance(self._files, fs.LocalFileSystem)

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return Store, (self.root,)

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        """Write a whole file, or leave what was there as it was.

        Raises:
            OSError: with the name of the file, if the disk is full or may not be written.
        """
        path = f"{self._prefix}/{name}"
        if not self._local:
            with self._files.open_output_stream(path) as stream:
                stream.write(data)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with unfinished.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(target)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def remove_unfinished(self) -> None:
        """Remove what writers that were killed left behind; to be called while nobody writes."""
        if self._local:
            for file in Path(self._prefix).rglob(".*"):
                if UNFINISHED.fullmatch(file.name):
                    file.unlink(missing_ok=True)

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises FileNotFoundError."""
        with self._files.open_input_file(f"{self._prefix}/{name}") as file:
            return file.read()

    def exists(self, name: str) -> bool:
        """Whether there is a file or folder of this name."""
        return self._files.get_file_info(f"{self._prefix}/{name}").type != fs.FileType.NotFound

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of each finished file directly in a folder, by name, sorted; empty if there is no such folder."""
        selector = fs.FileSelector(f"{self._prefix}/{folder}", allow_not_found=True)
        found = {info.base_name: info.size for info in self._files.get_file_info(selector) if info.is_file}
        return {name: found[name] for name in sorted(found) if not name.startswith(".")}

    def names(self, folder: str) -> list[str]:
        """Files and folders directly in a folder, but hidden ones, sorted."""
        path = f"{self._prefix}/{folder}".rstrip("/")
        # Some buckets have no folders of their own, but those in the names of their files.
        selector = fs.FileSelector(path, allow_not_found=True, recursive=not self._local)
        names = {info.path[len(path) :].strip("/").partition("/")[0] for info in self._files.get_file_info(selector)}
        return sorted(name for name in names if not name.startswith("."))

    def delete(self, name: str) -> None:
        """Remove a file that is there."""
        self._files.delete_file(f"{self._prefix}/{name}")

    def delete_folder(self, name: str) -> None:
        """Remove a folder, if it is there, and all that is in it."""
        self._files.delete_dir_contents(f"{self._prefix}/{name}", missing_dir_ok=True)
        if self.exists(name):  # in a bucket it went with its contents
            self._files.delete_dir(f"{self._prefix}/{name}")

    def add_folder(self, folder: Path) -> None:
        """Copy all files of a local folder, and those in its folders, to here."""
        fs.copy_files(str(folder), self._prefix, fs.LocalFileSystem(), self._files)

    def set_aside(self, name: str) -> None:
        """Move a file that is there to `damaged/`, where nobody reads it."""
        target = f"{self._prefix}/damaged/{name}"
        self._files.create_dir(target.rpartition("/")[0])
        self._files.move(f"{self._prefix}/{name}", target)

    def write_table(self, name: str, table: pa.Table, rows_per_group: int | None = None) -> tuple[str, int]:
        """Write a table as one Parquet file. Returns the SHA-256 of the file in hex, and its size in bytes."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, row_group_size=rows_per_group, compression="zstd")
        data = sink.getvalue()
        self.write(name, data)
        return hashlib.sha256(data).hexdigest(), data.size

    def write_row_groups(self, name: str, tables: list[pa.Table]) -> None:
        """Write one Parquet file in which each table is a row group."""
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, tables[0].schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table, row_group_size=max(1, table.num_rows))
        self.write(name, sink.getvalue())

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read a Parquet file. Raises FileNotFoundError; InputError if the file is damaged."""
        with self._readable(name):
            return pq.read_table(f"{self._prefix}/{name}", filesystem=self._files, columns=columns, partitioning=None)

    def read_row_group(self, name: str, group: int) -> pa.Table:
        """Read one row group of a Parquet file. Raises FileNotFoundError; InputError if the file is damaged."""
        with self._readable(name), pq.ParquetFile(f"{self._prefix}/{name}", filesystem=self._files) as file:
            return file.read_row_group(group)

    def footer(self, name: str) -> tuple[int, dict[bytes, bytes]]:
        """Rows and metadata of a Parquet file. Raises pa.ArrowInvalid if the file is no whole Parquet file."""
        with pq.ParquetFile(f"{self._prefix}/{name}", filesystem=self._files) as file:
            return int(file.metadata.num_rows), dict(file.metadata.metadata or {})

    @contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (pa.ArrowInvalid, OSError) as error:
            told = "Delete it and run again: what it held is made again"
            raise InputError(f"{self.root}/{name} is damaged ({error}). {told}") from error

    def manifest(self) -> dict[str, Any]:
        """What `manifest.json` says; empty for a new run. Raises InputError if it is none of ours."""
        try:
            manifest = json.loads(self.read("manifest.json"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise InputError(f"{self.root}/manifest.json cannot be read: {error}. Write the folder of a run") from error
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise InputError(f"{self.root}/manifest.json is not a run's, of format {FORMAT}. Write the folder of a run")
        return manifest

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace `manifest.json`."""
        self.write("manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False).encode())


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
