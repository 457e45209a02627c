"""What became of a run that was attacked: nothing lost, nothing twice, and the bytes of an undisturbed run."""

import hashlib
import threading
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple, Self

from visionprefer.run_folder import RunFolder
from visionprefer.shards import Shards
from visionprefer.store import Store

LOOK = 0.05  # seconds between two looks at what is written


class Outcome(NamedTuple):
    """Of one round.

    Attributes:
        lost: rows that were planned, and are neither done nor failed.
        duplicated: rows that are there once more.
        wrong: images and scores that are not what an undisturbed run made, also because they failed, or answers other
            than the model's.
        redone: rows that were written already, and were made again.
        seconds: that the round took longer than an undisturbed run.
    """

    lost: int
    duplicated: int
    wrong: int
    redone: int
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether it is as if nothing had happened."""
        return not (self.lost or self.duplicated or self.wrong)

    def __str__(self) -> str:
        counted = ", ".join(f"{name} {getattr(self, name)}" for name in self._fields[:-1])
        return f"{counted}, {self.seconds:+.0f} s"


class Writes:
    """Watches which files a run writes, and which it writes again, for as long as the block lasts."""

    def __init__(self, out: Path, patterns: tuple[str, ...]) -> None:
        self.out, self.patterns = out, patterns
        self.seen: dict[Path, set[tuple[int, int]]] = defaultdict(set)
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watcher.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK):
            self._look()

    def _look(self) -> None:
        for pattern in self.patterns:
            for file in self.out.glob(pattern):
                try:
                    found = file.stat()
                except FileNotFoundError:
                    continue
                self.seen[file].add((found.st_ino, found.st_mtime_ns))

    def twice(self) -> int:
        """Rows of files that were written again, as often as they were."""
        store = Store(self.out)
        again = {str(file.relative_to(self.out)): len(times) - 1 for file, times in self.seen.items()}
        return sum(times * store.footer(name)[0] for name, times in again.items() if times)


def compared(out: Path, model: Path, redone: int, seconds: float) -> Outcome:
    """Compare a run that has ended with one that nobody disturbed."""
    run, expected = RunFolder(Store(out)), RunFolder(Store(model))
    planned = Counter(expected.plan(["image_id"])["image_id"].to_pylist())
    tables = [Counter(_ids(shards)) for shards in (run.images, run.replies)]
    ours, theirs = pictures(run), pictures(expected)
    wrong = [image_id for image_id in theirs if ours.get(image_id) != theirs[image_id]]
    scored, known = scores(run), scores(expected)
    wrong += [image_id for image_id, scorer in known if scored.get((image_id, scorer)) != known[image_id, scorer]]
    return Outcome(
        lost=sum((planned - found).total() for found in tables) + (not run.is_finished),
        duplicated=sum((found - planned).total() for found in tables),
        wrong=len(wrong) + sum(_misdescribed(shards) for shards in (run.images, run.replies)),
        redone=redone,
        seconds=seconds,
    )


def _ids(shards: Shards) -> list[str]:
    """The image of each row, done or failed."""
    name = "image_id" if shards.folder == "images" else "image_ids"
    failed = shards.failed()
    rows = shards.table([name])[name].to_pylist() + (failed[name].to_pylist() if failed else [])
    return [row if isinstance(row, str) else row[0] for row in rows]


def pictures(run: RunFolder) -> dict[str, bytes]:
    """The bytes of each image."""
    return {row["image_id"]: row["image"]["bytes"] for row in run.images.table(["image_id", "image"]).to_pylist()}


def scores(run: RunFolder) -> dict[tuple[str, str], float]:
    """What the judge gave to each image, by aspect; nothing if the run has not come so far."""
    rows = run.judgements().select(["image_id", "scorer", "score"]).to_pylist() if run.is_finished else []
    return {(row["image_id"], row["scorer"]): row["score"] for row in rows}


def _misdescribed(shards: Shards) -> int:
    """Rows of shards whose bytes are not those that the manifest describes."""
    read = shards.store.read
    return sum(
        commit.done
        for name, commit in shards.commits.items()
        if hashlib.sha256(read(f"{shards.folder}/{name}.parquet")).hexdigest() != commit.sha256
    )
