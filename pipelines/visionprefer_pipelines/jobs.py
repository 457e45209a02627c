"""A run as a job of a Ray cluster: the package and the recipe are shipped, the log comes back, and a job that dies is
submitted again, which goes on where it stopped.
"""

import asyncio
import importlib.util
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from ray.job_submission import JobStatus, JobSubmissionClient

import visionprefer
from visionprefer.errors import InputError
from visionprefer.recipe import Recipe

SECONDS_TO_COME_BACK = 300.0  # for which a cluster that does not answer is asked again
_ROOT = Path(visionprefer.__file__).parents[2]
DONE = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED}


class Job(NamedTuple):
    """A job of a cluster."""

    name: str
    status: str
    seconds: float | None  # how long it ran, or has run
    entrypoint: str


def client_of(address: str) -> JobSubmissionClient:
    """The cluster's jobs. Raises InputError if nobody answers there."""
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"--address {address}: no Ray cluster takes jobs there: {error}. Write that of its dashboard, such as "
            "http://10.0.0.1:8265"
        ) from error


def submit(client: JobSubmissionClient, recipe: Recipe, out: str, wheel: Path | None, number: int = 0) -> str:
    """Submit a run. Returns the job's name.

    Args:
        client: of the cluster.
        recipe: checked; its files on this machine that are not models are shipped with it.
        out: folder of the run, as the cluster's machines see it.
        wheel: of this package; None: built, if the package lies in a checkout; else what is installed there is used.
        number: of the try.
    """
    name = f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}" + (f"-{number + 1}" if number else "")
    with tempfile.TemporaryDirectory() as folder:
        working, environment = Path(folder) / "recipe", {"working_dir": f"{folder}/recipe"}
        working.mkdir()
        (working / "recipe.yaml").write_text(yaml.safe_dump(shipped(recipe, working), sort_keys=False))
        wheel = wheel or _built(Path(folder) / "wheel")
        entrypoint = f"python -m visionprefer_pipelines.cli run recipe.yaml --out {shlex.quote(out)}"
        modules: dict[str, Any] = {"py_modules": [str(wheel)]} if wheel else {}
        return client.submit_job(entrypoint=entrypoint, submission_id=name, runtime_env=environment | modules)


def shipped(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The recipe as it is read there: files of prompts and words are copied into the folder, and named as they lie."""
    told = recipe.model_dump(mode="json", exclude_unset=True)
    for field in ("path", "block_list"):
        value = getattr(recipe.prompts, field)
        if value and Path(value).is_file():
            shutil.copy(value, folder)
            told["prompts"][field] = Path(value).name
    return told


def _built(folder: Path) -> Path | None:
    if not (_ROOT / "pyproject.toml").exists():
        return None
    here = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        *here,
        "--wheel-dir",
        str(folder),
        str(_ROOT),
    ]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def follow(client: JobSubmissionClient, name: str) -> JobStatus:
    """Print what a job prints until it ends. Returns how it ended.

    Raises:
        ConnectionError: if the cluster no longer answers.
    """

    async def told() -> None:
        async for lines in client.tail_job_logs(name):
            print(lines, end="", flush=True)

    try:
        asyncio.run(told())
        while (status := client.get_job_status(name)) not in DONE:
            time.sleep(1)
    except (OSError, RuntimeError) as error:  # requests' errors are OSErrors; Ray's client makes others RuntimeErrors
        raise ConnectionError(str(error)) from error
    return status


def run_as_job(
    address: str, recipe: Recipe, out: str, wheel: Path | None, retries: int, say: Callable[[str], None]
) -> JobStatus:
    """Submit a run, follow it, and submit it again if it, or its cluster, dies: what was done is not done again.

    Args:
        address: of the cluster's dashboard.
        recipe, out, wheel: see `submit`.
        retries: how often it is submitted again.
        say: told what happens.

    Returns:
        How the last job ended.
    """
    for number in range(retries + 1):
        client = _answering(address) if number else client_of(address)
        name = submit(client, recipe, out, wheel, number)
        say(f"{name}: submitted")
        try:
            status = follow(client, name)
        except ConnectionError as error:
            status = JobStatus.FAILED
            say(f"{name}: the cluster no longer answers: {error}")
        say(f"{name}: {status.value.lower()}")
        if status != JobStatus.FAILED:
            break
    return status


def _answering(address: str) -> JobSubmissionClient:
    """The cluster's jobs, once it answers again."""
    until = time.monotonic() + SECONDS_TO_COME_BACK
    while True:
        try:
            return client_of(address)
        except InputError:
            if time.monotonic() > until:
                raise
            time.sleep(5)


def jobs(client: JobSubmissionClient) -> list[Job]:
    """All jobs that were submitted to the cluster, the latest first."""
    found = []
    for job in sorted(client.list_jobs(), key=lambda job: -(job.start_time or 0)):
        if not job.submission_id:
            continue
        ended = job.end_time or 1000 * time.time()
        seconds = (ended - job.start_time) / 1000 if job.start_time else None
        found.append(Job(job.submission_id, job.status.value.lower(), seconds, job.entrypoint))
    return found


def known(client: JobSubmissionClient, name: str) -> None:
    """Raises InputError if the cluster has no such job, with those that it has."""
    names = [job.name for job in jobs(client)]
    if name not in names:
        raise InputError(f"{name}: the cluster has no such job. Its jobs: {', '.join(names) or 'none'}")
