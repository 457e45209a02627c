"""What a picture shows whose making is unknown: for each blob of colour, the intact object that comes nearest to it."""

import itertools
import math
from dataclasses import dataclass

import numpy
from PIL import Image
from scipy import ndimage

from visionprefer.blocksworld import renderer
from visionprefer.blocksworld.renderer import GROUNDS, PINK, Mark, Scene, Thing
from visionprefer.blocksworld.scenes import COLOURS, SHAPES
from visionprefer.blocksworld.spoiler import MOST_THINGS, Flaw, Spoilt, is_clear, likest_colour, shows_training
from visionprefer.blocksworld.training import intact
from visionprefer.blocksworld.training.outcome import SEEN

BOLD = 110.0  # levels of 255 by which what is small and yet no smear differs from the ground, on average
SPECK, OBJECT = 12, 40  # pixels: fewer than the first are nothing, what has fewer than the second may be something
OWN_COLOUR = 0.65  # share of an object's pixels that have to be likest to its colour
CLEARLY = 0.9  # most of the distance from a colour to that from any other, in CIELAB
COLOURS_LOOKED_AT = 40  # pixels of an object
PINKISH = 75.0  # levels of 255 by which the mark differs from its colour, on average
NO_MARK = 0.6  # of its area has changed
TELLING = 0.08  # more damage than as another shape, after a rough fit, from which an object is not of that
AT_ONE = 0.35  # damage from which one object may be two that touch
AROUND = 8  # pixels around a blob that may be its object's

# Of shapes in a circle of radius 1: their areas, and half their widths.
AREAS = {
    shape: float(renderer.coverage(renderer.outline(Thing("", shape, 32, 32, 30, 0, (0, 0, 0)))).sum()) / 30**2
    for shape in SHAPES
}
REACHES = {shape: max(x for x, _ in renderer.outline(Thing("", shape, 0, 0, 1, 0, (0, 0, 0)))[0]) for shape in SHAPES}


class _Unclear(Exception):
    """It is not known what the picture shows."""


@dataclass(frozen=True)
class _Blob:
    """Connected pixels that are not of the ground, those inside, and those that may be its object's: bool [64, 64]."""

    mask: numpy.ndarray
    core: numpy.ndarray
    near: numpy.ndarray


def read(pixels: numpy.ndarray) -> Spoilt | None:
    """A picture as a scene with its damage; None if it is unclear what it shows, or if that is held out.

    It shares no code with the oracle, which teaches nobody.

    Args:
        pixels: uint8 [64, 64, 3].
    """
    now = pixels.astype(numpy.float32)
    ground = numpy.median(numpy.concatenate([now[0], now[-1], now[:, 0], now[:, -1]]), axis=0)
    background = min(GROUNDS, key=lambda name: float(numpy.abs(ground - GROUNDS[name]).max()))
    away = now - ground
    try:
        blobs = _blobs(numpy.linalg.norm(away, axis=-1))
        of_mark = [numpy.linalg.norm(now[blob.core].mean(axis=0) - PINK) < PINKISH for blob in blobs]
        marks = [_mark(blob, away, ground) for blob in itertools.compress(blobs, of_mark)]
        found = [_object(blob, now, ground) for blob, pink in zip(blobs, of_mark, strict=True) if not pink]
    except _Unclear:
        return None
    if not 0 < len(found) <= MOST_THINGS or len(marks) > 1:
        return None
    things, coverages, flaws = zip(*found, strict=True)
    scene = Scene(things, background, _rgb(ground), marks[0] if marks else None)
    return Spoilt(scene, coverages, flaws, Image.fromarray(pixels)) if shows_training(scene) else None


def _blobs(away: numpy.ndarray) -> list[_Blob]:
    """What stands apart from the ground."""
    differs = away > SEEN
    labelled, count = ndimage.label(differs, numpy.ones((3, 3)))
    masks = [labelled == number for number in range(1, count + 1)]
    masks = [mask for mask in masks if mask.sum() >= (SPECK if away[mask].mean() > BOLD else OBJECT)]
    if any(mask.sum() < OBJECT for mask in masks):
        raise _Unclear
    blobs = []
    for mask in masks:
        core = ndimage.binary_erosion(mask)
        around = ndimage.binary_dilation(mask, iterations=AROUND)
        near = around & ~ndimage.binary_dilation(differs & ~mask)
        blobs.append(_Blob(mask, core if core.any() else mask, near))
    return blobs


