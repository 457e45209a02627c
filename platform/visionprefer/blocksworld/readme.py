"""Writes into the README what a finished quickstart showed.

python -m visionprefer.blocksworld.readme runs/quickstart
"""

from pathlib import Path
from typing import Annotated

import typer

from visionprefer.errors import InputError
from visionprefer.run_folder import RunFolder
from visionprefer.statistics import Table, statistics, tables
from visionprefer.store import Store

BEGIN, END = "<!-- what the quickstart showed -->\n", "<!-- end -->\n"
TOLD = ("Images that are fully right", "The judge against the oracle")


def readme(
    run: Annotated[Path, typer.Argument(help="A finished quickstart.")],
    file: Annotated[Path, typer.Option(help="The text to write into, between its two marks.")] = Path("README.md"),
) -> None:
    """Replace what stands between the two marks in the README by the tables of a run.

    Raises:
        InputError: if the run is not finished or used no built-in model, or the file lacks a mark.
    """
    found = [table for table in tables(statistics(RunFolder(Store(str(run))))) if table.title in TOLD]
    if not found:
        raise InputError(f"{run}: no built-in model was used there. Give a finished run of the quickstart")
    text = file.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text.split(BEGIN)[1]:
        raise InputError(f"{file}: lacks a mark. Write {BEGIN!r} and {END!r} on lines of their own")
    before, after = text.split(BEGIN)[0], text.split(BEGIN)[1].split(END)[1]
    told = "\n".join(_markdown(table) for table in sorted(found, key=lambda table: TOLD.index(table.title)))
    file.write_text(before + BEGIN + told + END + after, encoding="utf-8")
    typer.echo(told)


def _markdown(table: Table) -> str:
    columns = [table.title, *table.columns[1:]]
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    typer.run(readme)
