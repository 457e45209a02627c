"""The `visionprefer` command: AI feedback for text-to-image models. Its commands parse first, and import torch and ray
later, so that help and errors come at once.
"""

import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import typer
from pydantic import ValidationError
from rich.text import Text

from visionprefer.buckets import is_in_bucket
from visionprefer.errors import InputError
from visionprefer.recipe import Recipe
from visionprefer.recipe_file import load_any_recipe, load_polish_recipe, load_recipe
from visionprefer_pipelines.cli_align import dpo, evaluate, finetune, ppo
from visionprefer_pipelines.cli_jobs import jobs, logs, stop, submit
from visionprefer_pipelines.cli_recipe import recipes
from visionprefer_pipelines.cli_reward import rewards, variants_of
from visionprefer_pipelines.terminal import Address, RecipeArgument, RunArgument, Set, console_of, interrupt, path_of

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="AI feedback that improves text-to-image models.",
)
app.add_typer(recipes, name="recipe")
app.add_typer(rewards, name="reward")
judges = typer.Typer(no_args_is_help=True, help="Learn how far a judge can be trusted.")
app.add_typer(judges, name="judge")


@app.command()
def run(
    recipe: RecipeArgument,
    out: Annotated[str, typer.Option(help="Folder of the run, local or s3://, gs://. Run again to go on.")],
    set_: Set = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Take up again the rows that failed.")] = False,
    address: Address = None,
) -> None:
    """Make a preference dataset: prompts, images, judgements, preferences."""
    from visionprefer_pipelines.progress import Progress

    started = time.monotonic()
    settings = _load(recipe, set_)
    console = console_of()
    console.print(Text.assemble((settings.name, "bold"), f" → {out}"))
    command = ["visionprefer", "run", recipe, "--out", out]
    command += [word for change in set_ or [] for word in ("--set", change)]
    command += ["--address", address] if address else []
    retry = [*command, "--retry-failed"]
    again = shlex.join(retry if retry_failed else command)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        from visionprefer_pipelines.run import run as run_recipe

        with Progress(console) as progress:
            folder = run_recipe(settings, out, progress, retry_failed, address)
    except KeyboardInterrupt:
        console.print(f"\nStopped. Everything that was finished is kept in {out}. To go on:\n  {again}")
        raise typer.Exit(130) from None
    except InputError:
        raise
    except Exception:
        console_of(stderr=True).print(f"\nEverything that was finished is kept in {out}. To go on:\n  {again}")
        raise
    from visionprefer_pipelines.show import summary

    summary(folder, console, time.monotonic() - started, shlex.join(retry))


@app.command()
def polish(
    recipe: Annotated[str, typer.Argument(help="A YAML file with prompts, and who polishes them.")],
    out: Annotated[str, typer.Option(help="Folder for the polished prompts. Run again to go on.")],
    set_: Set = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Take up again the prompts that failed.")
    ] = False,
    address: Address = None,
) -> None:
    """Have a model of text mend what is biased, inconsistent or unsafe in prompts, before they become images."""
    from visionprefer_pipelines.polish import polish as polish_prompts
    from visionprefer_pipelines.progress import Progress
    from visionprefer_pipelines.show import show_polished

    console = console_of()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        with Progress(console) as progress:
            counts = polish_prompts(load_polish_recipe(Path(recipe), set_), out, progress, retry_failed, address)
    except KeyboardInterrupt:
        console.print(f"\nStopped. Every prompt that was polished is kept in {out}. Give the same command to go on")
        raise typer.Exit(130) from None
    show_polished(out, counts, console)


@app.command("import")
def import_(
    layout: Annotated[
        Literal["imagerewarddb", "hpdv2", "pickapic"], typer.Argument(help="In which the dataset was published.")
    ],
    source: Annotated[
        str, typer.Argument(help="Folder of its repository, here or in a bucket, or hf://datasets/OWNER/NAME.")
    ],
    out: Annotated[str, typer.Option(help="Folder to write, as of a finished run. Run again to go on.")],
    split: Annotated[
        list[str] | None, typer.Option(help="Published split to take; may be repeated. Default: all.")
    ] = None,
) -> None:
    """Take over other people's preferences, to train and to test reward models on."""
    from visionprefer.importing import import_dataset
    from visionprefer.store import Store
    from visionprefer_pipelines.out_folder import alone, teaching
    from visionprefer_pipelines.progress import Progress
    from visionprefer_pipelines.show import show_imported

    console, store = console_of(), Store(out)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        with Progress(console) as progress, teaching(store), alone(store):
            found = import_dataset(layout, source, out, split, progress.say)
    except KeyboardInterrupt:
        console.print(f"\nStopped. What was taken over is kept in {out}. Give the same command to go on")
        raise typer.Exit(130) from None
    show_imported(out, found, console)


@app.command()
def score(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Image files.")],
    model: Annotated[str, typer.Option(help="Folder of a trained VP-Score.")],
    prompt: Annotated[str, typer.Option(help="What the images are to show.")],
) -> None:
    """Score images for a prompt with VP-Score, the best first."""
    from visionprefer_pipelines.show_reward import show_scores

    show_scores(model, prompt, images, console_of())


