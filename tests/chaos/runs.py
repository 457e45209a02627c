"""A run of the built-in models that is attacked: on a Ray of its own, on nodes that come and go, on a small disk."""

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from command import Command, command, settings, undisturbed
from verification import Outcome, Writes, compared

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

Place = Literal["alone", "nodes", "small disk", "vLLM"]
SHARDS = ("images/*.parquet", "replies/*/*.parquet")
RECIPE = {"prompts.sample": 12, "images.block_size": 4, "images.batch_size": 8, "judge.batch_size": 8}
CHANGES: dict[Place, dict[str, object]] = {
    "alone": {},
    "nodes": {"images.workers.actors": [1, 2], "judge.workers.actors": [1, 2]},
    "small disk": {},
    # It answers so many at once that a smaller run would be over in an instant.
    "vLLM": {"judge.engine": "vllm", "judge.engine_kwargs": "{max_model_len: 2048}", "prompts.sample": 96},
}
NODES, NODE_CPUS = 2, 3  # each has room for all that a run needs at least
DISK = "64m"
# A node that does not answer is given up after some seconds, not after a minute.
HEALTH = {"health_check_period_ms": 1000, "health_check_timeout_ms": 4000, "health_check_failure_threshold": 3}


class Undisturbed(NamedTuple):
    """A run that nobody disturbed."""

    out: Path
    seconds: float

    def shards(self, pattern: str) -> int:
        """How many it wrote."""
        return len(list(self.out.glob(pattern)))


class Attacked(NamedTuple):
    """A run that has begun."""

    command: Command
    out: Path
    model: Undisturbed  # what it is to become
    cluster: "Cluster | None"

    def wait_until(self, share: float, *patterns: str) -> bool:
        """Wait until a share of the shards is written. Returns whether the run goes on then."""
        wanted = share * sum(map(self.model.shards, patterns))
        while self.command.is_running:
            if sum(len(list(self.out.glob(pattern))) for pattern in patterns) >= wanted:
                return True
            time.sleep(0.05)
        return False


Strike = Callable[[Attacked, random.Random], bool]  # whether it hit: a run may end too early


def run_undisturbed(place: Place, folder: Path) -> Undisturbed:
    """The run that others are compared with."""
    with _ray(place) as cluster:
        seconds = undisturbed(*_words(place, folder / "out", cluster), log=folder / "log")
    return Undisturbed(folder / "out", seconds)


def attack(strike: Strike, place: Place, chance: random.Random, model: Undisturbed, folder: Path) -> Outcome | None:
    """One round: a run is struck, given again until it ends well, and compared. None if it ended before the strike."""
    with _disk(place, folder) as disk, _ray(place) as cluster:
        out = disk / "out"
        with Writes(out, SHARDS) as writes, command(*_words(place, out, cluster), log=folder / "log") as run:
            if not strike(Attacked(run, out, model, cluster), chance):
                return None
            seconds = run.finish()
        return compared(out, model.out, writes.twice(), seconds - model.seconds)


def _words(place: Place, out: Path, cluster: "Cluster | None") -> list[object]:
    at = ["--address", cluster.address] if cluster else []
    return ["run", "quickstart", "--out", out, *settings(RECIPE | CHANGES[place]), *at]


@contextmanager
def _ray(place: Place) -> "Iterator[Cluster | None]":
    """A head that computes nothing, and nodes that do; None where a run starts a Ray of its own."""
    if place != "nodes":
        yield None
        return
    from ray.cluster_utils import Cluster  # it reads the cluster's token from the environment when it is imported

    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(NODES):
            add_node(cluster)
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: "Cluster") -> Any:
    """A further node on this machine."""
    return cluster.add_node(num_cpus=NODE_CPUS)


def may_mount() -> bool:
    """Whether this machine lets us make a small disk."""
    return not subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode


@contextmanager
def _disk(place: Place, folder: Path) -> Iterator[Path]:
    """Where the run is written."""
    if place != "small disk":
        yield folder
        return
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "chaos", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
