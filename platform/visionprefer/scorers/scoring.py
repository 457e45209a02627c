"""A scorer's word on all images of a run, written as judgements into scores/NAME.parquet."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from visionprefer.errors import InputError
from visionprefer.imagebytes import open_image
from visionprefer.run_folder import RunFolder
from visionprefer.schema import JUDGEMENTS
from visionprefer.store import Store

FOLDER = "scores"
SCORES = pa.schema([*JUDGEMENTS, ("error", pa.string())])  # why there is no score; null where there is one
DIGEST = b"scorer_digest"  # in a file's metadata
AT_ONCE = 64  # images decoded together
PAUSE = 60.0  # seconds of work, or those of one batch, that a crash may cost


class Scorer(Protocol):
    """Gives each image a number for its prompt."""

    name: str  # the scorer in judgements
    judge: str  # the model, for people
    digest: str  # changes whenever a score could

    def score(self, prompts: Sequence[str], images: Sequence[Image.Image]) -> list[float]:
        """Score each image for the prompt at the same place, the higher the better; NaN where there is no score."""
        ...


class Written(NamedTuple):
    """How many images have a row. Images of the run = done + failed."""

    done: int
    failed: int
    before: int  # those of them that had a row already


def file_of(name: str) -> str:
    """Where the rows of a scorer lie in a run's folder."""
    return f"{FOLDER}/{name}.parquet"


def write_scores(run: RunFolder, scorer: Scorer, tell: Callable[[int, int], None] | None = None) -> Written:
    """Score the images of a run that have no row of this very scorer yet; a file of another digest is replaced.

    Rows so far are written every minute, so that a run that is interrupted goes on from there.

    Columns in: of IMAGES image_id, prompt_id, prompt and image. Columns out: SCORES, a row for each image that is done.
    An image that cannot be decoded, or gets no number, has no score and an error, and keeps it until the file is
    deleted.

    Args:
        run: with images.
        scorer: that scores them.
        tell: called with the number of images that have a row, and that of all.

    Raises:
        InputError: if the run has no image, or the file that is there is damaged.
    """
    ids = run.images.table(["image_id"])["image_id"]
    if not len(ids):
        raise InputError(f"{run.store.root}: there is no image to score. Write the folder of a run that has some")
    scored = _before(run.store, scorer)
    scored = scored.filter(pc.is_in(scored["image_id"], ids))
    before, written = scored.num_rows, time.monotonic()
    for rows in _scored(run, scorer, set(scored["image_id"].to_pylist())):
        scored = pa.concat_tables([scored, rows])
        if tell:
            tell(scored.num_rows, len(ids))
        if time.monotonic() - written > PAUSE:
            _write(run.store, scorer, scored)
            written = time.monotonic()
    if scored.num_rows > before:
        _write(run.store, scorer, scored)
    failed = scored["score"].null_count
    return Written(scored.num_rows - failed, failed, before)


def _before(store: Store, scorer: Scorer) -> pa.Table:
    name = file_of(scorer.name)
    if not store.exists(name):
        return SCORES.empty_table()
    table = store.read_table(name)
    same = (table.schema.metadata or {}).get(DIGEST) == scorer.digest.encode()
    return table.replace_schema_metadata(None) if same else SCORES.empty_table()


def _write(store: Store, scorer: Scorer, scored: pa.Table) -> None:
    store.write_table(file_of(scorer.name), scored.replace_schema_metadata({DIGEST: scorer.digest.encode()}))


def _scored(run: RunFolder, scorer: Scorer, known: set[str]) -> Iterator[pa.Table]:
    for shard in run.images.tables(["image_id", "prompt_id", "prompt", "image"]):
        new = shard.filter(pc.invert(pc.is_in(shard["image_id"], pa.array(known, pa.string()))))
        for start in range(0, new.num_rows, AT_ONCE):
            yield pa.Table.from_pylist(_rows(new.slice(start, AT_ONCE).to_pylist(), scorer), schema=SCORES)


def _rows(rows: list[dict[str, Any]], scorer: Scorer) -> list[dict[str, Any]]:
    pictures: dict[int, Image.Image] = {}
    errors: dict[int, str] = {}
    for place, row in enumerate(rows):
        try:
            pictures[place] = open_image(row["image"]["bytes"])
        except InputError as error:
            errors[place] = str(error)
    given = scorer.score([rows[place]["prompt"] for place in pictures], list(pictures.values())) if pictures else []
    scores = dict(zip(pictures, given, strict=True))
    errors |= {place: f"the scorer gave {score}" for place, score in scores.items() if not math.isfinite(score)}
    about = {"scorer": scorer.name, "judge": scorer.judge, "repeat": 0, "position": 0}
    return [
        {
            "image_id": row["image_id"],
            "prompt_id": row["prompt_id"],
            "score": None if place in errors else scores[place],
            "error": errors.get(place),
            **about,
        }
        for place, row in enumerate(rows)
    ]
