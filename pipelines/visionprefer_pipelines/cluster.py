"""The Ray cluster a command runs on: one that is there, or one of its own on this machine."""

import logging
import math
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray._private.services import resolve_ip_for_localhost

from visionprefer.errors import InputError
from visionprefer.settings import Workers
from visionprefer_pipelines.demand import fewest, wanted

OBJECT_STORE_BYTES = 256 * 1024**2  # for the names of committed shards, which are all that runs send through it
SECONDS_TO_ANSWER = 5.0


@contextmanager
def connected(
    address: str | None, stages: dict[str, Workers], object_store_bytes: int | None = OBJECT_STORE_BYTES
) -> Iterator[None]:
    """Connect to a cluster for as long as the block lasts.

    Args:
        address: of a running cluster; None: the one this process was submitted to or, if there is none, a new one on
            this machine, which is stopped afterwards.
        stages: the actors of each, by the recipe's field that says how many, such as images.workers.
        object_store_bytes: of a cluster that is started; None: as many as Ray thinks right.

    Raises:
        InputError: if no cluster answers at the address, or if this machine can never place the actors.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine unasked
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray's warnings about itself; they stay in its log files
    # A killed worker's stream holds what it had asked for until then; by Ray's own setting, three minutes.
    os.environ.setdefault("RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S", "30")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    named = "--address" if address else "RAY_ADDRESS"
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        if address == "local":
            _start(stages, object_store_bytes)
        else:
            _join(address, named)
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts its own handler there, which ends the process at once
        if address == "local":
            check_resources(stages, ray.cluster_resources())
        yield
    finally:
        ray.shutdown()


def check_resources(stages: dict[str, Workers], machine: dict[str, float]) -> None:
    """Raise InputError if the actors want GPUs or custom resources that `machine` has not: they would wait for ever."""
    asked = {field: wanted(workers) for field, workers in stages.items()}
    for name in dict.fromkeys(name for resources in asked.values() for name in resources if name != "CPU"):
        each = {field: resources[name] for field, resources in asked.items() if name in resources}
        there = machine.get(name, 0)
        if sum(amount * fewest(stages[field]) for field, amount in each.items()) <= there:
            continue
        key = "num_gpus" if name == "GPU" else f"resources.{name}"
        fields = " and ".join(
            f"{field}.{key} is {amount:g}"
            + (f" for each of {fewest(stages[field])} actors" if fewest(stages[field]) > 1 else "")
            for field, amount in each.items()
        )
        less = "less of it, or fewer actors" if there else "num_gpus: 0" if name == "GPU" else "resources: {}"
        raise InputError(
            f"{fields}, and this machine has {there:g} {'GPUs' if name == 'GPU' else name}: write {less}, or --address "
            "of a cluster that has them"
        )


def _start(stages: dict[str, Workers], object_store_bytes: int | None) -> None:
    """With enough logical cores for every actor; the operating system shares the real ones between them."""
    cpus = sum(workers.num_cpus * fewest(workers) for workers in stages.values())
    with _without_stderr():
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, math.ceil(cpus)),
            object_store_memory=object_store_bytes,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


def _join(address: str, named: str) -> None:
    try:
        if plain := re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address):
            host, port = plain.groups()
            if not address.startswith("ray://"):  # Ray puts this machine's own address in the place of loopback
                host = resolve_ip_for_localhost(host)
            socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()  # Ray would try for minutes
        with _without_stderr():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{named} {address}: no Ray cluster answers there: {error}. Write HOST:PORT of its head, such as "
            f"10.0.0.1:6379, or no {named}, for a cluster on this machine"
        ) from error


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Ray's core, which is no Python, writes there that it was told to be quiet."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
