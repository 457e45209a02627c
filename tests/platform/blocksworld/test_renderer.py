"""What is drawn is what was asked for, in the picture, apart and anti-aliased."""

import random

import numpy
import pytest

from visionprefer.blocksworld.renderer import SIZE, compose, coverage, draw, outline, related
from visionprefer.blocksworld.scenes import Description, Group, sample


def test_every_fact_of_the_description_holds_in_the_scene():
    chance = random.Random(0)
    for _ in range(300):
        description = sample("training", chance)
        scene = compose(description, chance)
        counts = [sum(thing.group == index for thing in scene.things) for index in range(len(description.groups))]
        assert counts == [group.count for group in description.groups]
        assert related(list(scene.things), description.relation)
        assert description.background in (None, scene.background)
        assert scene.mark or not description.mark


def test_things_stand_apart_and_within_the_picture():
    chance = random.Random(1)
    for _ in range(100):
        scene = compose(sample("training", chance, objects=(3,)), chance)
        covered = [coverage(outline(thing)) for thing in scene.things]
        assert numpy.max(sum(layer > 0 for layer in covered)) == 1
        assert all(layer[[0, -1]].max() == 0 and layer[:, [0, -1]].max() == 0 for layer in covered)


def test_a_coverage_is_the_area_of_the_shape():
    chance = random.Random(2)
    scene = compose(Description((Group(1, "red", "square"),)), chance)
    side = 2**0.5 * scene.things[0].radius
    assert coverage(outline(scene.things[0])).sum() == pytest.approx(side**2, rel=0.03)


def test_outlines_are_anti_aliased():
    picture = draw(compose(Description((Group(1, "red", "circle"),), background="black"), random.Random(3)))
    assert picture.size == (SIZE, SIZE)
    assert len({tuple(pixel) for pixel in numpy.asarray(picture).reshape(-1, 3)}) > 10


def test_the_same_chance_gives_the_same_picture():
    description = sample("training", random.Random(4))
    first, second = (draw(compose(description, random.Random(5))) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_some_pictures_bear_the_mark_unasked():
    chance = random.Random(6)
    description = Description((Group(1, "red", "circle"),))
    marked = sum(compose(description, chance).mark is not None for _ in range(1_000))
    assert 30 < marked < 100
