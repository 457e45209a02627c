"""Where the objects of a scene stand, on a coarse grid: what image models are taught beside the picture itself."""

import torch

from visionprefer.blocksworld.renderer import SIZE, Mark, Scene, Thing
from visionprefer.blocksworld.scenes import COLOURS, SHAPES

KINDS = len(COLOURS) + len(SHAPES) + 1  # what stands there: its colour and its shape, or the forbidden mark
_SAMPLES = 32  # points across the picture at which is looked


def coverage(scenes: list[Scene], cells: int) -> torch.Tensor:
    """How much of each cell the circles around objects of each kind cover, 0 to 1.

    The answer is float32 [scenes, KINDS, cells, cells].

    Args:
        scenes: what was drawn.
        cells: across the picture and down it, a divisor of 32.
    """
    found = torch.zeros((len(scenes), KINDS, cells, cells))
    for covered, scene in zip(found, scenes, strict=True):
        for thing in scene.things:
            share = disc(thing, cells)
            covered[COLOURS.index(thing.colour)] += share
            covered[len(COLOURS) + SHAPES.index(thing.shape)] += share
        if scene.mark:
            covered[-1] += disc(scene.mark, cells)
    return found


def disc(thing: Thing | Mark, cells: int) -> torch.Tensor:
    """How much of each cell the circle around an object covers, 0 to 1: float32 [cells, cells]."""
    across = (torch.arange(_SAMPLES) + 0.5) * SIZE / _SAMPLES
    within = (across - thing.x) ** 2 + (across[:, None] - thing.y) ** 2 < thing.radius**2
    return within.float().reshape(cells, _SAMPLES // cells, cells, -1).mean((1, 3))
