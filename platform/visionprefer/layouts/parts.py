"""A Parquet file in parts, so that a dataset of any size is written with the memory of one part."""

import pyarrow as pa

from visionprefer.shards import ROWS_WITH_BYTES
from visionprefer.store import ROWS_PER_GROUP, Store

PART_BYTES = 64 << 20  # of Arrow data; about as many on disk where most of them are images


class Parts:
    """Writes `NAME-00000.parquet`, `NAME-00001.parquet` … as rows come in."""

    def __init__(self, store: Store, name: str, with_bytes: bool = False) -> None:
        self.name = name
        self.files: list[str] = []
        self.rows = 0
        self._store = store
        self._rows_per_group = ROWS_WITH_BYTES if with_bytes else ROWS_PER_GROUP
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0

    def add(self, table: pa.Table) -> None:
        """Add rows. All tables must be of one schema."""
        if not table.num_rows:
            return
        self._waiting.append(table)
        self.rows += table.num_rows
        self._waiting_bytes += table.nbytes
        if self._waiting_bytes >= PART_BYTES:
            self._flush()

    def close(self) -> list[str]:
        """Write what waits. Returns the names of all parts; none if there were no rows."""
        if self._waiting:
            self._flush()
        return self.files

    def _flush(self) -> None:
        file = f"{self.name}-{len(self.files):05d}.parquet"
        self._store.write_table(file, pa.concat_tables(self._waiting), self._rows_per_group)
        self.files.append(file)
        self._waiting, self._waiting_bytes = [], 0
