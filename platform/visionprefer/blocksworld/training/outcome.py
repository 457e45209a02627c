"""What a redrawn picture shows: the scene that it was made from, with what clearly came out otherwise."""

from dataclasses import dataclass, replace

import numpy
from PIL import Image
from scipy import ndimage

from visionprefer.blocksworld import renderer
from visionprefer.blocksworld.renderer import Mark, Thing
from visionprefer.blocksworld.spoiler import Flaw, Spoilt, is_clear, likest_colour, shows_training
from visionprefer.blocksworld.training import intact

SEEN = 60.0  # levels of 255 by which a pixel differs from the ground
TRACE = 20.0  # the same, where something that is gone may still be made out
PINKISH = 110.0  # levels of 255 by which a pixel of the mark may differ from its colour
LEAST_MARK = 0.2  # share of it that has to be left
LEAST_SEEN = 0.35  # share of an object that has to be seen
MOST_LEFT = 0.08  # share of an object, or of the mark, that may be seen where it is gone
MOST_STRAY = 40  # pixels that may lie about in a redrawn picture


class _Unclear(Exception):
    """It is not known what the picture shows."""


@dataclass
class _View:
    """A picture before and after it was redrawn, float32 [64, 64, 3], and what of it nobody has accounted for."""

    ground: numpy.ndarray
    before: numpy.ndarray
    now: numpy.ndarray
    stray: numpy.ndarray  # bool [64, 64]


def after(case: Spoilt, pixels: numpy.ndarray) -> Spoilt | None:
    """The case redrawn: what is there now, with the damage that it has now; None if that is unclear or held out.

    An object may have gone, or have come out in another colour or shape, if it clearly did.

    Args:
        case: the picture, and all that is known of it.
        pixels: what became of it, uint8 [64, 64, 3].
    """
    ground = numpy.array(case.scene.ground, dtype=numpy.float32)
    before, now = (numpy.asarray(each, dtype=numpy.float32) for each in (case.picture, pixels))
    view = _View(ground, before, now, _differs(now, ground, SEEN))
    try:
        found = [(covered, _object(case, index, view)) for index, covered in enumerate(case.coverages)]
        mark = _mark(case.scene.mark, view) if case.scene.mark else None
    except _Unclear:
        return None
    there = [(covered, *each) for covered, each in found if each]
    coverages, things, flaws = zip(*there, strict=True) if there else ((), (), ())
    scene = replace(case.scene, things=things, mark=mark)
    if view.stray.sum() > MOST_STRAY or not shows_training(scene):
        return None
    return Spoilt(scene, coverages, flaws, Image.fromarray(pixels))


def _differs(pixels: numpy.ndarray, colour: numpy.ndarray, levels: float) -> numpy.ndarray:
    """Which pixels differ from a colour by so much."""
    return numpy.linalg.norm(pixels - colour, axis=-1) > levels


def _object(case: Spoilt, index: int, view: _View) -> tuple[Thing, Flaw] | None:
    """What one of the objects came out as, and its damage; None if it is gone."""
    thing, covered, flaw = case.scene.things[index], case.coverages[index], case.flaws[index]
    core, whole = covered > 0.7 * covered.max(), renderer.coverage(renderer.outline(thing))
    around = ndimage.binary_dilation(numpy.maximum(covered, whole) > 0.05, iterations=3)  # where it should be, too
    if _differs(view.before, view.ground, SEEN)[core].mean() < LEAST_SEEN:
        raise _Unclear
    left = _differs(view.now, view.ground, SEEN)[core].mean()
    if left < MOST_LEFT:
        view.stray |= around & _differs(view.now, view.ground, TRACE)
        return None
    if left < LEAST_SEEN:
        raise _Unclear
    view.stray &= ~around
    others = case.coverages[:index] + case.coverages[index + 1 :]
    crowd = ndimage.binary_dilation(sum(others, start=numpy.zeros_like(covered)) > 0.05)
    coloured = _coloured(thing, core, view)
    seen = intact.covered(view.now - view.ground, numpy.array(coloured.rgb, dtype=numpy.float32) - view.ground)
    found = intact.likeliest(coloured, seen, around & ~crowd | core)
    if found is None:
        raise _Unclear
    formed, damage = found
    kind = flaw.kind if flaw and formed == thing and damage < 2 * flaw.damage else "unclean"
    return formed, Flaw(kind, damage)


def _coloured(thing: Thing, core: numpy.ndarray, view: _View) -> Thing:
    """The object in the colour that it came out in."""
    was, came_out = (pixels[core & _differs(pixels, view.ground, SEEN)] for pixels in (view.before, view.now))
    name = likest_colour(_mean(came_out))
    if name == likest_colour(_mean(was)):
        return thing
    uneven = numpy.linalg.norm(came_out - came_out.mean(axis=0), axis=1).mean() > SEEN
    if uneven or not is_clear(name, _mean(came_out)):
        raise _Unclear
    return replace(thing, colour=name, rgb=_mean(came_out))


def _mean(pixels: numpy.ndarray) -> tuple[int, int, int]:
    red, green, blue = pixels.mean(axis=0).round().astype(int).tolist()
    return red, green, blue


def _mark(mark: Mark, view: _View) -> Mark | None:
    """The mark as it came out; None if it is gone."""
    place = renderer.coverage(renderer.outline_of_mark(mark)) > 0.5
    left = _mark_left(mark, view.before, view.now, place)
    if left < LEAST_MARK:
        if left > MOST_LEFT or mark.opacity < 1:
            raise _Unclear
        return None
    view.stray &= ~ndimage.binary_dilation(place, iterations=3)
    return replace(mark, opacity=mark.opacity * left)


def _mark_left(mark: Mark, before: numpy.ndarray, now: numpy.ndarray, place: numpy.ndarray) -> float:
    """How much of the mark is still there, 0 to 1; of a faint one nothing if it changed, as it may have any way."""
    if mark.opacity < 1:
        return float(numpy.linalg.norm(now - before, axis=2)[place].mean() < SEEN / 2)
    pink = ndimage.binary_dilation(numpy.linalg.norm(now - renderer.PINK, axis=2) < PINKISH)
    return float(pink[place].mean())
