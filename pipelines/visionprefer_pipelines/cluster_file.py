"""Whether a cluster that Ray's autoscaler would make from a YAML file could ever place the actors of a recipe."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from visionprefer.errors import InputError
from visionprefer.recipe import Workers


class NodeType(NamedTuple):
    """Machines of one kind.

    Attributes:
        resources: of each, as Ray counts them: CPU, GPU and custom ones.
        most: how many of them there may be.
    """

    name: str
    resources: dict[str, float]
    most: int


def node_types(file: Path) -> list[NodeType]:
    """The kinds of machines that work in a cluster.

    Raises:
        InputError: if the file is not a cluster's, or says of some kind neither what it has nor how many there may be.
    """
    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8"))
        kinds: dict[str, Any] = told["available_node_types"]
        head, most = told["head_node_type"], int(told.get("max_workers", 0))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(
            f"--cluster {file}: no cluster of Ray's autoscaler: {type(error).__name__}: {error}. Write a file with "
            "available_node_types and head_node_type, like cluster.yaml"
        ) from error
    found = []
    for name, kind in kinds.items():
        if "resources" not in kind:
            raise InputError(
                f"--cluster {file}: available_node_types.{name} does not say its resources. Write what each "
                "machine has, such as resources: {CPU: 8, GPU: 1}"
            )
        of_kind = 1 if name == head else min(most, int(kind.get("max_workers", most)))
        found.append(NodeType(name, {key: float(value) for key, value in kind["resources"].items()}, of_kind))
    return found


def check_cluster(stages: dict[str, Workers], file: Path) -> list[str]:
    """Where each stage's actors could be placed, a sentence each.

    Args:
        stages: the actors of each, by the recipe's field that says how many, such as images.workers.
        file: a cluster of Ray's autoscaler.

    Raises:
        InputError: naming every stage that would wait for ever, and what to write.
    """
    kinds = node_types(file)
    placed, problems = [], []
    for field, workers in stages.items():
        wanted = {"CPU": workers.num_cpus, "GPU": workers.num_gpus, **workers.resources}
        wanted = {name: amount for name, amount in wanted.items() if amount}
        told = " and ".join(f"{amount:g} {name}" for name, amount in wanted.items())
        room = {kind.name: kind.most * _on_one(wanted, kind) for kind in kinds if _on_one(wanted, kind)}
        fewest = workers.actors if isinstance(workers.actors, int) else workers.actors[0]
        if not room:
            there = "; ".join(f"{kind.name}: {_listed(kind.resources)}" for kind in kinds)
            problems.append(
                f"{field}: an actor wants {told}, and no machine has so much ({there}): write less, or add a node type"
            )
        elif sum(room.values()) < fewest:
            problems.append(
                f"{field}.actors is {fewest}, each of {told}, and there is room for {sum(room.values())} "
                f"({_listed(room)}): write fewer actors, or a larger max_workers"
            )
        else:
            placed.append(f"{field}: {fewest} actors of {told}; there is room for {_listed(room)}")
    problems = problems or _together(stages, kinds)
    if problems:
        raise InputError(f"--cluster {file}: some actors would wait for ever.\n" + "\n".join(problems))
    return placed


def _on_one(wanted: dict[str, float], kind: NodeType) -> int:
    """How many such actors one machine holds."""
    return min(math.floor(kind.resources.get(name, 0) / amount) for name, amount in wanted.items())


def _together(stages: dict[str, Workers], kinds: list[NodeType]) -> list[str]:
    """What all stages want at once, where that is more than all machines have."""
    problems = []
    for name in dict.fromkeys(["CPU", "GPU", *(name for workers in stages.values() for name in workers.resources)]):
        each = {field: _amount(workers, name) for field, workers in stages.items() if _amount(workers, name)}
        there = sum(kind.most * kind.resources.get(name, 0) for kind in kinds)
        if sum(each.values()) > there:
            problems.append(
                f"{' and '.join(each)} work at once and want {sum(each.values()):g} {name} together, and all machines "
                f"have {there:g}: write fewer actors, or a larger max_workers"
            )
    return problems


def _amount(workers: Workers, name: str) -> float:
    fewest = workers.actors if isinstance(workers.actors, int) else workers.actors[0]
    each = {"CPU": workers.num_cpus, "GPU": workers.num_gpus, **workers.resources}
    return fewest * each.get(name, 0)


def _listed(amounts: dict[str, Any]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items()) or "nothing"
