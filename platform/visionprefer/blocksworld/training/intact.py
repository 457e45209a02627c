"""How far an object of a picture is from the intact shapes, wherever they fit it best: its damage, measured."""

import itertools
from dataclasses import replace
from typing import NamedTuple

import numpy
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from visionprefer.blocksworld import renderer
from visionprefer.blocksworld.renderer import SIZE, Thing
from visionprefer.blocksworld.scenes import SHAPES
from visionprefer.blocksworld.spoiler import UNNOTICED, noticed

TELLING = 0.05  # less damage as another shape, from which an object may be of that
MOST_DAMAGE = 0.7  # that an object may have
OTHER = 0.35  # the same, of one that came out in another shape
MOVED = 2  # pixels by which an object may have moved, either way
SCALES = (0.85, 0.92, 1.0, 1.08, 1.15)  # sizes that it may have, as shares of the drawn one
TURNS = (-6, 0, 6)  # degrees by which it may be turned
SOFT = 0.4  # pixels, a Gaussian's, by which its outline may be blurred as autoencoders do
FINE = (  # what is tried at last, either way
    *(("x", 0.5), ("y", 0.5), ("radius", 0.4), ("angle", 3.0)) * 2,
    *(("x", 0.25), ("y", 0.25), ("radius", 0.2), ("angle", 1.5)) * 2,
)


class Fit(NamedTuple):
    """Where an intact object lies nearest to what is there, and the area changed over its own."""

    damage: float
    posed: Thing


def damage(thing: Thing, covered: numpy.ndarray, near: numpy.ndarray) -> float:
    """Area changed over the area of the intact object, where that fits best.

    Args:
        thing: the object as it was drawn, or about where it may be.
        covered: how much of each pixel it covers now, float32 [64, 64].
        near: which pixels may be the object's or are its surroundings, bool [64, 64].
    """
    return finely(roughly(thing, covered, near), covered, near).damage


def roughly(thing: Thing, covered: numpy.ndarray, near: numpy.ndarray) -> Fit:
    """Where an object fits best, of all places and sizes that it may have; arguments as `damage` wants them."""
    rows, columns = (slice(*numpy.flatnonzero(near.any(axis=axis))[[0, -1]] + (0, 1)) for axis in (1, 0))
    turns = (0,) if thing.shape in ("circle", "ring") else TURNS
    found = []
    for scale, turn in itertools.product(SCALES, turns):
        posed = replace(thing, radius=thing.radius * scale, angle=thing.angle + turn)
        ideal = numpy.pad(renderer.coverage(renderer.outline(posed)), MOVED)
        moved = sliding_window_view(ideal, (SIZE, SIZE))[:, :, rows, columns]
        change = (covered[rows, columns] - moved)[:, :, near[rows, columns]]
        changed = noticed(change).sum(axis=-1) / ideal.sum()
        down, right = numpy.unravel_index(changed.argmin(), changed.shape)
        found.append(
            Fit(float(changed.min()), replace(posed, x=thing.x + MOVED - int(right), y=thing.y + MOVED - int(down)))
        )
    return min(found, key=lambda fit: fit.damage)


def finely(fit: Fit, covered: numpy.ndarray, near: numpy.ndarray) -> Fit:
    """A fit made better by small moves, turns and sizes; arguments as `damage` wants them."""
    for (name, by), sign in itertools.product(FINE, (-1, 1)):
        posed = replace(fit.posed, **{name: getattr(fit.posed, name) + sign * by})
        changed = _changed(covered, renderer.coverage(renderer.outline(posed)), near)
        if changed < fit.damage:
            fit = Fit(changed, posed)
    soft = ndimage.gaussian_filter(renderer.coverage(renderer.outline(fit.posed)), SOFT)
    return fit._replace(damage=min(fit.damage, _changed(covered, soft, near)))


def _changed(covered: numpy.ndarray, ideal: numpy.ndarray, near: numpy.ndarray) -> float:
    return float(noticed(covered - ideal)[near].sum() / ideal.sum())


def likeliest(thing: Thing, covered: numpy.ndarray, near: numpy.ndarray) -> tuple[Thing, float] | None:
    """The object in the shape that it has by now, and its damage; None if neither is clear.

    Args:
        thing: the object as it was drawn.
        covered, near: as `damage` wants them.
    """
    own = damage(thing, covered, near)
    if own > TELLING:
        others = [replace(thing, shape=shape) for shape in SHAPES if shape != thing.shape]
        (least, at), (second, _) = sorted((damage(each, covered, near), at) for at, each in enumerate(others))[:2]
        if least < own - TELLING:
            return (others[at], least) if least < min(OTHER, second - TELLING) else None
    return (thing, own) if own < MOST_DAMAGE else None


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
