"""Writes into the README what a finished quickstart, or a comparison of ways to teach, showed.

python -m visionprefer.blocksworld.readme runs/quickstart
python -m visionprefer.blocksworld.readme runs/comparison
"""

from pathlib import Path
from typing import Annotated

import typer

from visionprefer.blocksworld import comparison
from visionprefer.errors import InputError
from visionprefer.run_folder import RunFolder
from visionprefer.statistics import Table, read_statistics, tables
from visionprefer.store import Store

QUICKSTART, COMPARISON = "<!-- what the quickstart showed -->\n", "<!-- what the comparison showed -->\n"
END = "<!-- end -->\n"
TOLD = ("Images that are fully right", "The judge against the oracle")


def readme(
    run: Annotated[Path, typer.Argument(help="A finished quickstart, or the folder of a comparison.")],
    file: Annotated[Path, typer.Option(help="The text to write into, between its marks.")] = Path("README.md"),
) -> None:
    """Replace what stands between two marks in the README by the tables of a run.

    Raises:
        InputError: if the run is not finished or used no built-in model, or the file lacks a mark.
    """
    if (run / comparison.FIGURES).exists():
        begin, found = COMPARISON, comparison.tables(comparison.read_figures(run))
    else:
        begin, found = QUICKSTART, _of_quickstart(run)
    text = file.read_text(encoding="utf-8")
    if begin not in text or END not in text.split(begin)[1]:
        raise InputError(f"{file}: lacks a mark. Write {begin!r} and {END!r} on lines of their own")
    before, after = text.split(begin)
    told = "\n".join(_markdown(table) for table in found)
    file.write_text(before + begin + told + END + after.split(END, 1)[1], encoding="utf-8")
    typer.echo(told)


def _of_quickstart(run: Path) -> list[Table]:
    found = [table for table in tables(read_statistics(RunFolder(Store(str(run))))) if table.title in TOLD]
    if not found:
        raise InputError(f"{run}: no built-in model was used there. Give a finished run of the quickstart")
    return sorted(found, key=lambda table: TOLD.index(table.title))


def _markdown(table: Table) -> str:
    columns = [table.title, *table.columns[1:]]
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    typer.run(readme)
