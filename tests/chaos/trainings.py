"""VP-Score's training under attack: workers and driver are killed, and it goes on from its checkpoint."""

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from command import Command, command, settings, undisturbed
from verification import Outcome

EPOCHS = 6
RECIPE = {"epochs": EPOCHS, "batch_size": 8, "workers.actors": 2, "workers.num_cpus": 1}
DELAY = 3.0  # seconds at most, after the epoch that was drawn
SAME = 1e-2  # validation losses

Strike = Callable[[Command, random.Random], bool]  # whether it hit


class Trained(NamedTuple):
    """A training that nobody disturbed."""

    out: Path
    seconds: float


def words(data: Path, out: Path) -> list[object]:
    """The command that trains on a run."""
    return ["reward", "train", "blocks-vpscore", "--data", data, "--out", out, *settings(RECIPE)]


def train_undisturbed(data: Path, folder: Path) -> Trained:
    """The training that others are compared with."""
    out = folder / "vpscore"
    return Trained(out, undisturbed(*words(data, out), log=folder / "log"))


def attack(strike: Strike, chance: random.Random, data: Path, model: Trained, folder: Path) -> Outcome | None:
    """One round: a training is struck, given again until it ends well, and compared. None if it ended too early.

    An epoch is a row: lost if it is not in the history, redone if it was told of before the strike and again after it,
    wrong if its validation loss is another than without the strike.
    """
    out = folder / "vpscore"
    with command(*words(data, out), log=folder / "log") as training:
        if not moment(training, "epoch {}:", chance.randrange(EPOCHS), chance) or not strike(training, chance):
            return None
        seconds = training.finish() - model.seconds
        told = Counter(re.findall(r"· epoch (\d+):", training.printed))
    ours, theirs = ({row["epoch"]: row["loss"]["overall"] for row in history(at)} for at in (out, model.out))
    return Outcome(
        lost=len(theirs.keys() - ours.keys()),
        duplicated=len(history(out)) - len(ours),
        wrong=sum(abs(ours[epoch] - theirs[epoch]) > SAME for epoch in ours.keys() & theirs.keys()),
        redone=sum(times - 1 for times in told.values()),
        seconds=seconds,
    )


def moment(training: Command, told: str, number: int, chance: random.Random) -> bool:
    """Wait until the training has told of a step, and some time more. Returns whether it goes on then."""
    if number and not training.wait_until(told.format(number)):
        return False
    time.sleep(chance.uniform(0, DELAY))
    return training.is_running


def history(out: Path) -> list[dict[str, Any]]:
    """How a training that has ended went."""
    told: list[dict[str, Any]] = json.loads((out / "training.json").read_text())["history"]
    return told


def kill_worker(training: Command, chance: random.Random) -> bool:
    """One of the two that learn; as soon as there are any."""
    while training.is_running:
        if workers := training.processes("RayTrainWorker"):
            with suppress(psutil.NoSuchProcess):
                chance.choice(workers).kill()
                return True
        time.sleep(0.1)
    return False


def kill_driver(training: Command, chance: random.Random) -> bool:
    """The command itself."""
    training.process.kill()
    return True


FAULTS = {"Train worker killed": kill_worker, "driver of a training killed": kill_driver}
