"""What the workers of all trainings do alike: tell how it goes, keep checkpoints, take up the latest."""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray.train
import torch

from visionprefer_pipelines.loggers import flat
from visionprefer_pipelines.progress import SECONDS_BETWEEN_LINES

STATE = "state.pt"
CHECKPOINTS = 20  # in a training
MODEL = "model"  # the folder of the last checkpoint that holds what was trained


class Course:
    """How training has gone, and what is told of it.

    Args:
        log: a CommitLog, which takes sentences for the terminal, and numbers; None: another worker tells.
        steps: of the whole training.
    """

    def __init__(self, log: Any, steps: int) -> None:
        self.log, self.steps = log, steps
        self.began = self.told = time.monotonic()
        self.seconds_before = 0.0
        self.history: list[dict[str, Any]] = []

    def say(self, sentence: str) -> None:
        """Tell the person at the terminal."""
        if self.log is not None:
            self.log.add.remote("say", sentence)

    def measured(self, step: int, numbers: Mapping[str, Any]) -> None:
        """Hand on what was measured after so many steps; what is no number is left out."""
        if self.log is not None:
            told = {name: float(value) for name, value in flat(numbers).items() if isinstance(value, int | float)}
            self.log.add.remote("numbers", (step, told))

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is due after so many steps; the last one, with what was trained, is not meant."""
        return step % -(-self.steps // CHECKPOINTS) == 0 and step < self.steps

    def stepped(self, number: int, loss: float, numbers: Mapping[str, Any]) -> None:
        """Hand on what a step measured, and tell of it now and then."""
        self.measured(number + 1, numbers)
        if time.monotonic() - self.told > SECONDS_BETWEEN_LINES:
            self.told = time.monotonic()
            self.say(f"step {number + 1:,} of {self.steps:,}, loss {loss:.3f}")

    @property
    def seconds(self) -> float:
        """Of training so far, before an interruption too."""
        return self.seconds_before + time.monotonic() - self.began

    def report(self, step: int, state: dict[str, Any], save: Callable[[Path], None] | None = None) -> None:
        """Keep a checkpoint. Every worker reports; the first one's is kept.

        Args:
            step: to go on with.
            state: tensors and numbers.
            save: writes what was trained into a folder, at the end.
        """
        metrics = {"history": self.history, "seconds": self.seconds}
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = None
            if ray.train.get_context().get_world_rank() == 0:
                torch.save(state | metrics | {"step": step}, Path(folder) / STATE)
                if save:
                    save(Path(folder) / MODEL)
                checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(metrics, checkpoint=checkpoint)

    def resumed(self) -> dict[str, Any] | None:
        """The state of the latest checkpoint, with its "step"; None if there is none."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            saved: dict[str, Any] = torch.load(Path(folder) / STATE, weights_only=True, map_location="cpu")
        self.history, self.seconds_before = saved["history"], saved["seconds"]
        self.say(f"going on at step {saved['step']:,} of {self.steps:,}")
        return saved


def total(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all workers, in place."""
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(tensor)
    return tensor
