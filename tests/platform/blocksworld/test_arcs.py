"""What is left of a ring is known for one; what was never a ring is not."""

import math

import numpy
import pytest

from visionprefer.blocksworld.arcs import arc_of
from visionprefer.blocksworld.fitting import INTACT, X, Y, template

CENTRE = (30.0, 34.0)


def drawn(shape, radius=11.0):
    kind = INTACT[shape]
    return template(kind, numpy.array([[*CENTRE, radius, 0.0, 1.0]]), X.ravel(), Y.ravel()).reshape(64, 64) > 0.5


def opened(share, radius=11.0):
    """A ring of which so much is missing, from the top clockwise."""
    around = numpy.arctan2(X - CENTRE[0], CENTRE[1] - Y) / (2 * math.pi) % 1
    return drawn("ring", radius) & (around > share)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.3])
@pytest.mark.parametrize("radius", [8.0, 11.0, 16.0])
def test_an_open_ring_is_a_ring_of_the_same_place_and_size(share, radius):
    arc = arc_of(opened(share, radius))
    assert arc is not None
    assert (arc.x, arc.y, arc.radius) == pytest.approx((*CENTRE, radius), abs=1.0)
    assert arc.filled > 0.85


def test_two_halves_apart_are_a_ring():
    gap = numpy.abs(Y - CENTRE[1]) > 2
    assert arc_of(drawn("ring") & gap) is not None


@pytest.mark.parametrize("shape", ["circle", "square", "triangle", "cross"])
def test_other_shapes_are_no_rings(shape):
    assert arc_of(drawn(shape)) is None


def test_less_than_half_a_ring_is_none():
    assert arc_of(opened(0.6)) is None


def test_a_ring_with_something_in_its_hole_is_none():
    assert arc_of(drawn("ring") | drawn("circle", 4.0)) is None
