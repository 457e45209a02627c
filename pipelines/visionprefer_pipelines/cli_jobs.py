"""`visionprefer submit`, `jobs`, `logs` and `stop`: runs and trainings as jobs of a Ray cluster."""

from pathlib import Path
from typing import Annotated

import typer

from visionprefer.errors import InputError
from visionprefer.recipe_file import load_any_recipe
from visionprefer.reward.recipe import AblationRecipe
from visionprefer_pipelines.terminal import RecipeArgument, Set, console_of, path_of

Dashboard = Annotated[
    str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="Of the cluster's dashboard, such as http://HEAD:8265.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the job, as `visionprefer jobs` lists it.")]


def submit(
    recipe: RecipeArgument,
    out: Annotated[str, typer.Option(help="Folder for what is made, as the cluster sees it: s3://, gs:// or shared.")],
    data: Annotated[str | None, typer.Option(help="Of a training: the run that it learns from, likewise.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Of PPO: URL of the reward endpoint, likewise.")] = None,
    address: Dashboard = "http://127.0.0.1:8265",
    set_: Set = None,
    retries: Annotated[int, typer.Option(min=0, help="How often it is submitted again if it or its cluster dies.")] = 0,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Take up failed rows again.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the job.")] = False,
    wheel: Annotated[
        Path | None, typer.Option(exists=True, help="Of this package; default: built from the checkout, if it is one.")
    ] = None,
) -> None:
    """Do on a Ray cluster what a recipe says, of a dataset, of prompts to polish or of a training: ship package and
    recipe, and follow the log.
    """
    from ray.job_submission import JobStatus

    from visionprefer_pipelines.jobs import client_of, job_name, run_as_job, submit_to
    from visionprefer_pipelines.shipping import command_of, packed

    settings, console, at = load_any_recipe(path_of(recipe), set_), console_of(), f"--address {address}"
    if isinstance(settings, AblationRecipe):
        raise InputError(f"{recipe}: variants are trained by visionprefer reward ablate, on one of the machines")
    command = command_of(settings, out, data, endpoint, retry_failed)

    def say(told: str) -> None:
        console.print(f"· {told}")

    if detach and retries:
        raise InputError("--detach does not wait, so nobody is there for --retries: leave one of them out")
    if detach:
        client_of(address)  # where nobody answers, that is told at once
        name = job_name(settings)
        with packed(settings, wheel) as environment:
            submit_to(address, name, command, environment, say)
        console.print(f"Next: visionprefer logs {name} {at}, or visionprefer stop {name} {at}")
        return
    try:
        status = run_as_job(address, settings, command, wheel, retries, say)
    except KeyboardInterrupt:
        console.print(f"\nThe job goes on. To see it: visionprefer jobs {at}; to stop it: visionprefer stop NAME {at}")
        raise typer.Exit(130) from None
    if status != JobStatus.SUCCEEDED:
        console.print("Submitted again with the same --out, it goes on where it stopped")
        raise typer.Exit(1)


def jobs(address: Dashboard = "http://127.0.0.1:8265") -> None:
    """List the jobs of a Ray cluster, the latest first."""
    from rich.table import Table

    from visionprefer_pipelines.jobs import client_of
    from visionprefer_pipelines.jobs import jobs as jobs_of

    table = Table("job", "status", "minutes")
    for job in jobs_of(client_of(address)):
        table.add_row(job.name, job.status, "" if job.seconds is None else f"{job.seconds / 60:.1f}")
    console_of().print(table)


def logs(name: Name, address: Dashboard = "http://127.0.0.1:8265") -> None:
    """Print a job's log, and go on until it ends."""
    from visionprefer_pipelines.jobs import client_of, follow, known

    client = client_of(address)
    known(client, name)
    console_of().print(f"{name}: {follow(client, name).value.lower()}")


def stop(name: Name, address: Dashboard = "http://127.0.0.1:8265") -> None:
    """Stop a job. What it has done is kept: submitted again with the same --out, it goes on."""
    from visionprefer_pipelines.jobs import client_of, known
    from visionprefer_pipelines.jobs import stop as stop_job

    client = client_of(address)
    known(client, name)
    console_of().print(f"{name}: {'stopped' if stop_job(client, name) else 'had ended already'}")
