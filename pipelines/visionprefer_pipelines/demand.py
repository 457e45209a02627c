"""What the stages of a run ask of a cluster, in Ray's own counts, and what there is too little of."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from visionprefer.align.ppo_recipe import PPORecipe
from visionprefer.recipe import PolishRecipe, Recipe
from visionprefer.settings import Workers
from visionprefer.training_settings import TrainingSettings

Amounts = dict[str, float]  # by resource: CPU, GPU and custom ones


def stages_of(recipe: Recipe | PolishRecipe | TrainingSettings) -> dict[str, Workers]:
    """Who works in a run or a training, by the field that says how many they are."""
    if isinstance(recipe, TrainingSettings):
        drawing = {"rollout_workers": recipe.rollout_workers} if isinstance(recipe, PPORecipe) else {}
        return {"workers": recipe.workers, **drawing}
    if isinstance(recipe, PolishRecipe):
        return {"polish.workers": recipe.polish.workers}
    stages = {"images.workers": recipe.images.workers, "judge.workers": recipe.judge.workers}
    if recipe.judge.engine == "vllm":
        stages["around the judge"] = Workers()  # who reads and commits the rows that its engines answer
    return stages


def fewest(workers: Workers) -> int:
    """How many actors there are at least."""
    return workers.actors if isinstance(workers.actors, int) else workers.actors[0]


def wanted(workers: Workers) -> Amounts:
    """What each actor reserves; Ray counts in ten-thousandths."""
    reserved = {"CPU": workers.num_cpus, "GPU": workers.num_gpus, **workers.resources}
    return {name: round(amount, 4) for name, amount in reserved.items() if amount}


def listed(amounts: Amounts) -> str:
    """In words."""
    return " and ".join(f"{amount:g} {name}" for name, amount in amounts.items())


def room(asked: Amounts, machine: Amounts) -> int:
    """How many such actors one machine holds."""
    return min(math.floor(machine.get(name, 0) / amount + 1e-9) for name, amount in asked.items())


class Machine(NamedTuple):
    """A node of a cluster.

    Attributes:
        address: of the node.
        has: CPU, GPU and custom resources, and bytes of memory and object_store_memory; nothing if it is dead.
        free: what of it nobody has reserved.
    """

    address: str
    has: Amounts
    free: Amounts


class Placed(NamedTuple):
    """How many of a stage's actors find room, and what the next one waits for."""

    actors: int
    waits_for: str  # empty if nobody waits


def place(stages: dict[str, Workers], machines: Sequence[Machine]) -> dict[str, Placed]:
    """Give the fewest actors of each stage, as `stages_of` names them, room.

    Those that ask for more kinds of resources come first, and machines with fewer other kinds, as Ray keeps machines
    with GPUs for those who want one.
    """
    left = [machine._replace(free=dict(machine.free)) for machine in machines]
    placed = {}
    for field, workers in sorted(stages.items(), key=lambda stage: -len(wanted(stage[1]))):
        asked, actors = wanted(workers), 0
        for machine in sorted(left, key=lambda one: len({name for name in one.has if ":" not in name} - set(asked))):
            here = min(room(asked, machine.free), fewest(workers) - actors)
            actors += here
            for name, amount in asked.items():
                machine.free[name] = machine.free.get(name, 0) - here * amount
        placed[field] = Placed(actors, "" if actors == fewest(workers) else lacking(asked, left))
    return {field: placed[field] for field in stages}


def lacking(asked: Amounts, machines: Sequence[Machine]) -> str:
    """What an actor waits for, such as "1 GPU (0 of 2 free)"; empty if some machine has room for it."""
    free = [machine.free for machine in machines]
    if any(room(asked, one) for one in free):
        return ""
    nowhere = {name: amount for name, amount in asked.items() if all(one.get(name, 0) < amount for one in free)}
    told = " and ".join(
        f"{amount:g} {name} ({_sum(name, free):g} of {_sum(name, [machine.has for machine in machines]):g} free)"
        for name, amount in (nowhere or asked).items()
    )
    return told if nowhere else f"{told} on one machine"


def _sum(name: str, amounts: Sequence[Amounts]) -> float:
    return sum(one.get(name, 0) for one in amounts)
