"""Pictures of training scenes, and batches of them."""

import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from visionprefer.blocksworld.renderer import Scene, compose, draw
from visionprefer.blocksworld.scenes import Description, sample

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # chance is drawn on the CPU, so that it is the same


@dataclass(frozen=True)
class Pool:
    """Scenes with what they show.

    Attributes:
        descriptions: what was asked for.
        scenes: what was drawn.
        pictures: uint8 [scenes, 3, 64, 64].
    """

    descriptions: list[Description]
    scenes: list[Scene]
    pictures: torch.Tensor


def pool(size: int, seed: int) -> Pool:
    """So many scenes of the training split."""
    chance = random.Random(seed)
    descriptions = [sample("training", chance) for _ in range(size)]
    scenes = [compose(description, chance) for description in track(descriptions, "drawing scenes")]
    pictures = torch.empty((size, 3, 64, 64), dtype=torch.uint8)
    for index, scene in enumerate(scenes):
        pictures[index] = as_tensor(draw(scene))
    return Pool(descriptions, scenes, pictures)


def batch(size: int, among: int, step: int, seed: int) -> list[int]:
    """Which rows make up the batch with this number: the same whenever it is asked for."""
    return numpy.random.default_rng((seed, step)).integers(among, size=size).tolist()


def as_tensor(picture: object) -> torch.Tensor:
    """A picture as uint8 [3, 64, 64]."""
    return torch.from_numpy(numpy.array(picture)).permute(2, 0, 1)


def scaled(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 pictures as float32 from -1 to 1, on the training's device."""
    return pictures.to(DEVICE).float() / 127.5 - 1


def in_processes(work: Callable[..., Any], on: list[Any], at_once: int, what: str) -> list[Any]:
    """What work makes of each, in their order, by a process a core."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(track(pool.map(work, on, chunksize=at_once), what, total=len(on)))


class _Steps(Dataset[Any]):
    def __init__(self, prepare: Callable[[int], Any]) -> None:
        self.prepare = prepare

    def __getitem__(self, step: int) -> Any:
        return self.prepare(step)


def ahead(prepare: Callable[[int], Any], steps: range) -> Iterator[Any]:
    """What is prepared for each step; for a GPU, which would wait for it, by other processes."""
    workers = min(12, os.cpu_count() or 1) if DEVICE == "cuda" else 0
    return iter(DataLoader(_Steps(prepare), sampler=steps, batch_size=None, num_workers=workers))
