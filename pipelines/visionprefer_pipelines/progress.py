"""What a person sees while a run goes on: bars on a terminal, plain lines in a file."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from visionprefer.shards import Counts

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Images and replies, done and failed, of those planned."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Bars | None = None
        self._started = self._told = time.monotonic()
        self._done_before = 0
        self._waits = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def say(self, sentence: str) -> None:
        """Tell the person something."""
        self.console.print(f"· {sentence}", highlight=False, markup=False)

    def start(self, images: Counts, replies: Counts, again: int = 0) -> None:
        """Say what is there already and what is to do; `again` failed rows are taken up again."""
        self._started = self._told = time.monotonic()
        self._done_before = images.done + replies.done
        if there := _told((images.done, f"of {images.planned} images"), (replies.done, "replies")):
            self.say(f"{there} are there already")
        if to_go := _told((images.pending, "images"), (replies.pending, "replies")):
            self.say(f"{to_go} to go")
        if again:
            self.say(f"{again} failed {'row is' if again == 1 else 'rows are'} taken up again")

    def update(self, images: Counts, replies: Counts, waits: str = "") -> None:
        """Show how far it has come, and which stages wait for what, if any do."""
        if self.console.is_terminal:
            if waits and waits != self._waits:
                self.say(waits)
            self._waits = waits
            self._bars = self._bars or self._new_bars()
            for task, counts in zip(self._bars.task_ids, (images, replies), strict=True):
                completed = counts.done + counts.failed
                self._bars.update(task, total=counts.planned, completed=completed, failed=counts.failed)
        elif time.monotonic() - self._told > SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            rate = (images.done + replies.done - self._done_before) / (self._told - self._started)
            self.console.print(
                f"images {images.done}/{images.planned} ({images.failed} failed), "
                f"replies {replies.done}/{replies.planned} ({replies.failed} failed), {rate:.1f} rows/s"
                + (f"; {waits}" if waits else ""),
                highlight=False,
            )

    def stop(self) -> None:
        """Take the bars away."""
        if self._bars:
            self._bars.stop()
            self._bars = None

    def _new_bars(self) -> Bars:
        bars = Bars(
            TextColumn("{task.description:<7}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]} failed"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        for name in ("images", "replies"):
            bars.add_task(name, total=None, failed=0)
        bars.start()
        return bars


def _told(*counts: tuple[int, str]) -> str:
    return " and ".join(f"{n} {what}" for n, what in counts if n > 0)
