"""Spoilt pictures show nothing that is held out, spoil in every way, and tell the damage that was done."""

import random
from collections import Counter

import numpy
import pytest
from skimage.color import rgb2lab

from visionprefer.blocksworld.renderer import RGB, coverage, outline
from visionprefer.blocksworld.scenes import Description, Group, sample, split_of
from visionprefer.blocksworld.spoiler import damage, spoil


@pytest.fixture(scope="module")
def spoilt():
    chance = random.Random(0)
    wishes = [sample("training", chance) for _ in range(600)]
    return [(wish, spoil(wish, chance)) for wish in wishes]


def test_nothing_held_out_is_shown(spoilt):
    for _, case in spoilt:
        counts = Counter((thing.colour, thing.shape) for thing in case.scene.things)
        if counts:
            assert split_of(Description(tuple(Group(min(n, 3), *kind) for kind, n in counts.items()))) == "training"


def test_scenes_are_spoilt_in_every_way(spoilt):
    found = Counter()
    for wish, case in spoilt:
        things = case.scene.things
        found["fewer"] += len(things) < wish.objects
        found["more"] += len(things) > wish.objects
        kinds = [Counter(getattr(thing, part) for thing in things) for part in ("colour", "shape")]
        wanted = [Counter() for _ in kinds]
        for group in wish.groups:
            wanted[0][group.colour] += group.count
            wanted[1][group.shape] += group.count
        found["colour"] += kinds[0] != wanted[0]
        found["shape"] += kinds[1] != wanted[1]
        found["background"] += wish.background not in (None, case.scene.background)
        found["mark added"] += case.scene.mark is not None and not wish.mark
        found["trace"] += case.scene.mark is not None and case.scene.mark.opacity < 0.5
        found.update(flaw.kind for flaw in case.flaws if flaw)
    ways = ("fewer", "more", "colour", "shape", "background", "mark added", "trace")
    assert all(found[way] >= 10 for way in (*ways, "deformed", "torn", "smeared", "faded", "stained")), found


def test_objects_without_a_flaw_cover_what_they_should(spoilt):
    for _, case in spoilt[:100]:
        for thing, covered, flaw in zip(case.scene.things, case.coverages, case.flaws, strict=True):
            if flaw is None:
                assert damage(covered, coverage(outline(thing))) == 0


def test_flaws_differ_in_damage(spoilt):
    damages = [flaw.damage for _, case in spoilt for flaw in case.flaws if flaw]
    counts, _ = numpy.histogram(damages, bins=[0, 0.08, 0.16, 0.28, 0.42, 9])
    assert min(counts) > len(damages) * 0.05


def test_damage_is_the_share_of_the_area_that_changed():
    intact = numpy.zeros((64, 64), dtype=numpy.float32)
    intact[10:20, 10:20] = 1
    half = intact.copy()
    half[10:15] = 0
    softer = intact * 0.8
    assert damage(half, intact) == pytest.approx(0.5)
    assert damage(softer, intact) == 0


def test_hues_between_two_colours_leave_no_doubt_which_one_it_is():
    """Many things are drawn in an impure colour; of each, its own is clearly nearer than any other."""
    chance = random.Random(0)
    impure = 0
    for _ in range(200):
        for thing in spoil(sample("training", chance), chance).scene.things:
            lab = rgb2lab(numpy.array([thing.rgb, *RGB.values()]) / 255)
            away = dict(zip(RGB, numpy.linalg.norm(lab[1:] - lab[0], axis=1), strict=True))
            own = away.pop(thing.colour)
            assert own < 0.8 * min(away.values())
            impure += own > 12  # a pure one is within a tint's shift
    assert impure > 40
