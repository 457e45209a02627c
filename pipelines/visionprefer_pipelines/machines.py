"""The machines of the Ray cluster that this process is connected to, and the stages that wait for more of them."""

import socket
import time
from contextlib import suppress
from pathlib import Path

import ray
from ray.autoscaler.v2.schema import ClusterStatus
from ray.autoscaler.v2.sdk import get_cluster_status

from visionprefer.settings import Workers
from visionprefer_pipelines.demand import Machine, lacking, wanted
from visionprefer_pipelines.progress import SECONDS_BETWEEN_LINES

SECONDS_TO_ANSWER = 5


def machines() -> list[Machine]:
    """Those that are alive, then those that have died."""
    status = _status()
    return _alive(status) + [Machine(node.ip_address, {}, {}) for node in status.failed_nodes]


def waiting(stages: dict[str, Workers]) -> str:
    """Which stages have actors that no machine has room for, and what these wait for; empty if there are none.

    One call of the cluster's head, which takes some milliseconds. It knows actors by what they reserve: of stages that
    reserve the same, it cannot say which one waits.
    """
    status = _status()
    demands = [*status.resource_demands.ray_task_actor_demand, *status.resource_demands.placement_group_demand]
    pending = [request.bundle for demand in demands for request in demand.bundles_by_count]
    there = _alive(status)
    fields: dict[str, list[str]] = {}
    for field, workers in stages.items():
        asked = wanted(workers)
        lacks = lacking(asked, there)
        if lacks and asked in pending:
            fields.setdefault(lacks, []).append(field)
    return "; ".join(f"{' or '.join(named)} wait for {lacks}" for lacks, named in fields.items())


class Waits:
    """What stages wait for, asked of the cluster no oftener than a line is printed."""

    def __init__(self, stages: dict[str, Workers]) -> None:
        self.stages, self.asked, self.told = stages, time.monotonic(), ""

    def now(self) -> str:
        """As `waiting` says it; a cluster that does not answer says what it said before."""
        if time.monotonic() - self.asked > SECONDS_BETWEEN_LINES:
            self.asked = time.monotonic()
            with suppress(ray.exceptions.RayError):
                self.told = waiting(self.stages)
        return self.told


def session_folder() -> Path | None:
    """Where the cluster's node on this machine spills and logs; None if it has none here."""
    here = [node for node in ray.nodes() if node["Alive"] and node["NodeManagerHostname"] == socket.gethostname()]
    return Path(here[0]["ObjectStoreSocketName"]).parents[1] if here else None


def _status() -> ClusterStatus:
    return get_cluster_status(ray.get_runtime_context().gcs_address, SECONDS_TO_ANSWER)


def _alive(status: ClusterStatus) -> list[Machine]:
    nodes = sorted([*status.active_nodes, *status.idle_nodes], key=lambda node: (node.ip_address, str(node.node_id)))
    return [Machine(node.ip_address, node.total_resources(), node.available_resources()) for node in nodes]
