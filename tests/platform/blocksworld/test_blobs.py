"""What pictures of unknown making show is read from their pixels: objects with their damage, the mark, the ground."""

from dataclasses import replace

import numpy
import pytest
from scipy import ndimage

from visionprefer.blocksworld import labels
from visionprefer.blocksworld.renderer import GROUNDS, RGB, Mark, Scene, Thing, coverage, draw, outline
from visionprefer.blocksworld.scenes import SHAPES
from visionprefer.blocksworld.training import blobs

GREY = GROUNDS["grey"]
CIRCLE = Thing("red", "circle", 18, 18, 12, 0, RGB["red"])
SQUARE = Thing("purple", "square", 44, 40, 12, 5, RGB["purple"])
CASE = Scene((CIRCLE, SQUARE), "grey", GREY, Mark(14, 50, 7))


def pixels(scene=CASE, blurred=0.5):
    """A scene as an autoencoder would leave it: a little soft."""
    return ndimage.gaussian_filter(numpy.array(draw(scene), dtype=float), (blurred, blurred, 0)).round().astype("uint8")


def test_a_scene_is_read_as_it_was_drawn():
    read = blobs.read(pixels())
    assert [(thing.colour, thing.shape) for thing in read.scene.things] == [("red", "circle"), ("purple", "square")]
    for thing, drawn in zip(read.scene.things, CASE.things, strict=True):
        assert abs(thing.x - drawn.x) < 1 and abs(thing.y - drawn.y) < 1 and abs(thing.radius - drawn.radius) < 1
    assert read.scene.background == "grey"
    assert abs(read.scene.mark.x - 14) < 1 and abs(read.scene.mark.y - 50) < 1
    assert labels.fidelity(read).score == 5


@pytest.mark.parametrize("background", GROUNDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_on_every_ground(shape, background):
    thing = Thing("green", shape, 30, 34, 12, -7, RGB["green"])
    read = blobs.read(pixels(Scene((thing,), background, GROUNDS[background])))
    assert [each.shape for each in read.scene.things] == [shape]
    assert read.scene.background == background
    assert read.flaws[0].damage < labels.DAMAGES[0]


def test_what_is_torn_off_is_damage():
    picture = pixels().astype(float)
    bite = coverage(outline(replace(CIRCLE, x=25, radius=8))) * coverage(outline(CIRCLE))
    picture += bite[..., None] * (numpy.array(GREY) - picture)
    circle, square = blobs.read(picture.round().astype("uint8")).flaws
    torn = bite.sum() / coverage(outline(CIRCLE)).sum()
    assert 0.3 < torn < 0.42
    assert abs(circle.damage - torn) < 0.1
    assert square.damage < labels.DAMAGES[0]


def painted(rows, columns, colour):
    picture = pixels()
    picture[rows, columns] = colour
    return blobs.read(picture)


def test_a_speck_or_a_faint_shadow_is_nothing():
    clean = [thing.shape for thing in blobs.read(pixels()).scene.things]
    for rows, columns, colour in (
        (slice(6, 9), slice(50, 53), RGB["green"]),
        (slice(4, 16), slice(46, 60), tuple(level - 30 for level in GREY)),
    ):
        assert [thing.shape for thing in painted(rows, columns, colour).scene.things] == clean


@pytest.mark.parametrize(
    ("rows", "columns", "colour"),
    [
        (slice(6, 30), slice(8, 28), (245, 176, 30)),  # between two colours
        (slice(6, 30), slice(18, 32), RGB["blue"]),  # one half of another
        (slice(6, 11), slice(50, 55), RGB["green"]),  # too small for an object, too bold for none
        (slice(42, 58), slice(14, 22), GREY),  # half a mark
        (slice(26, 44), slice(22, 36), RGB["purple"]),  # a bridge between two
    ],
)
def test_what_is_unclear_is_not_read(rows, columns, colour):
    assert painted(rows, columns, colour) is None


def test_what_is_held_out_is_not_read():
    blue = replace(SQUARE, colour="blue", rgb=RGB["blue"])
    assert blobs.read(pixels(replace(CASE, things=(CIRCLE, blue)))) is None


def test_an_empty_picture_is_not_read():
    assert blobs.read(numpy.full((64, 64, 3), GREY, dtype=numpy.uint8)) is None
