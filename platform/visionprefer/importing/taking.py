"""Rows of a published dataset become rows of ours: images once each, pairs, ratings, and what does not fit."""

import hashlib
from itertools import combinations
from typing import Any, NamedTuple

import pyarrow as pa

from visionprefer.errors import InputError
from visionprefer.imagebytes import LARGEST_FILE, check_image
from visionprefer.importing.comparisons import Candidate, Comparison, Rejected, Unit
from visionprefer.schema import IMAGES, JUDGEMENTS, PREFERENCES, content_id

Row = dict[str, Any]


class Taken(NamedTuple):
    """What became of the rows of a unit: rows = kept + rejected."""

    rows: int
    images: pa.Table  # IMAGES, of those that were not stored before
    preferences: list[Row]  # PREFERENCES
    judgements: list[Row]  # JUDGEMENTS
    rejected: list[Row]  # REJECTED_ROWS


class Taker:
    """Takes units one after the other, and knows which images are stored: an image of a prompt is stored once."""

    def __init__(self, judge: str) -> None:
        self.judge = judge  # who rated and preferred, as tables name them
        self._stored: set[str] = set()
        self._next: dict[str, int] = {}  # candidate number, by prompt

    def remember(self, images: pa.Table) -> None:
        """Count images as stored. Columns in: of IMAGES image_id, prompt_id and candidate."""
        for row in images.to_pylist():
            self._stored.add(row["image_id"])
            self._next[row["prompt_id"]] = max(self._next.get(row["prompt_id"], 0), row["candidate"] + 1)

    def take(self, unit: Unit) -> Taken:
        """Read the rows of a unit, and check the images that they name."""
        rows, images = 0, []
        preferences: list[Row] = []
        judgements: list[Row] = []
        rejected: list[Row] = []
        for item in unit():
            if isinstance(item, Rejected):
                rows += 1
                rejected.append(_rejected(*item))
                continue
            rows += len({image.row for image in item.images})
            about = _prompt(item)
            found, bad = self._images(item, about)
            rejected += [_rejected(item.file, row, reason) for row, reason in bad.items()]
            kept = {place: row for place, row in found.items() if item.images[place].row not in bad}
            images += self._store([row for row in kept.values() if "image" in row])
            ids = {place: row["image_id"] for place, row in kept.items()}
            preferences += _pairs(item, about, ids)
            judgements += _ratings(item, about["prompt_id"], ids, self.judge)
        return Taken(rows, pa.Table.from_pylist(images, schema=IMAGES), preferences, judgements, rejected)

    def _images(self, item: Comparison, about: Row) -> tuple[dict[int, Row], dict[int, str]]:
        """What is known of each image by its place, and why rows are rejected."""
        found: dict[int, Row] = {}
        bad: dict[int, str] = {}
        stands_in: dict[str, int] = {}  # row, by image id
        for place, image in enumerate(item.images):
            try:
                row = self._image(image, about)
                if (other := stands_in.setdefault(row["image_id"], image.row)) != image.row:
                    raise InputError(f"The same image as in row {other}.")
                if any(row["image_id"] == earlier["image_id"] for earlier in found.values()):
                    raise InputError("It compares an image with itself.")
                found[place] = row
            except InputError as error:
                bad.setdefault(image.row, str(error))
        return found, bad

    def _image(self, image: Candidate, about: Row) -> Row:
        """A row of IMAGES, but for the candidate number; the id alone if it is stored. Raises InputError."""
        if image.uid is not None and (known := content_id("imported", about["prompt_id"], image.uid)) in self._stored:
            return {"image_id": known}
        data = image.read()
        if len(data) > LARGEST_FILE:
            raise InputError(f"The image is too large: at most {LARGEST_FILE // 2**20} MiB are taken.")
        identity = hashlib.sha256(data).hexdigest() if image.uid is None else image.uid
        image_id = content_id("imported", about["prompt_id"], identity)
        if image_id in self._stored:
            return {"image_id": image_id}
        try:
            width, height, suffix = check_image(data)
        except InputError as error:
            raise InputError(f"The image cannot be used: {error}.") from error
        made = {"image_id": image_id, "model": image.model, "source": image.source, "width": width, "height": height}
        return dict.fromkeys(IMAGES.names) | about | made | {"image": {"bytes": data, "path": image_id + suffix}}

    def _store(self, rows: list[Row]) -> list[Row]:
        for row in rows:
            row["candidate"] = self._next.get(row["prompt_id"], 0)
            self._next[row["prompt_id"]] = row["candidate"] + 1
            self._stored.add(row["image_id"])
        return rows


def _rejected(file: str, row: int, reason: str) -> Row:
    """A row of REJECTED_ROWS. What JSON names may hold halves of surrogate pairs, which tables cannot."""
    return {"file": file, "row": row, "reason": reason.encode(errors="backslashreplace").decode()}


def _prompt(item: Comparison) -> Row:
    """A text that was published in both splits is two prompts: training must not see the one that is held out."""
    split = "train" if item.split == "train" else "held_out"
    return {"prompt_id": content_id("prompt", split, item.prompt), "prompt": item.prompt, "split": split}


def _pairs(item: Comparison, about: Row, ids: dict[int, str]) -> list[Row]:
    """Each image with each later one, by every aspect."""
    pairs = []
    for aspect, scores in item.scores.items():
        for one, other in combinations(ids, 2):
            margin = scores[one] - scores[other]
            compared = {"image_id_0": ids[one], "image_id_1": ids[other], "aspect": aspect}
            scored = {"score_0": scores[one], "score_1": scores[other], "margin": abs(margin)}
            label = 0.5 if margin == 0 else float(margin > 0)
            pairs.append(dict.fromkeys(PREFERENCES.names) | about | compared | scored | {"label": label})
    return pairs


def _ratings(item: Comparison, prompt_id: str, ids: dict[int, str], judge: str) -> list[Row]:
    known = {"prompt_id": prompt_id, "judge": judge, "repeat": 0, "position": 0}
    return [
        dict.fromkeys(JUDGEMENTS.names) | known | {"image_id": image_id, "scorer": scorer, "score": scores[place]}
        for scorer, scores in item.ratings.items()
        for place, image_id in ids.items()
    ]
