"""A run's folder, local or in a bucket: whole files, shards of paid-for rows, and the manifest.

    manifest.json                      what is here and what it was made from; written last
    prompts.parquet, rejected_prompts.parquet
    plan/00000.parquet                 64 blocks a file, a block a row group
    images/000012.0.parquet            block 12, generation 0
    replies/JUDGE/000012.0.0.parquet   the replies about images/000012.0, generation 0
    failed/images/…, failed/replies/…  rows that failed, with their reasons, under the same names
    damaged/…                          shards that could not be read, and were made again
    judgements.parquet, preferences.parquet, training/…, and oracle.parquet where a model is built in

How shards are named, and what becomes of them, says `shards`.
"""

import functools
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from visionprefer.errors import InputError

FORMAT = 1  # of a run's folder
UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}")  # what `Store.write` calls a file until it is whole
SPOOLED = 2**26  # bytes of a file that is being written before it goes from memory to the disk
CHUNK = 2**22  # bytes of such a file that are copied at once
ROWS_AT_ONCE = 4096
ROWS_PER_GROUP = 2**16  # readers decode whole row groups


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

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file, or leave what was there as it was.

        Raises:
            OSError: with the name of the file, if the disk is full or may not be written.
        """
        self._write(name, [data])

    def _write(self, name: str, chunks: Iterable[bytes]) -> None:
        path = f"{self._prefix}/{name}"
        if not self._local:
            whole = b"".join(chunks)  # first, as what is there of a stream that ends early counts as the file
            with self._files.open_output_stream(path) as stream:
                stream.write(whole)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with unfinished.open("wb") as file:
                file.writelines(chunks)
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

    def write_table(self, name: str, table: pa.Table, rows_per_group: int = ROWS_PER_GROUP) -> tuple[str, int]:
        """Write a table as one Parquet file. Returns the SHA-256 of the file in hex, and its size in bytes."""
        return self.write_tables(name, table.schema, [table], rows_per_group)

    def write_tables(
        self, name: str, schema: pa.Schema, tables: Iterable[pa.Table], rows_per_group: int | None = None
    ) -> tuple[str, int]:
        """Write tables one after the other as one Parquet file; see `write_table`.

        Of the tables one is in memory at a time, and of the file SPOOLED bytes, or all of it where it goes to a bucket.
        Without `rows_per_group` each table is a row group.
        """
        if self._local:
            Path(self._prefix).mkdir(parents=True, exist_ok=True)
        with SpooledTemporaryFile(SPOOLED, dir=self._prefix if self._local else None) as spool:
            with pq.ParquetWriter(spool, schema, compression="zstd", write_page_checksum=True) as writer:
                for table in tables:
                    writer.write_table(table, row_group_size=rows_per_group or max(1, table.num_rows))
            size = spool.tell()
            spool.seek(0)
            digest = hashlib.file_digest(spool, "sha256").hexdigest()
            spool.seek(0)
            self._write(name, iter(functools.partial(spool.read, CHUNK), b""))
        return digest, size

    def read_table(self, name: str, columns: list[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """Read a Parquet file, or its rows of which something holds; `row_groups` reads those with 2 GiB of images.

        Without a condition the checksums of its pages are looked at.

        Raises:
            FileNotFoundError: if it is not there.
            InputError: if it is damaged, or lacks a column.
        """
        path, checked = f"{self._prefix}/{name}", {"pre_buffer": True, "page_checksum_verification": True}
        with self._readable(name):
            if where is not None:
                return pq.read_table(path, filesystem=self._files, columns=columns, partitioning=None, filters=where)
            # A fourth of the time of pq.read_table, where a run of many shards is read.
            with pq.ParquetFile(path, filesystem=self._files, **checked) as file:
                table = file.read(columns, use_threads=file.metadata.num_rows > ROWS_AT_ONCE)
            return table if columns is None else table.select(columns)

    def read_shard(self, name: str, columns: list[str]) -> pa.Table:
        """Read a Parquet file that can be made again: one that is damaged is set aside.

        Raises:
            FileNotFoundError: if it is not there.
            OSError: if it cannot be reached.
            InputError: if it is damaged, as the checksums of its pages tell.
        """
        data = self.read(name)
        try:
            return pq.read_table(pa.BufferReader(data), columns=columns, page_checksum_verification=True)
        except (pa.ArrowInvalid, OSError) as error:
            self.set_aside(name)
            told = f"--out {self.root}: {name} changed after it was written. Run again: it is made again"
            raise InputError(told) from error

    def batches(self, name: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """A Parquet file some rows at a time. Raises as `read_table` does."""
        with self._readable(name), pq.ParquetFile(f"{self._prefix}/{name}", filesystem=self._files) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
                yield batch.select(columns)

    def row_groups(self, name: str) -> Iterator[pa.Table]:
        """A Parquet file a row group at a time. Raises as `read_table` does."""
        with self._readable(name), pq.ParquetFile(f"{self._prefix}/{name}", filesystem=self._files) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group)

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
        except (pa.ArrowInvalid, OSError, KeyError) as error:  # KeyError: it lacks a column
            told = "Delete it and run again: what it held is made again"
            reason = " ".join(str(error).split())
            raise InputError(f"{self.root}/{name} is damaged ({reason}). {told}") from error

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