@app.command()
def serve(
    models: Annotated[
        list[str], typer.Option("--model", metavar="[NAME=]DIR", help="A trained VP-Score; may be repeated.")
    ],
    host: Annotated[str, typer.Option(help="Beyond this machine it needs tokens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="To listen on.")] = 8000,
    tokens: Annotated[
        Path | None, typer.Option(help="File of bearer tokens, one a line; else VISIONPREFER_TOKENS may hold them.")
    ] = None,
    num_gpus: Annotated[float, typer.Option(min=0, help="Of each model; 0.5 shares one.")] = 0,
    address: Address = None,
) -> None:
    """Answer over HTTP how well images fit their prompts, until stopped."""
    from visionprefer.settings import Workers
    from visionprefer_pipelines.endpoint import serve_models
    from visionprefer_pipelines.show import show_endpoint
    from visionprefer_serve.settings import EndpointSettings, ServedModel

    console = console_of()
    signal.signal(signal.SIGTERM, interrupt)
    named: dict[str, ServedModel] = {}
    for text in models:
        name, path = ("", text) if Path(text).is_dir() or "=" not in text else text.split("=", 1)
        name = name or (PurePosixPath(path) if is_in_bucket(path) else Path(path).resolve()).name
        if name in named:
            raise InputError(f"--model {text}: two models are called {name}. Write --model NAME={path}")
        named[name] = ServedModel(path=path, workers=Workers(num_gpus=num_gpus))
    try:
        settings = EndpointSettings(models=named, tokens=str(tokens) if tokens else None)
    except ValidationError as error:
        raise InputError(f"--model: {error.errors()[0]['msg']}") from error
    console.print(f"Starting {', '.join(named)} …")
    try:
        serve_models(settings, host, port, address, lambda url: show_endpoint(url, settings, console))
    except KeyboardInterrupt:
        console.print("\nStopped. What was asked has been answered.")


@app.command()
def estimate(
    recipe: RecipeArgument,
    set_: Set = None,
    rows: Annotated[int, typer.Option(min=1, help="Images to make and judge for it, at least.")] = 16,
    out: Annotated[
        str | None, typer.Option(help="Folder of the run to come; show then compares the estimate with the truth.")
    ] = None,
) -> None:
    """Say what a run will take: do a few of its rows on this machine, paid requests too, and reckon from them."""
    from visionprefer_pipelines.show import show_estimate

    show_estimate(_load(recipe, set_), rows, out, console_of())


@app.command()
def doctor(
    recipe: Annotated[str | None, typer.Argument(help="Whose actors are to find room: a YAML file or a name.")] = None,
    set_: Set = None,
    address: Address = None,
) -> None:
    """Say what is installed, what the cluster has, and what is missing; exit with 1 if that would stop a run or, with
    the recipe of one, a training.
    """
    from visionprefer.reward.recipe import AblationRecipe
    from visionprefer_pipelines.doctor import look
    from visionprefer_pipelines.show_doctor import show_found

    asked = load_any_recipe(path_of(recipe), set_) if recipe else None
    if isinstance(asked, AblationRecipe):  # its variants ask for the same
        asked = next(iter(variants_of(asked).values()))
    found = look(asked, address)
    show_found(found, console_of())
    raise typer.Exit(1 if found.problems else 0)


@app.command()
def show(run_dir: RunArgument) -> None:
    """Show what a run has, as tables."""
    from visionprefer_pipelines.show import show as show_run

    show_run(run_dir, console_of())


@app.command()
def export(
    run_dir: RunArgument,
    to: Annotated[Literal["hf", "pickapic", "hpdv2"], typer.Option(help="Layout of the dataset.")],
    out: Annotated[str | None, typer.Option(help="Folder to write; default: DIR/export/LAYOUT.")] = None,
) -> None:
    """Write the dataset in a layout that others read, with a dataset card."""
    from visionprefer.export import export as export_run
    from visionprefer.run_folder import RunFolder
    from visionprefer.store import Store

    target = out or f"{run_dir.rstrip('/')}/export/{to}"
    files = export_run(RunFolder(Store(run_dir)), to, target)
    console_of().print(f"{len(files)} files in {target}; {target}/README.md says how to load them")


@app.command()
def report(run_dir: RunArgument) -> None:
    """Write DIR/report.html anew: one file with pictures, scores and rationales, readable without network."""
    from visionprefer.report import write_report
    from visionprefer.run_folder import RunFolder
    from visionprefer.store import Store

    write_report(RunFolder(Store(run_dir)))
    console_of().print(f"{run_dir.rstrip('/')}/report.html")


@judges.command("audit")
def judge_audit(
    run_dir: RunArgument,
    against: Annotated[
        str | None,
        typer.Option(help="Parquet file of preferences that are known; default: the oracle's, for built-in models."),
    ] = None,
) -> None:
    """Compare a run's judge with preferences that are known; writes DIR/audit.html and DIR/audit.json."""
    from visionprefer_pipelines.show import show_audit

    show_audit(run_dir, against, console_of())


@judges.command("compare")
def judge_compare(run_dir: RunArgument) -> None:
    """Say how far the judges agree that have judged into a folder, one run of each."""
    from visionprefer_pipelines.show import show_agreement

    show_agreement(run_dir, console_of())


for command in (dpo, finetune, ppo, evaluate, submit, jobs, logs, stop):
    app.command()(command)


def _load(name_or_path: str, overrides: list[str] | None) -> Recipe:
    return load_recipe(path_of(name_or_path), overrides)


def main(command: Callable[[], None] = app) -> None:
    """Run the command; tell errors of input in a sentence, without a traceback."""
    try:
        command()
    except InputError as error:
        console_of(stderr=True).print(Text.assemble(("Error", "bold red"), f" {error}"))
        sys.exit(2)


if __name__ == "__main__":
    main()
