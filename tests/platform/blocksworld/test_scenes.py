"""What trains and what measures never share a combination; both are drawn from all of the world."""

import itertools
import random

import pytest

from visionprefer.blocksworld.scenes import COLOURS, HELD_OUT, SHAPES, Description, Group, sample, split_of


@pytest.mark.parametrize("split", ["training", "held-out"])
def test_samples_are_of_the_split_that_was_asked_for(split):
    chance = random.Random(0)
    assert {split_of(sample(split, chance)) for _ in range(500)} == {split}


def test_no_pairing_of_a_training_scene_is_among_the_held_out_ones():
    pairs = itertools.combinations(itertools.product(COLOURS, SHAPES), 2)
    held_out = {pair for pair in pairs if split_of(_of(*pair)) == "held-out"}
    chance = random.Random(1)
    for _ in range(2_000):
        kinds = sorted((group.colour, group.shape) for group in sample("training", chance).groups)
        order = [(colour, shape) for colour in COLOURS for shape in SHAPES]
        kinds.sort(key=order.index)
        assert not held_out & set(itertools.combinations(kinds, 2))


def test_about_the_stated_share_of_pairings_is_held_out():
    pairs = [_of(*pair) for pair in itertools.combinations(itertools.product(COLOURS, SHAPES), 2)]
    share = sum(split_of(pair) == "held-out" for pair in pairs) / len(pairs)
    assert share == pytest.approx(HELD_OUT, abs=0.05)


def test_the_split_depends_on_the_combination_alone():
    groups = (Group(1, "red", "circle"), Group(2, "blue", "square"))
    ways = [
        Description(groups),
        Description(groups[::-1]),
        Description(groups, relation="above", background="black", mark=True),
    ]
    assert len({split_of(way) for way in ways}) == 1


def test_samples_have_the_number_of_objects_that_was_asked_for():
    chance = random.Random(2)
    found = [sample("held-out", chance, objects=(2, 3)) for _ in range(300)]
    assert {description.objects for description in found} == {2, 3}
    assert all(description.relation is None for description in found if len(description.groups) == 1)


def _of(*kinds):
    return Description(tuple(Group(1, *kind) for kind in kinds))
