"""The oracle's word on every image of a run, as a table to measure by: nothing that trains or selects reads it."""

import io
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import pyarrow as pa
from PIL import Image

from visionprefer.errors import missing_extra
from visionprefer.schema import ASPECTS, ORACLE

_FEW = 100  # images that are asked about here: starting processes for them takes longer than it saves


def oracle_table(images: Iterable[pa.Table]) -> pa.Table:
    """Ask the oracle about all images: some 20 ms each, on all cores where they are many.

    Columns in: of IMAGES image_id, prompt_id, prompt and image. Columns out: ORACLE.

    Raises:
        InputError: if a package is missing that the oracle needs.
    """
    _assess()  # told here, not by a process
    # Processes, as threads wait for the interpreter: with two of them it took twice as long as with one.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        asked, parts = 0, [ORACLE.empty_table()]
        for part in images:
            ask = map if asked < _FEW else partial(processes.map, chunksize=8)
            parts.append(pa.Table.from_pylist(list(ask(_row, part.to_pylist())), schema=ORACLE))
            asked += part.num_rows
    return pa.concat_tables(parts)


def _assess() -> Any:
    try:
        from visionprefer.blocksworld.oracle import assess
    except ImportError as error:
        raise missing_extra(error.name or "scikit-image", "local") from error
    return assess


def _row(image: dict[str, Any]) -> dict[str, Any]:
    assess = _assess()
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
