"""A run in the terminal: its tables, and what to do next."""

import shlex
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from visionprefer.audit import known_of_oracle, read_known, write_audit
from visionprefer.audit import tables as audit_tables
from visionprefer.blocksworld.agreement import OracleFigures
from visionprefer.blocksworld.boundary import warning
from visionprefer.errors import InputError
from visionprefer.importing import Imported
from visionprefer.judging.between_judges import alphas, pair_agreements
from visionprefer.judging.scores import judgements
from visionprefer.recipe import Recipe
from visionprefer.run_folder import RunFolder
from visionprefer.schema import OVERALL
from visionprefer.shards import Counts
from visionprefer.statistics import read_statistics, spent, tables
from visionprefer.statistics.tables import NOTHING, share
from visionprefer.statistics.tables import Table as TextTable
from visionprefer.store import Store

if TYPE_CHECKING:
    from visionprefer_pipelines.estimate import Estimate, Spread
    from visionprefer_serve.settings import EndpointSettings

_HOURS, _TOKENS, _MONEY = "{:,.2f}", "{:,.0f}", "{:,.2f}"


def show(run_dir: str, console: Console) -> None:
    """Print what a run has so far. Raises InputError if there is none."""
    folder = RunFolder(Store(run_dir))
    _counts(folder, console)
    if not folder.is_finished:
        console.print(f"Not finished. To go on: visionprefer run RECIPE --out {shlex.quote(run_dir)}")
        return
    print_tables(tables(read_statistics(folder)), console)
    _compare(folder, console)


def show_estimate(recipe: Recipe, rows: int, out: str | None, console: Console) -> None:
    """Estimate a run, print what it will take, and keep that in the folder of the run to come."""
    from visionprefer_pipelines.estimate import FILE, estimate

    found = estimate(recipe, rows, lambda sentence: console.print(f"· {sentence}"))
    for name, stage in (("images", found.images), ("replies", found.replies)):
        lost = f", {stage.failed} of them failed" if stage.failed else ""
        console.print(f"{name:<11} {stage.rows:,}, from {stage.sampled}{lost}")
    print_tables([TextTable("What the run will take", ["", "expected", "95 % interval"], _expected(found))], console)
    console.print("The stages run side by side: the longer one tells how long. Starting the actors comes on top.")
    if out:
        Store(out).write(FILE, found.model_dump_json(indent=1).encode())
        console.print(f"visionprefer show {shlex.quote(out)} will compare this with what the run takes")


def _expected(found: "Estimate") -> list[list[str]]:
    hours = [("hours of making images", found.images.hours), ("hours of judging", found.replies.hours)]
    told = [(name, of, _HOURS) for name, of in hours] + [row[:3] for row in _quantities(found)[1:]]
    return [[name, form.format(of.expected), _between(of, form)] for name, of, form in told]


def _quantities(found: "Estimate") -> list[tuple[str, "Spread", str, str]]:
    """What was estimated: its name, the estimate, how it is written, and its name among the truths."""
    longer = max(found.images.hours, found.replies.hours, key=lambda of: of.expected)
    told = [
        ("hours", longer, _HOURS, "hours"),
        ("tokens read", found.prompt_tokens, _TOKENS, "prompt_tokens"),
        ("tokens written", found.completion_tokens, _TOKENS, "completion_tokens"),
    ]
    return told + ([("cost", found.cost, _MONEY, "cost")] if found.cost else [])


def _between(of: "Spread", form: str) -> str:
    return NOTHING if of.low is None or of.high is None else f"{form.format(of.low)} to {form.format(of.high)}"


def _compare(folder: RunFolder, console: Console) -> None:
    """Print what was estimated beside what the run took, if it was estimated."""
    from visionprefer_pipelines.estimate import FILE, Estimate

    if not folder.store.exists(FILE):
        return
    found = Estimate.model_validate_json(folder.store.read(FILE))
    true = spent(folder.replies) | {"hours": folder.manifest.get("seconds", 0.0) / 3600}
    rows = [
        [
            name,
            form.format(of.expected),
            _between(of, form),
            NOTHING if true[truth] is None else form.format(true[truth]),
        ]
        for name, of, form, truth in _quantities(found)
    ]
    print_tables([TextTable("Estimate and truth", ["", "expected", "95 % interval", "in truth"], rows)], console)


