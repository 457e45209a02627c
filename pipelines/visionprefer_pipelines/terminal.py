"""What commands share: their common arguments, where a recipe lies, how they print, and how they are stopped."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from visionprefer.errors import InputError

if TYPE_CHECKING:
    from visionprefer_pipelines.progress import Progress

RecipeArgument = Annotated[
    str, typer.Argument(help="A YAML file, or the name of a recipe that comes with the package.")
]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change a field: key.subkey=value. May be repeated.")]
RunArgument = Annotated[str, typer.Argument(metavar="DIR", help="Folder of a run: what was given to run --out.")]
OutArgument = Annotated[str, typer.Option("--out", help="Folder for the model, also s3://, gs://. Run again to go on.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster; default: one of its own on this machine.")]
Against = Annotated[str, typer.Option(help="What is known: judge, oracle, or a Parquet file like preferences.parquet.")]


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by their names."""
    return {file.stem: file for file in sorted((Path(__file__).parent / "recipes").glob("*.yaml"))}


def path_of(name_or_path: str) -> Path:
    """Where a recipe lies. Raises InputError if there is none."""
    path, shipped = Path(name_or_path), shipped_recipes()
    if path.is_file():
        return path
    if name_or_path not in shipped:
        raise InputError(
            f"no recipe at {name_or_path!r}. Write the path of a YAML file, or a name that comes with the package: "
            + ", ".join(shipped)
        )
    return shipped[name_or_path]


def console_of(stderr: bool = False) -> Console:
    """Prints paths and commands as they are: nothing in them is markup, and no line is broken."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def training(name: str, out: str, train: "Callable[[Progress], object]") -> float:
    """Train, telling what happens; a person who stops it is told how to go on. Returns the seconds it took."""
    from visionprefer_pipelines.progress import Progress

    started, console = time.monotonic(), console_of()
    signal.signal(signal.SIGTERM, interrupt)
    console.print(Text.assemble((name, "bold"), f" → {out}"))
    try:
        with Progress(console) as progress:
            train(progress)
    except KeyboardInterrupt:
        console.print(f"\nStopped. What was learnt is kept in {out}. Give the same command to go on")
        raise typer.Exit(130) from None
    return time.monotonic() - started


def interrupt(*_: object) -> None:
    """A job that is told to stop ends as Ctrl-C does: cleanly, and saying how to go on."""
    raise KeyboardInterrupt
