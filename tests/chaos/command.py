"""A command under attack: its processes, and how it is given again until it ends well."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

MOST_TIMES = 4  # that a command is given
LONGEST = 900.0  # seconds that it may take; then it hangs


class Command:
    """A command of `visionprefer`, started; see `command`."""

    def __init__(self, words: list[str], log: Path) -> None:
        self.words, self.log = words, log
        self.times = 0
        self.began = time.monotonic()
        self.again()

    def again(self) -> None:
        """Give the command, once more."""
        self.times += 1
        whole = [sys.executable, "-m", "visionprefer_pipelines.cli", *self.words]
        with self.log.open("ab") as log:
            self.process = psutil.Popen(whole, stdout=log, stderr=log)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @property
    def printed(self) -> str:
        """What it said so far."""
        return self.log.read_text(errors="replace")

    def wait_until(self, reached: str) -> bool:
        """Wait until it has said so. Returns whether it still runs then."""
        while self.is_running:
            if reached in self.printed:
                return True
            time.sleep(0.1)
        return False

    def end(self) -> int:
        """Wait until it ends. Returns its exit status. Raises RuntimeError if it hangs."""
        try:
            return int(self.process.wait(timeout=LONGEST))
        except psutil.TimeoutExpired as error:
            raise RuntimeError(f"{self.log}: it did not end within {LONGEST:g} seconds") from error

    def finish(self) -> float:
        """Give the command again until it ends well. Returns the seconds since it was given first.

        Raises:
            RuntimeError: if it hangs, or ends badly each time.
        """
        while self.end():
            if self.times == MOST_TIMES:
                raise RuntimeError(f"{self.log}: it ended badly {self.times} times")
            self.again()
        return time.monotonic() - self.began

    def processes(self, named: str) -> list[psutil.Process]:
        """Those that it started, directly or not, whose command line holds a name."""
        return descendants(self.process, named)


def descendants(process: psutil.Process, named: str = "") -> list[psutil.Process]:
    """Living processes below this one whose command line holds a name."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if named in " ".join(child.cmdline()):
                    found.append(child)
    return found


@contextmanager
def command(*words: object, log: Path) -> Iterator[Command]:
    """A command, for as long as the block lasts.

    Args:
        words: without `visionprefer`.
        log: file that gets what it prints.
    """
    started = Command([str(word) for word in words], log)
    try:
        yield started
    finally:
        processes = [*descendants(started.process), started.process]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=20)


def undisturbed(*words: object, log: Path) -> float:
    """Run a command that nobody disturbs. Returns the seconds it took. Raises RuntimeError if it ends badly."""
    with command(*words, log=log) as quiet:
        if quiet.end():
            raise RuntimeError(f"{log}: it ended badly though nobody disturbed it")
        return time.monotonic() - quiet.began


def settings(changes: dict[str, object]) -> list[str]:
    """Fields of a recipe as options of a command."""
    return [word for field, value in changes.items() for word in ("--set", f"{field}={value}")]
