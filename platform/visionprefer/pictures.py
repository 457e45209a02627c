"""The images of a run by id, a few at a time."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from visionprefer.run_folder import RunFolder
from visionprefer.shards import ROWS_WITH_BYTES


class Pictures:
    """Where each image that is done lies. Ids are held in memory, bytes never.

    Images of neighbouring prompts that were made alike are neighbours on disk: ask for prompts in the order of
    prompts.parquet.
    """

    def __init__(self, run: RunFolder) -> None:
        self._store = run.store
        self._places: dict[str, tuple[str, int]] = {}  # image id → file, row group
        for shard in run.images.commits:
            file = f"images/{shard}.parquet"
            for row, image_id in enumerate(run.store.read_table(file, ["image_id"])["image_id"].to_pylist()):
                self._places[image_id] = (file, row // ROWS_WITH_BYTES)

    def rows(self, image_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Rows of IMAGES as they lie on disk; ids of images that are not done are left out."""
        wanted = defaultdict(list)
        for image_id in image_ids:
            if image_id in self._places:
                wanted[self._places[image_id]].append(image_id)
        for place, ids in wanted.items():
            group = self._store.read_row_group(*place)
            yield from group.filter(pc.is_in(group["image_id"], pa.array(ids))).to_pylist()
