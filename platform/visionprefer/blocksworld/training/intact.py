"""How far an object of a picture is from the intact shapes, wherever they fit it best: its damage, measured."""

import itertools
import math
from dataclasses import replace

import numpy
from numpy.lib.stride_tricks import sliding_window_view

from visionprefer.blocksworld import renderer
from visionprefer.blocksworld.renderer import SIZE, Thing
from visionprefer.blocksworld.scenes import SHAPES
from visionprefer.blocksworld.spoiler import UNNOTICED, noticed

TELLING = 0.05  # less damage as another shape, from which it is unclear which shape an object has
MOVED = 2  # pixels by which an object may have moved, either way
SCALES = (0.85, 0.92, 1.0, 1.08, 1.15)  # sizes that it may have, as shares of the drawn one
TURNS = (-6, 0, 6)  # degrees by which it may be turned


def damage(thing: Thing, covered: numpy.ndarray, near: numpy.ndarray) -> float:
    """Area changed over the area of the intact object, where that fits best.

    Args:
        thing: the object as it was drawn.
        covered: how much of each pixel it covers now, float32 [64, 64].
        near: which pixels may be the object's or are its surroundings, bool [64, 64].
    """
    rows, columns = (slice(*numpy.flatnonzero(near.any(axis=axis))[[0, -1]] + (0, 1)) for axis in (1, 0))
    turns = (0,) if thing.shape in ("circle", "ring") else TURNS
    least = math.inf
    for scale, turn in itertools.product(SCALES, turns):
        whole = replace(thing, radius=thing.radius * scale, angle=thing.angle + turn)
        ideal = numpy.pad(renderer.coverage(renderer.outline(whole)), MOVED)
        moved = sliding_window_view(ideal, (SIZE, SIZE))[:, :, rows, columns]
        change = (covered[rows, columns] - moved)[:, :, near[rows, columns]]
        least = min(least, float(noticed(change).sum(axis=-1).min() / ideal.sum()))
    return least


def seems_other(thing: Thing, covered: numpy.ndarray, near: numpy.ndarray, worth: float) -> bool:
    """Whether an object would have clearly less damage than it has, `worth`, if it were of another shape."""
    shapes = [shape for shape in SHAPES if shape != thing.shape] if worth > TELLING else []
    return any(damage(replace(thing, shape=shape), covered, near) < worth - TELLING for shape in shapes)


def covered(away: numpy.ndarray, colour: numpy.ndarray) -> numpy.ndarray:
    """How much of each pixel a colour covers: float32 [64, 64]. What is of another covers the less the more it differs.

    Args:
        away: the picture's differences from the background, float32 [64, 64, 3].
        colour: the colour's, float32 [3].
    """
    contrast = float(numpy.linalg.norm(colour))
    along = (away @ colour) / contrast**2
    aside = numpy.linalg.norm(away - along[..., None] * colour, axis=2) / contrast
    return numpy.clip(numpy.minimum(along, 1) - numpy.maximum(aside - UNNOTICED, 0), 0, 1)
