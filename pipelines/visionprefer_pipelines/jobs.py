"""A run as a job of a Ray cluster: the package and the recipe are shipped, the log comes back, and a job that dies is
submitted again, which goes on where it stopped.
"""

import asyncio
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiohttp
import tenacity
import yaml
from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient

import visionprefer
from visionprefer.errors import InputError
from visionprefer.recipe import Recipe

SECONDS_TO_COME_BACK = 300.0  # for which a cluster that does not answer is asked again
SECONDS_BETWEEN_TRIES = 5.0
Answer = TypeVar("Answer")
_ROOT = Path(visionprefer.__file__).parents[2]
# What Ray's client raises when a cluster does not answer, or not as it should; requests' errors are OSErrors.
_BROKEN = (OSError, RuntimeError, ValueError, RayError, aiohttp.ClientError)


class LostError(InputError):
    """The cluster no longer answers, or not as it should."""


class Job(NamedTuple):
    """A job of a cluster."""

    name: str
    status: str
    seconds: float | None  # how long it ran, or has run


def client_of(address: str) -> JobSubmissionClient:
    """The cluster's jobs. Raises InputError if nobody answers there."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # else Ray's client keeps the token to itself
    try:
        return JobSubmissionClient(address)
    except _BROKEN as error:
        raise InputError(
            f"--address {address}: no Ray cluster takes jobs there: {error}. Write that of its dashboard, such as "
            "http://10.0.0.1:8265"
        ) from error


@contextmanager
def packed(recipe: Recipe, wheel: Path | None) -> Iterator[dict[str, Any]]:
    """What is shipped with a job, as a runtime environment: the recipe with its files of prompts, and the package.

    Args:
        recipe: checked.
        wheel: of this package; None: built, if the package lies in a checkout; else what is installed there is used.

    Raises:
        InputError: if something cannot be shipped.
    """
    with tempfile.TemporaryDirectory() as folder:
        working = Path(folder) / "recipe"
        working.mkdir()
        (working / "recipe.yaml").write_text(yaml.safe_dump(_shipped(recipe, working), sort_keys=False))
        wheel = wheel or _built(Path(folder) / "wheel")
        yield {"working_dir": str(working), **({"py_modules": [str(wheel)]} if wheel else {})}


def job_name(recipe: Recipe, number: int = 0) -> str:
    """Of the job of a run, in its first try or a later one."""
    return f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}" + (f"-{number + 1}" if number else "")


def submit(
    client: JobSubmissionClient, name: str, out: str, environment: dict[str, Any], retry_failed: bool = False
) -> None:
    """Submit a run.

    Args:
        client: of the cluster.
        name: of the job.
        out: folder of the run, as the cluster's machines see it.
        environment: see `packed`.
        retry_failed: take up again the rows that failed before.

    Raises:
        InputError: if `out` would lie in the job's own folder, which goes when it ends.
        LostError: if the cluster does not say that it takes the job, which it may have taken all the same.
    """
    if "://" not in out and not out.startswith("/"):
        raise InputError(
            f"--out {out}: the job would take it with it when it ends. Write s3://…, gs://… or a full path"
        )
    entrypoint = f"python -m visionprefer_pipelines.cli run recipe.yaml --out {shlex.quote(out)}"
    entrypoint += " --retry-failed" if retry_failed else ""
    with _telling():
        client.submit_job(entrypoint=entrypoint, submission_id=name, runtime_env=environment)


def _shipped(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The recipe as it is read there, its files copied into the folder and named as they lie."""
    existing = recipe.images.existing
    if existing and not Path(existing).is_absolute():
        raise InputError(
            f"images.existing: {existing} is not shipped with a job. Write the full path of a folder that the machines "
            "of the cluster share"
        )
    told = recipe.model_dump(mode="json", exclude_unset=True)
    for field in ("path", "block_list"):
        value = getattr(recipe.prompts, field)
        if value and Path(value).is_file():
            told["prompts"][field] = field + Path(value).suffix
            shutil.copy(value, folder / told["prompts"][field])
    return told


def _built(folder: Path) -> Path | None:
    if not (_ROOT / "pyproject.toml").exists():
        return None
    here = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *here, "--wheel-dir", str(folder)]
    done = subprocess.run([*command, str(_ROOT)], check=False, capture_output=True, text=True)
    if done.returncode:
        raise InputError(
            f"the package cannot be built: {done.stderr[-500:]}\nWrite --wheel FILE, as `make wheel` makes it"
        )
    return next(folder.glob("*.whl"))


