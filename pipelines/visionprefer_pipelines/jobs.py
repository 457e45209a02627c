"""Jobs of a Ray cluster: submitted, followed and, if one dies, submitted again, which goes on where it stopped."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiohttp
import tenacity
from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient

from visionprefer.errors import InputError
from visionprefer_pipelines.shipping import Shippable, packed

SECONDS_TO_COME_BACK = 300.0  # for which a cluster that does not answer is asked again
SECONDS_BETWEEN_TRIES = 5.0
Answer = TypeVar("Answer")
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


def job_name(recipe: Shippable, number: int = 0) -> str:
    """Of the job of a recipe, in its first try or a later one."""
    return f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}" + (f"-{number + 1}" if number else "")


def submit(client: JobSubmissionClient, name: str, command: str, environment: dict[str, Any]) -> None:
    """Submit a job.

    Args:
        client: of the cluster.
        name: of the job.
        command: see `shipping.command_of`.
        environment: see `shipping.packed`.

    Raises:
        LostError: if the cluster does not say that it takes the job, which it may have taken all the same.
    """
    with _telling():
        client.submit_job(entrypoint=command, submission_id=name, runtime_env=environment)


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
    address: str, recipe: Shippable, command: str, wheel: Path | None, retries: int, say: Callable[[str], None]
) -> JobStatus:
    """Submit a job, follow it, and submit it again if it, or its cluster, dies: what was done is not done again.

    Args:
        address: of the cluster's dashboard.
        recipe, wheel: see `shipping.packed`.
        command: see `shipping.command_of`.
        retries: how often it is submitted again.
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
            submit_to(address, name, command, environment, say)
            status = _ended(address, name, say)  # while it may still run, no other may
            say(f"{name}: {status.value.lower()}")
            if status != JobStatus.FAILED:
                break
    return status


def submit_to(address: str, name: str, command: str, environment: dict[str, Any], say: Callable[[str], None]) -> None:
    """Have a cluster take a job, as `submit` does, however often it is asked. Whether the cluster has it is what the
    cluster says, as the answer to a submission may have been lost.
    """

    def taken(client: JobSubmissionClient) -> None:
        if name not in _names(client):
            submit(client, name, command, environment)

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
