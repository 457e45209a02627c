"""The oracle's word on every image of a run, as a table to measure by: nothing that trains or selects reads it."""

import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
from PIL import Image

from visionprefer.errors import missing_extra
from visionprefer.schema import ASPECTS, ORACLE


def oracle_table(images: Iterable[pa.Table]) -> pa.Table:
    """Ask the oracle about all images, on all cores: some 15 ms each.

    Columns in: of IMAGES image_id, prompt_id, prompt and image. Columns out: ORACLE.

    Raises:
        InputError: if a package is missing that the oracle needs.
    """
    with ThreadPoolExecutor() as threads:
        parts = [pa.Table.from_pylist(list(threads.map(_row, part.to_pylist())), schema=ORACLE) for part in images]
    return pa.concat_tables([ORACLE.empty_table(), *parts])


def _row(image: dict[str, Any]) -> dict[str, Any]:
    try:
        from visionprefer.blocksworld.oracle import assess
    except ImportError as error:
        raise missing_extra(error.name or "scikit-image", "local") from error

    row = {"image_id": image["image_id"], "prompt_id": image["prompt_id"], "applicable": False}
    try:
        with Image.open(io.BytesIO(image["image"]["bytes"])) as picture:
            found = assess(picture, image["prompt"])
    except (OSError, Image.DecompressionBombError):
        return row
    if found is None:
        return row
    faults = [fact.sentence for fact in found.facts if not fact.holds]
    return {
        **row,
        "applicable": True,
        "fully_right": found.fully_right,
        "facts": len(found.facts),
        "facts_held": len(found.facts) - len(faults),
        **{aspect: getattr(found, aspect) for aspect in ASPECTS},
        "faults": faults,
    }
