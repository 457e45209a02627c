"""What strikes a run, at moments drawn by lot."""

import importlib.util
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import psutil
from command import descendants
from runs import SHARDS, Attacked, Place, Strike, add_node, may_mount

IMAGES, REPLIES = SHARDS
DELAY = 2.0  # seconds at most, after the share of the work that was drawn
STOPPED = (2.0, 30.0)  # seconds that a node does not answer: some stay unnoticed, others end it
ACTORS = ("MakeImages", "AskAbout")


def kill_driver(run: Attacked, chance: random.Random) -> bool:
    """At any moment, also while it plans and while it derives."""
    if not _moment(run, chance, *SHARDS):
        return False
    run.command.process.kill()
    return True


def killer(named: str, of: str) -> Strike:
    """Kills a process by its name while what it makes is being made."""

    def strike(run: Attacked, chance: random.Random) -> bool:
        if not _moment(run, chance, of):
            return False
        while run.command.is_running:
            if victims := run.command.processes(named):
                with suppress(psutil.NoSuchProcess):
                    chance.choice(victims).kill()
                    return True
            time.sleep(0.1)
        return False

    return strike


def kill_node(run: Attacked, chance: random.Random) -> bool:
    """The raylet with all its workers."""
    if not _moment(run, chance, *SHARDS):
        return False
    run.cluster.remove_node(chance.choice(_busy_nodes(run)), allow_graceful=False)
    return True


def join_node(run: Attacked, chance: random.Random) -> bool:
    """A further node."""
    if not _moment(run, chance, *SHARDS):
        return False
    add_node(run.cluster)
    return True


def stop_node(run: Attacked, chance: random.Random) -> bool:
    """The raylet does not answer for a while, and its workers go on."""
    if not _moment(run, chance, *SHARDS):
        return False
    raylet = _raylet(chance.choice(_busy_nodes(run)))
    raylet.suspend()
    time.sleep(chance.uniform(*STOPPED))
    with suppress(psutil.NoSuchProcess):
        raylet.resume()
    return True


def fill_disk(run: Attacked, chance: random.Random) -> bool:
    """To the last byte, until the run has ended of it; then there is room again."""
    if not _moment(run, chance, *SHARDS):
        return False
    filler = run.out.parent / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    run.command.end()
    filler.unlink()
    return True


def truncate_shard(run: Attacked, chance: random.Random) -> bool:
    """A shard of images or replies ends too early, and looks untouched otherwise. The run is given once more."""
    run.wait_until(chance.uniform(0.1, 1), *SHARDS)
    time.sleep(chance.uniform(0, DELAY))
    shard = chance.choice(sorted(file for pattern in SHARDS for file in run.out.glob(pattern)))
    written = shard.stat()
    os.truncate(shard, chance.randrange(written.st_size))
    os.utime(shard, ns=(written.st_atime_ns, written.st_mtime_ns))
    run.command.finish()
    run.command.again()
    return True


def overwrite_shard(run: Attacked, chance: random.Random) -> bool:
    """Some bytes of a shard become others; its size, its footer and its time are as they were."""
    if not run.wait_until(chance.uniform(0.1, 0.9), *SHARDS):
        return False
    shard = chance.choice(sorted(file for pattern in SHARDS for file in run.out.glob(pattern)))
    written, data = shard.stat(), bytearray(shard.read_bytes())
    place = chance.randrange(4, len(data) // 2)
    data[place : place + 16] = bytes(byte ^ 255 for byte in data[place : place + 16])
    with shard.open("r+b") as file:
        file.write(data)
    os.utime(shard, ns=(written.st_atime_ns, written.st_mtime_ns))
    return True


def _moment(run: Attacked, chance: random.Random, *patterns: str) -> bool:
    """Wait for a share of the work, and some time more. Returns whether the run goes on then."""
    goes_on = run.wait_until(chance.random(), *patterns)
    time.sleep(chance.uniform(0, DELAY))
    return goes_on and run.command.is_running


def _raylet(node: Any) -> psutil.Process:
    [raylet] = node.all_processes["raylet"]
    return psutil.Process(raylet.process.pid)


def _busy_nodes(run: Attacked) -> list[Any]:
    """Those that run actors, if any does, else all, in the order in which they came."""
    nodes = sorted(run.cluster.worker_nodes, key=lambda node: _raylet(node).create_time())
    return [node for node in nodes if any(descendants(_raylet(node), actor) for actor in ACTORS)] or nodes


class Fault(NamedTuple):
    """Something that goes wrong while a run is under way.

    Attributes:
        strike: makes it go wrong.
        place: where the run is.
        obstacle: why it cannot be tried on this machine, if it cannot.
    """

    strike: Strike
    place: Place = "alone"
    obstacle: Callable[[], str | None] = lambda: None


FAULTS = {
    "driver killed": Fault(kill_driver),
    "generation actor killed": Fault(killer("MakeImages", IMAGES)),
    "judge actor killed": Fault(killer("AskAbout", REPLIES)),
    "vLLM engine killed": Fault(
        killer("EngineCore", REPLIES),
        "vLLM",
        lambda: None if importlib.util.find_spec("vllm") else "vLLM is not installed in this environment",
    ),
    "node killed": Fault(kill_node, "nodes"),
    "node added": Fault(join_node, "nodes"),
    "node stopped for a while": Fault(stop_node, "nodes"),
    "disk full": Fault(
        fill_disk, "small disk", lambda: None if may_mount() else "mounting a small disk takes root, or unshare -rm"
    ),
    "shard truncated": Fault(truncate_shard),
    "shard overwritten": Fault(overwrite_shard),
}
