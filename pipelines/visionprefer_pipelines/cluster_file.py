"""Whether a cluster that Ray's autoscaler or KubeRay would make from a YAML file could ever place a recipe's actors."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from visionprefer.errors import InputError
from visionprefer.settings import Workers
from visionprefer_pipelines.demand import fewest, listed, room, wanted


class NodeType(NamedTuple):
    """Machines of one kind.

    Attributes:
        resources: of each, as Ray counts them: CPU, GPU and custom ones.
        most: how many of them there may be.
    """

    name: str
    resources: dict[str, float]
    most: int


class Cluster(NamedTuple):
    """What the autoscaler may start: the head, which is always there, and others, `most` of them in all."""

    kinds: list[NodeType]
    most: int


def read_cluster(file: Path) -> Cluster:
    """The machines of a cluster.

    Raises:
        InputError: if the file is not a cluster's, or does not say how many machines there may be, or what they have.
    """
    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8"))
        if "ray.io/" in str(told.get("apiVersion")):
            told = _of_kuberay(told)
        head, most = str(told["head_node_type"]), int(told["max_workers"])
        kinds = [_kind(name, about, head, most) for name, about in told["available_node_types"].items()]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"--cluster {file}: no cluster of Ray's autoscaler that says what it may start: {type(error).__name__}: "
            f"{error}. Write a file like cluster.yaml, with max_workers, head_node_type and available_node_types, each "
            "with its resources, such as {CPU: 8, GPU: 1}; or one like kuberay/run.yaml"
        ) from error
    return Cluster(kinds, most)


def _of_kuberay(resource: dict[str, Any]) -> dict[str, Any]:
    """The cluster of a RayCluster, RayJob or RayService, as Ray's autoscaler reads it in the head's pod."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    spec = resource["spec"]
    spec = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    named = {"name": resource["metadata"]["name"], "namespace": "default"}
    config: dict[str, Any] = _derive_autoscaling_config_from_ray_cr({"metadata": named, "spec": spec})
    return config


def _kind(name: str, about: dict[str, Any], head: str, most: int) -> NodeType:
    resources = {key: float(value) for key, value in about["resources"].items()}
    return NodeType(name, resources, 1 if name == head else min(most, int(about.get("max_workers", most))))


def check_cluster(stages: dict[str, Workers], file: Path) -> list[str]:
    """Where each stage's actors could be placed, a sentence each.

    Args:
        stages: the actors of each, by the recipe's field that says how many, such as images.workers.
        file: a cluster of Ray's autoscaler.

    Raises:
        InputError: naming every stage that would wait for ever, and what to write.
    """
    cluster = read_cluster(file)
    placed, problems = [], []
    for field, workers in stages.items():
        told = listed(asked := wanted(workers))
        on_one = {kind.name: here for kind in cluster.kinds if (here := room(asked, kind.resources))}
        places = {kind.name: kind.most * on_one[kind.name] for kind in cluster.kinds if kind.name in on_one}
        most = min(sum(places.values()), (1 + cluster.most) * max(on_one.values(), default=0))
        if not places:
            there = "; ".join(f"{kind.name}: {_listed(kind.resources)}" for kind in cluster.kinds)
            problems.append(
                f"{field}: an actor wants {told}, and no machine has so much ({there}): write less, or add a node type"
            )
        elif most < fewest(workers):
            problems.append(
                f"{field}.actors is {fewest(workers)}, each of {told}, and there is room for {most} "
                f"({_listed(places)}): write fewer actors, or a larger max_workers"
            )
        else:
            placed.append(f"{field}: {fewest(workers)} actors of {told}; there is room for {_listed(places)}")
    problems = problems or _together(stages, cluster)
    if problems:
        raise InputError(f"--cluster {file}: some actors would wait for ever.\n" + "\n".join(problems))
    return placed


def _together(stages: dict[str, Workers], cluster: Cluster) -> list[str]:
    """What all stages want at once, where that is more than all machines have."""
    problems = []
    for name in dict.fromkeys(["CPU", "GPU", *(name for workers in stages.values() for name in workers.resources)]):
        amounts = {field: fewest(workers) * wanted(workers).get(name, 0) for field, workers in stages.items()}
        each = {field: amount for field, amount in amounts.items() if amount}
        there = sum(kind.most * kind.resources.get(name, 0) for kind in cluster.kinds)
        there = min(there, (1 + cluster.most) * max(kind.resources.get(name, 0) for kind in cluster.kinds))
        if sum(each.values()) > there:
            problems.append(
                f"{' and '.join(each)} work at once and want {sum(each.values()):g} {name} together, and all machines "
                f"have {there:g}: write fewer actors, or a larger max_workers"
            )
    return problems


def _listed(amounts: dict[str, Any]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items()) or "nothing"
