"""What the doctor found, as tables."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from visionprefer.errors import remedy
from visionprefer.statistics.tables import NOTHING
from visionprefer_pipelines.demand import Machine, fewest, listed, wanted
from visionprefer_pipelines.doctor import Found

_GIB = 2**30


def show_found(found: Found, console: Console) -> None:
    """Print it, what stops a run last."""
    _print(console, "Installed", ["", "version"], found.versions.items())
    extras = [
        (name, "all there" if not lacks else f"without {', '.join(lacks)}. Write: {remedy(name)}")
        for name, lacks in found.extras.items()
    ]
    _print(console, "Extras", ["", "state"], extras)
    disks = [(disk.holds, str(disk.folder), _of(disk.free / _GIB, disk.total / _GIB)) for disk in found.disks]
    _print(console, "Disks here", ["for", "folder", "GiB free"], disks)
    console.print(f"GPUs here: {'; '.join(found.gpus) or 'none'}")
    columns = ["machine", "CPU", "GPU", "GiB memory", "GiB object store", "others"]
    if found.machines:
        _print(console, "The cluster's machines, and what of them is free", columns, map(_machine, found.machines))
    stages = [
        (field, f"{fewest(workers)} of {listed(wanted(workers))}", str(placed.actors), placed.waits_for or NOTHING)
        for field, (workers, placed) in found.actors.items()
    ]
    if stages:
        _print(console, "Actors of the recipe", ["stage", "fewest", "have room", "the next waits for"], stages)
    for problem in found.problems:
        console.print(f"· {problem}")
    console.print("Something is missing" if found.problems else "Nothing is missing")


def _print(console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table, soft_wrap=False)


def _machine(machine: Machine) -> list[str]:
    if not machine.has:
        return [machine.address, "dead"]
    counted = [_free(machine, name) for name in ("CPU", "GPU")]
    stored = [_free(machine, name, _GIB) for name in ("memory", "object_store_memory")]
    known = {"CPU", "GPU", "memory", "object_store_memory"}
    others = [name for name in machine.has if name not in known and not name.startswith("node:")]
    return [machine.address, *counted, *stored, ", ".join(f"{name} {_free(machine, name)}" for name in sorted(others))]


def _free(machine: Machine, name: str, unit: float = 1) -> str:
    return _of(machine.free.get(name, 0) / unit, machine.has[name] / unit) if name in machine.has else NOTHING


def _of(free: float, total: float) -> str:
    """Whole numbers as they are, others with one digit."""
    return " of ".join(f"{round(amount, 1):g}" for amount in (free, total))