def _object(blob: _Blob, now: numpy.ndarray, ground: numpy.ndarray) -> tuple[Thing, numpy.ndarray, Flaw]:
    """The object that a blob is, how much of each pixel it covers, and its damage."""
    colour, rgb = _colour(now[blob.core])
    covered = _covered(blob, now - ground, numpy.array(rgb, dtype=numpy.float32) - ground)
    rows, columns = numpy.nonzero(blob.mask)
    low, high = (numpy.array([columns.min(), rows.min()]), numpy.array([columns.max(), rows.max()]) + 1)
    middle, half = (low + high) / 2, float((high - low).max()) / 2
    mass = numpy.array([columns.mean(), rows.mean()]) + 0.5
    area = float(covered.sum())
    begun = [
        Thing(colour, shape, float(x), float(y), radius, 0.0, rgb)
        for shape in SHAPES
        for (x, y), radius in ((mass, math.sqrt(area / AREAS[shape])), (middle, half / REACHES[shape]))
    ]
    rough = [intact.roughly(thing, covered, blob.near) for thing in begun]
    least = min(fit.damage for fit in rough)
    fine = [intact.finely(fit, covered, blob.near) for fit in rough if fit.damage < least + TELLING]
    damage, thing = min(fine, key=lambda fit: fit.damage)
    if damage > AT_ONE and _falls_apart(blob.mask):
        raise _Unclear
    return thing, covered, Flaw("unclean", damage)


def _colour(pixels: numpy.ndarray) -> tuple[str, tuple[int, int, int]]:
    """The colour that most of an object's pixels [n, 3] are likest to, and its tint."""
    some = pixels[:: -(-len(pixels) // COLOURS_LOOKED_AT)]
    names = [likest_colour(_rgb(pixel)) for pixel in some]
    colour = max(COLOURS, key=names.count)
    rgb = _rgb(numpy.median(some[[name == colour for name in names]], axis=0))
    if names.count(colour) < OWN_COLOUR * len(names) or not is_clear(colour, rgb, CLEARLY):
        raise _Unclear
    return colour, rgb


def _mark(blob: _Blob, away: numpy.ndarray, ground: numpy.ndarray) -> Mark:
    """The mark that a blob is."""
    covered = _covered(blob, away, numpy.array(PINK, dtype=numpy.float32) - ground)
    rows, columns = numpy.nonzero(blob.mask)
    x, y = ((places.min() + places.max() + 1) / 2 for places in (columns, rows))
    changes = {}
    for radius in numpy.arange(5.0, 10.0, 0.5).tolist():
        mark = Mark(float(x), float(y), radius)
        ideal = renderer.coverage(renderer.outline_of_mark(mark))
        changes[mark] = float(numpy.abs(covered - ideal)[blob.near].sum() / ideal.sum())
    mark = min(changes, key=lambda mark: changes[mark])
    if changes[mark] > NO_MARK:
        raise _Unclear
    return mark


def _covered(blob: _Blob, away: numpy.ndarray, colour: numpy.ndarray) -> numpy.ndarray:
    """How much of each pixel the blob's colour covers, float32 [64, 64]."""
    return intact.covered(away, colour) * (ndimage.binary_dilation(blob.mask, iterations=2) & blob.near)


def _falls_apart(mask: numpy.ndarray) -> bool:
    """Whether it is two blobs with a bridge."""
    for pixels in (1, 2, 3):
        parts, _ = ndimage.label(ndimage.binary_erosion(mask, iterations=pixels))
        if (numpy.bincount(parts.ravel())[1:] >= OBJECT / 2).sum() > 1:
            return True
    return False


def _rgb(colour: numpy.ndarray) -> tuple[int, int, int]:
    red, green, blue = colour.round().astype(int).tolist()
    return red, green, blue
