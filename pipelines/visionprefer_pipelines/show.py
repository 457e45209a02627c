"""A run in the terminal: its tables, and what to do next."""

import shlex

from rich.console import Console
from rich.table import Table

from visionprefer.audit import known_of_oracle, read_known, write_audit
from visionprefer.audit import tables as audit_tables
from visionprefer.blocksworld.boundary import warning
from visionprefer.errors import InputError
from visionprefer.judging.between_judges import alphas, pair_agreements
from visionprefer.judging.preferences import judgements
from visionprefer.run_folder import RunFolder
from visionprefer.schema import OVERALL
from visionprefer.statistics import statistics, tables
from visionprefer.statistics.tables import NOTHING, share
from visionprefer.statistics.tables import Table as TextTable
from visionprefer.store import Counts, Store


def show(run_dir: str, console: Console) -> None:
    """Print what a run has so far. Raises InputError if there is none."""
    folder = RunFolder(Store(run_dir))
    _counts(folder, console)
    if not folder.is_finished:
        console.print(f"Not finished. To go on: visionprefer run RECIPE --out {shlex.quote(run_dir)}")
        return
    _print(tables(statistics(folder)), console)


def show_audit(run_dir: str, against: str | None, console: Console) -> None:
    """Audit a run's judge, print its figures and where its page is. Raises InputError if it cannot be audited."""
    folder = RunFolder(Store(run_dir))
    known = read_known(against) if against else known_of_oracle(folder)
    figures = write_audit(folder, known, against or "what the oracle sees in them")
    console.print(
        f"{figures.known:,} pairs known = {figures.compared:,} compared + {figures.known_ties:,} ties + "
        f"{figures.without_score:,} without a score"
    )
    _print(audit_tables(figures), console)
    if figures.cost_per_1000_images is not None:
        console.print(f"1,000 images cost {figures.cost_per_1000_images:,.2f}")
    console.print(f"The worst disagreements, as pictures: {folder.store.root}/audit.html")


def show_agreement(run_dir: str, console: Console) -> None:
    """Print how far a run's judges agree. Raises InputError if there are not two."""
    folder = RunFolder(Store(run_dir))
    judges = folder.judges()
    if len(judges) < 2:
        raise InputError(
            f"{run_dir}: one judge alone has judged there. Run a recipe with another judge into the same folder; "
            "the images stay"
        )
    by_judge = {name: judgements(folder.replies_of(judge).table()) for judge, name in judges.items()}
    number = {name: str(place) for place, name in enumerate(by_judge, 1)}
    for name, place in number.items():
        console.print(f"{place} {name}")
    pairs = [
        [
            of.aspect,
            " and ".join(number[name] for name in of.judges),
            f"{of.images:,}",
            share(of.same),
            *map(_coefficient, (of.kappa, of.weighted_kappa)),
        ]
        for of in pair_agreements(by_judge)
    ]
    together = [[of.aspect, f"{of.images:,}", _coefficient(of.alpha)] for of in alphas(by_judge)]
    columns = ["aspect", "judges", "images", "same score", "Cohen's κ", "weighted κ"]
    found = [
        TextTable("Each two judges", columns, pairs),
        TextTable(f"All {len(number)} judges", ["aspect", "images", "Krippendorff's α"], together),
    ]
    _print(found, console)
    console.print("1 is agreement, 0 what chance gives. To let all vote: --set preferences.judges=vote")


def _coefficient(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _print(printed: list[TextTable], console: Console) -> None:
    for table in printed:
        shown = Table(title=table.title, title_justify="left", title_style="bold")
        for i, column in enumerate(table.columns):
            narrow = column.replace("_", "\n")  # leaves room for names of models
            shown.add_column(narrow, justify="right" if i else "left", overflow="fold")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown, soft_wrap=False)


def summary(folder: RunFolder, console: Console, seconds: float, retry: str) -> None:
    """Print what a run made, where it is, and what can be done with it; `retry` is the command for failed rows."""
    _counts(folder, console)
    preferences = folder.preferences()
    ties = sum(label == 0.5 for label in preferences["label"].to_pylist())
    console.print(f"preferences {preferences.num_rows} pairs: {preferences.num_rows - ties} choices, {ties} ties")
    _oracle(folder, console)
    root = folder.store.root
    console.print(
        f"\nDone in {seconds:.0f} s. Look at\n  {root}/report.html\n  {root}/training, preferences.parquet, …"
    )
    quoted = shlex.quote(root)
    console.print(f"Next\n  visionprefer show {quoted}\n  visionprefer export {quoted} --to hf")
    if any(counts.failed for counts in folder.counts().values()):
        console.print(f"  {retry}")


def _oracle(folder: RunFolder, console: Console) -> None:
    """In a line each, how right the images and the judge are."""
    figures = statistics(folder).oracle
    if figures is None:
        return
    right = [f"{model.fully_right:.0%} of the images of {model.model or 'unknown make'}" for model in figures.models]
    if right:
        console.print(f"fully right {', '.join(right)}")
    overall = figures.aspects.get(OVERALL)
    if overall and overall.agreement is not None:
        console.print(
            f"the judge   orders {overall.agreement:.0%} of {overall.pairs} pairs as the oracle does, overall"
        )


def _counts(folder: RunFolder, console: Console) -> None:
    prompts = folder.manifest["prompts"]
    told = f"{sum(prompts.values())} read = {prompts['kept']} kept + {prompts['rejected']} rejected"
    console.print(
        f"prompts     {told}" + (f" + {prompts['not_sampled']} not sampled" if prompts["not_sampled"] else "")
    )
    for name, counts in folder.counts().items():
        console.print(f"{name:<11} {_sum(counts)}")
    if outside := warning(folder.recipe, folder.prompts()["prompt"].to_pylist()):
        console.print(f"Warning: {outside}", style="yellow")


def _sum(counts: Counts) -> str:
    pending = f" + {counts.pending} to do" if counts.pending else ""
    return f"{sum(counts)} planned = {counts.done} done + {counts.failed} failed{pending}"