def follow(client: JobSubmissionClient, name: str) -> JobStatus:
    """Print what a job prints until it ends. Returns how it ended.

    Raises:
        LostError: if the cluster no longer answers.
    """

    async def told() -> None:
        async for lines in client.tail_job_logs(name):
            print(lines, end="", flush=True)

    with _telling():
        asyncio.run(told())
        while not (status := client.get_job_status(name)).is_terminal():
            time.sleep(1)
        return status


def run_as_job(
    address: str,
    recipe: Recipe,
    out: str,
    wheel: Path | None,
    retries: int,
    retry_failed: bool,
    say: Callable[[str], None],
) -> JobStatus:
    """Submit a run, follow it, and submit it again if it, or its cluster, dies: what was done is not done again.

    Args:
        address: of the cluster's dashboard.
        recipe, out: see `submit`.
        wheel: see `packed`.
        retries: how often it is submitted again.
        retry_failed: see `submit`.
        say: told what happens.

    Returns:
        How the last job ended.

    Raises:
        InputError: if the cluster does not answer, or no longer.
    """
    client_of(address)  # where nobody answers, that is told at once
    status = JobStatus.FAILED
    with packed(recipe, wheel) as environment:
        for number in range(retries + 1):
            name = job_name(recipe, number)
            submit_to(address, name, out, environment, retry_failed, say)
            status = _ended(address, name, say)  # while it may still run, no other may
            say(f"{name}: {status.value.lower()}")
            if status != JobStatus.FAILED:
                break
    return status


def submit_to(
    address: str, name: str, out: str, environment: dict[str, Any], retry_failed: bool, say: Callable[[str], None]
) -> None:
    """Have a cluster take a job, as `submit` does, however often it is asked. Whether the cluster has it is what the
    cluster says, as the answer to a submission may have been lost.
    """

    def taken(client: JobSubmissionClient) -> None:
        if name not in _names(client):
            submit(client, name, out, environment, retry_failed)

    _asked(address, name, taken, say)
    say(f"{name}: submitted")


def _ended(address: str, name: str, say: Callable[[str], None]) -> JobStatus:
    """Follow a job to its end; one that the cluster does not have went with an earlier cluster."""

    def ended(client: JobSubmissionClient) -> JobStatus:
        return follow(client, name) if name in _names(client) else JobStatus.FAILED

    return _asked(address, name, ended, say)


def _asked(address: str, name: str, ask: Callable[[JobSubmissionClient], Answer], say: Callable[[str], None]) -> Answer:
    """What a cluster answers, however often the connection is lost meanwhile or the cluster is just starting."""

    def tell(state: tenacity.RetryCallState) -> None:
        say(f"{name}: {state.outcome and state.outcome.exception()}")

    pause = tenacity.wait_fixed(SECONDS_BETWEEN_TRIES)
    lost, silent = (tenacity.retry_if_exception_type(kind) for kind in (LostError, InputError))
    enough = tenacity.stop_after_attempt(round(SECONDS_TO_COME_BACK / SECONDS_BETWEEN_TRIES))
    there = tenacity.Retrying(retry=silent, wait=pause, stop=enough, reraise=True)
    again = tenacity.Retrying(retry=lost, wait=pause, stop=enough, before_sleep=tell, reraise=True)
    return again(lambda: ask(there(client_of, address)))


@contextmanager
def _telling() -> Iterator[None]:
    """Whatever Ray's client raises within is a LostError."""
    try:
        yield
    except _BROKEN as error:
        raise LostError(f"the cluster does not answer: {type(error).__name__}: {error}") from error


def jobs(client: JobSubmissionClient) -> list[Job]:
    """All jobs that were submitted to the cluster, the latest first."""
    found = []
    with _telling():
        listed = client.list_jobs()
    for job in sorted(listed, key=lambda job: -(job.start_time or 0)):
        if not job.submission_id:
            continue
        ended = job.end_time or 1000 * time.time()
        seconds = (ended - job.start_time) / 1000 if job.start_time else None
        found.append(Job(job.submission_id, job.status.value.lower(), seconds))
    return found


def stop(client: JobSubmissionClient, name: str) -> bool:
    """Stop a job, and wait until it has ended: only then may another go on. Returns False if it had ended already."""
    with _telling():
        if client.get_job_status(name).is_terminal():
            return False
        client.stop_job(name)
        while not client.get_job_status(name).is_terminal():
            time.sleep(0.5)
        return True


def _names(client: JobSubmissionClient) -> list[str]:
    return [job.name for job in jobs(client)]


def known(client: JobSubmissionClient, name: str) -> None:
    """Raises InputError if the cluster has no such job, with those that it has."""
    names = _names(client)
    if name not in names:
        raise InputError(f"{name}: the cluster has no such job. Its jobs: {', '.join(names) or 'none'}")
