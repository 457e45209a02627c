"""What runs need is looked for: packages, disks, GPUs, a cluster, and room there for a recipe's actors."""

import importlib.util
import platform
import shutil
from pathlib import Path
from typing import NamedTuple

from visionprefer.errors import InputError, remedy
from visionprefer.recipe import PolishRecipe, Recipe
from visionprefer.settings import Workers
from visionprefer.training_settings import TrainingSettings
from visionprefer_pipelines.demand import Machine, Placed, fewest, listed, place, stages_of, wanted
from visionprefer_pipelines.extras import missing, versions

LIBRARIES = ("visionprefer", "ray", "torch", "diffusers", "transformers", "peft", "pyarrow", "vllm", "openai")
MOST_OF_A_DISK = 0.95  # beyond it Ray puts nothing there any more (its local_fs_capacity_threshold)
EXTRAS = {"transformers": ["local"], "openai": ["local", "api"], "vllm": ["vllm"]}  # that an engine needs


class Disk(NamedTuple):
    """Room on a disk, in bytes."""

    holds: str
    folder: Path
    free: int
    total: int


class Found(NamedTuple):
    """What was found.

    Attributes:
        versions: of Python and libraries.
        extras: what is missing for each.
        gpus: of this machine.
        disks: of this machine.
        machines: of the cluster; none if it could not be looked at.
        actors: of each of the recipe's stages, and how many of them find room now.
        problems: a sentence for each thing that stops a run.
    """

    versions: dict[str, str]
    extras: dict[str, list[str]]
    gpus: list[str]
    disks: list[Disk]
    machines: list[Machine]
    actors: dict[str, tuple[Workers, Placed]]
    problems: list[str]


def look(recipe: Recipe | PolishRecipe | TrainingSettings | None, address: str | None) -> Found:
    """Look for all that a run or a training needs, and leave nothing behind.

    Args:
        recipe: of it; None: what every run needs.
        address: of a Ray cluster; None: see `cluster.connected`.
    """
    extras, stages = missing(), stages_of(recipe) if recipe else {}
    needed = EXTRAS[_engine(recipe)]
    problems = [f"not installed: {', '.join(extras[name])}. Write: {remedy(name)}" for name in needed if extras[name]]
    disks = [_disk("runs, in this folder", Path.cwd())]
    machines: list[Machine] = []
    if importlib.util.find_spec("ray"):
        try:
            machines, session = _cluster(address, stages)
            problems += _never_placed(stages, machines)
            disks += [_disk("what Ray spills, and its logs", session)] if session else []
        except InputError as error:
            problems.append(str(error))
    problems += [
        f"{disk.folder}: {disk.free / disk.total:.0%} of the disk is free, and Ray stops writing there at "
        f"{1 - MOST_OF_A_DISK:.0%}: make room"
        for disk in disks
        if disk.free < (1 - MOST_OF_A_DISK) * disk.total
    ]
    told = {"Python": platform.python_version(), **versions(LIBRARIES)}
    placed = place(stages, machines) if machines else {}
    actors = {field: (stages[field], found) for field, found in placed.items()}
    return Found(told, extras, _gpus(), disks, machines, actors, problems)


def _engine(recipe: Recipe | PolishRecipe | TrainingSettings | None) -> str:
    """What answers, where a model is asked."""
    if isinstance(recipe, Recipe):
        return recipe.judge.engine
    return recipe.polish.engine if isinstance(recipe, PolishRecipe) else "transformers"


def _cluster(address: str | None, stages: dict[str, Workers]) -> tuple[list[Machine], Path | None]:
    """The machines, and where the one that this process runs on spills.

    Raises:
        InputError: if no cluster answers.
    """
    from visionprefer_pipelines.cluster import connected
    from visionprefer_pipelines.machines import machines, session_folder

    # What a cluster of its own lacks is told afterwards, beside all else: it is started for the cores alone.
    cores = {field: workers.model_copy(update={"num_gpus": 0, "resources": {}}) for field, workers in stages.items()}
    with connected(address, cores):
        return machines(), session_folder()


def _never_placed(stages: dict[str, Workers], machines: list[Machine]) -> list[str]:
    """The stages that the cluster has no room for even if nobody else uses it."""
    idle = [machine._replace(free=machine.has) for machine in machines]
    return [
        f"{field}: {fewest(stages[field])} actors of {listed(wanted(stages[field]))}, and the cluster has room for "
        f"{placed.actors}; the next would wait for {placed.waits_for}: write less, or --address of a larger cluster"
        for field, placed in place(stages, idle).items()
        if placed.waits_for
    ]


def _disk(holds: str, folder: Path) -> Disk:
    usage = shutil.disk_usage(folder)
    return Disk(holds, folder, usage.free, usage.total)


def _gpus() -> list[str]:
    if not importlib.util.find_spec("torch"):
        return []
    import torch

    properties = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [f"{one.name}, {one.total_memory / 2**30:.0f} GiB" for one in properties]
