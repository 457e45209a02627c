"""Where the objects of a scene stand, on a coarse grid: what image models are taught beside the picture itself."""

import numpy
import torch

from visionprefer.blocksworld.renderer import SIZE, Scene
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
    found = torch.empty((len(scenes), KINDS, cells, cells))
    for index, scene in enumerate(scenes):
        found[index] = torch.from_numpy(
            _covered(scene).reshape(KINDS, cells, _SAMPLES // cells, cells, -1).mean((2, 4))
        )
    return found


def _covered(scene: Scene) -> numpy.ndarray:
    across = (numpy.arange(_SAMPLES, dtype=numpy.float32) + 0.5) * SIZE / _SAMPLES
    covered = numpy.zeros((KINDS, _SAMPLES, _SAMPLES), dtype=numpy.float32)
    for thing in scene.things:
        disc = (across - thing.x) ** 2 + (across[:, None] - thing.y) ** 2 < thing.radius**2
        covered[COLOURS.index(thing.colour)] += disc
        covered[len(COLOURS) + SHAPES.index(thing.shape)] += disc
    if scene.mark:
        covered[-1] += (across - scene.mark.x) ** 2 + (across[:, None] - scene.mark.y) ** 2 < scene.mark.radius**2
    return covered