def show_polished(out: str, counts: Counts, console: Console) -> None:
    """Print what was found in prompts, and how to go on with them."""
    store = Store(out)
    kept, rejected = store.read_table("prompts.parquet"), store.read_table("rejected_prompts.parquet")
    found = Counter(problem for problems in kept["problems"].to_pylist() for problem in problems)
    changed = sum(kept["changed"].to_pylist())
    console.print(f"prompts     {sum(counts)} = {counts.done} polished + {counts.failed} failed")
    console.print(f"kept        {kept.num_rows}, {changed} of them changed; rejected {rejected.num_rows}")
    console.print(
        "found       " + (", ".join(f"{name} in {count}" for name, count in found.most_common()) or "nothing")
    )
    console.print(f"Before and after, side by side: {store.root}/prompts.parquet")
    console.print(f"Next\n  write into a recipe: prompts: {{path: {store.root}/prompts.parquet}}")


def show_imported(out: str, found: Imported, console: Console) -> None:
    """Print what an import holds, and what can be done with it."""
    console.print(
        f"rows        {found.kept + found.rejected:,} read = {found.kept:,} kept + {found.rejected:,} rejected"
    )
    console.print(f"kept        {found.images:,} images of {found.prompts:,} prompts")
    console.print(f"preferences {found.pairs:,} pairs: {found.pairs - found.ties:,} choices, {found.ties:,} ties")
    if found.rejected:
        console.print(f"Why rows were rejected: {out}/rejected_rows.parquet")
    quoted = shlex.quote(out)
    console.print(f"Next\n  visionprefer reward train RECIPE --data {quoted} --set scores=[overall]")
    console.print(f"  visionprefer reward test MODEL --data {quoted} --against judge")


def show_endpoint(url: str, settings: "EndpointSettings", console: Console) -> None:
    """Print where an endpoint listens, and how to ask it."""
    console.print(f"Ready at {url} (Ctrl-C stops it)")
    console.print(f"  models       {', '.join(settings.models)}")
    console.print(f"  what it takes {url}/docs")
    console.print(f"  measures     {url}/metrics")
    console.print("Ask it from Python\n  from visionprefer_serve.client import RewardClient")
    console.print(f'  RewardClient("{url}").score(["a prompt"], [open("image.png", "rb").read()])')


def show_audit(run_dir: str, against: str | None, console: Console) -> None:
    """Audit a run's judge, print its figures and where its page is. Raises InputError if it cannot be audited."""
    folder = RunFolder(Store(run_dir))
    known = read_known(against) if against else known_of_oracle(folder)
    figures = write_audit(folder, known, against or "what the oracle sees in them")
    console.print(
        f"{figures.known:,} pairs known = {figures.compared:,} compared + {figures.known_ties:,} ties + "
        f"{figures.without_score:,} without a score"
    )
    print_tables(audit_tables(figures), console)
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
    print_tables(found, console)
    console.print("1 is agreement, 0 what chance gives. To let all vote: --set preferences.judges=vote")


def _coefficient(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def print_tables(printed: list[TextTable], console: Console) -> None:
    """Print tables, their first columns to the left and their figures to the right."""
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
    statistics = read_statistics(folder)
    pairs, ties = (sum(getattr(of, name) for of in statistics.aspects.values()) for name in ("pairs", "ties"))
    console.print(f"preferences {pairs} pairs: {pairs - ties} choices, {ties} ties")
    _oracle(statistics.oracle, console)
    root = folder.store.root
    console.print(
        f"\nDone in {seconds:.0f} s. Look at\n  {root}/report.html\n  {root}/training, preferences.parquet, …"
    )
    quoted = shlex.quote(root)
    console.print(f"Next\n  visionprefer show {quoted}\n  visionprefer export {quoted} --to hf")
    if any(counts.failed for counts in folder.counts().values()):
        console.print(f"  {retry}")


def _oracle(figures: OracleFigures | None, console: Console) -> None:
    """In a line each, how right the images and the judge are."""
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
