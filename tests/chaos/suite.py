"""Faults at random moments, and a table of what they cost.

    python tests/chaos/suite.py [--seed 0] [--rounds 20] [--fault "driver killed"]

Every round starts a command on the built-in models, strikes it at a moment drawn by lot, gives the same command again
until it ends well, and compares what is there with what the command makes undisturbed. The same seed draws the same
faults, moments (as shares of the work) and victims.
"""

import os
import random
import secrets
import shutil
import tempfile
from collections.abc import Callable
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from statistics import mean
from typing import Annotated

import endpoint
import faults
import runs
import trainings
import typer
from rich.console import Console
from rich.table import Table
from verification import Outcome

REPLICA = "Serve replica killed during PPO"
NAMES = [*faults.FAULTS, *trainings.FAULTS, REPLICA]
MOST_MISSES = 5  # strikes in a row that come too late

Attack = Callable[[random.Random, Path], Outcome | None]


class Baselines:
    """What attacked commands are compared with: each is run once, when it is first wanted."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder, self.console = folder, console
        self._runs: dict[runs.Place, runs.Undisturbed] = {}

    def run(self, place: runs.Place) -> runs.Undisturbed:
        """A run in this place."""
        if place not in self._runs:
            self._runs[place] = runs.run_undisturbed(place, self._begin(f"run {place}"))
        return self._runs[place]

    @cached_property
    def training(self) -> trainings.Trained:
        """VP-Score, from the run."""
        return trainings.train_undisturbed(self.run("alone").out, self._begin("reward train"))

    @cached_property
    def ppo(self) -> trainings.Trained:
        """PPO, with that VP-Score as its reward."""
        return endpoint.ppo_undisturbed(self.training.out, self._begin("ppo"))

    @cached_property
    def known(self) -> endpoint.Known:
        """What that VP-Score says of images of the run."""
        return endpoint.known(self.run("alone").out, self.training.out)

    def _begin(self, name: str) -> Path:
        self.console.print(f"undisturbed: {name}")
        folder = self.folder / "undisturbed" / name.replace(" ", "-")
        folder.mkdir(parents=True)
        return folder


def attack_with(name: str, baselines: Baselines) -> Attack:
    """What a round of this fault does."""
    if name in trainings.FAULTS:
        strike, data, model = trainings.FAULTS[name], baselines.run("alone").out, baselines.training
        return lambda chance, folder: trainings.attack(strike, chance, data, model, folder)
    if name == REPLICA:
        vpscore, known, model = baselines.training.out, baselines.known, baselines.ppo
        return lambda chance, folder: endpoint.attack(chance, vpscore, known, model, folder)
    fault = faults.FAULTS[name]
    run = baselines.run("alone" if fault.place == "small disk" else fault.place)
    return lambda chance, folder: runs.attack(fault.strike, fault.place, chance, run, folder)


def struck(attack: Attack, lot: str, folder: Path) -> Outcome:
    """One round. A strike that comes too late is drawn again.

    Raises:
        RuntimeError: if the command hangs, ends badly however often it is given, or always ends before the strike.
    """
    for miss in range(MOST_MISSES):
        here = folder / str(miss)
        here.mkdir(parents=True)
        if outcome := attack(random.Random(f"{lot} {miss}"), here):
            return outcome
    raise RuntimeError(f"{folder}: the command always ended before it could be struck")


def table(outcomes: dict[str, list[Outcome]], stuck: dict[str, int], obstacles: dict[str, str]) -> Table:
    """Faults and what they cost, in all their rounds together."""
    found = Table(title="What faults cost: rows in all rounds, and seconds in the mean of them")
    for column in ("fault", "rounds", "lost", "duplicated", "wrong", "redone", "stuck", "time lost"):
        found.add_column(column, justify="left" if column == "fault" else "right")
    for name, rounds in outcomes.items():
        if name in obstacles:
            found.add_row(name, f"not run: {obstacles[name]}")
            continue
        sums = [str(sum(getattr(one, field) for one in rounds)) for field in Outcome._fields[:-1]]
        seconds = f"{mean(one.seconds for one in rounds):.0f} s" if rounds else "–"
        found.add_row(name, str(len(rounds) + stuck[name]), *sums, str(stuck[name]), seconds)
    return found


def main(
    seed: Annotated[int, typer.Option(help="Draws moments and victims.")] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="Of all faults together, which take turns.")] = 20,
    fault: Annotated[list[str] | None, typer.Option(help="One of the faults; may be repeated. Default: all.")] = None,
) -> None:
    """Strike commands at random moments, and see that nothing is lost."""
    if unknown := set(fault or []) - set(NAMES):
        raise typer.BadParameter(f"{sorted(unknown)}: write some of {NAMES}")
    # Nodes and drivers that start apart share a token.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "OMP_NUM_THREADS": "1"}
    console = Console(soft_wrap=True, highlight=False)
    names = fault or NAMES
    obstacles = {name: why for name in names if name in faults.FAULTS and (why := faults.FAULTS[name].obstacle())}
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    stuck = dict.fromkeys(names, 0)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    baselines = Baselines(folder, console)
    possible = [name for name in names if name not in obstacles]
    try:
        for number, name in enumerate(islice(cycle(possible), rounds)):
            attack, here = attack_with(name, baselines), folder / str(number)
            try:
                outcome = struck(attack, f"{seed} {name} {number}", here)
            except RuntimeError as error:
                stuck[name] += 1
                console.print(f"round {number + 1}, {name}: {error}")
                continue
            outcomes[name].append(outcome)
            console.print(f"round {number + 1}, {name}: {outcome}")
            if outcome.is_good:
                shutil.rmtree(here)
    except KeyboardInterrupt:
        console.print("Stopped. What there was of it:")
    console.print(table(outcomes, stuck, obstacles))
    if any(stuck.values()) or not all(one.is_good for found in outcomes.values() for one in found):
        console.print(f"What went wrong is kept in {folder}")
        raise typer.Exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    typer.run(main)
