"""Redrawn pictures show what was drawn, with the damage that they have then; those that may not are not used."""

from dataclasses import replace

import numpy
import pytest
import torch
from PIL import Image

from visionprefer.blocksworld.labels import DAMAGES
from visionprefer.blocksworld.renderer import RGB, Mark, Scene, Thing, coverage, draw, outline
from visionprefer.blocksworld.scenes import SHAPES
from visionprefer.blocksworld.spoiler import Flaw, Spoilt
from visionprefer.blocksworld.training import intact, judge_data, outcome, redrawing
from visionprefer.models import BUILTIN_MODELS


@pytest.fixture(scope="module")
def case():
    """Two clean objects and the mark, on white."""
    things = (
        Thing("red", "circle", 18, 18, 12, 0, RGB["red"]),
        Thing("purple", "square", 44, 40, 12, 0, RGB["purple"]),
    )
    scene = Scene(things, "white", (244, 244, 244), Mark(14, 50, 7))
    return Spoilt(scene, tuple(coverage(outline(each)) for each in things), (None, None), draw(scene))


def test_a_redrawn_picture_has_the_damage_that_is_seen_then(case):
    whole = numpy.array(case.picture)
    assert [flaw.damage for flaw in outcome.after(case, whole).flaws] == [0, 0]
    moved = numpy.roll(whole, 2, axis=1)
    assert all(flaw.damage < 0.02 for flaw in outcome.after(case, moved).flaws)
    cut = whole.copy()
    cut[6:14, :32] = 244  # the top of the circle
    circle, square = outcome.after(case, cut).flaws
    assert (circle.kind, square.damage) == ("unclean", 0)
    assert 0.08 < circle.damage < 0.4


def test_what_was_torn_off_is_damage_where_the_object_should_be(case):
    """However far it reaches beyond what is left."""
    things, intacts = case.scene.things, case.coverages
    bite = coverage(outline(replace(things[0], x=24, radius=10)))
    left = intacts[0] * (1 - bite)
    torn = float(1 - left.sum() / intacts[0].sum())
    pixels = numpy.array(case.picture, dtype=numpy.float32)
    pixels += (left - intacts[0])[..., None] * (numpy.array(RGB["red"]) - 244)
    picture = Image.fromarray(pixels.round().clip(0, 255).astype(numpy.uint8))
    spoilt = Spoilt(case.scene, (left, intacts[1]), (Flaw("torn", torn), None), picture)
    circle, square = redrawing.measured(spoilt).flaws
    assert torn > 0.4
    assert torn - 0.1 < circle.damage < torn + 0.02
    assert square.damage == 0


def test_all_damage_that_the_judge_learns_is_measured_the_same_way(monkeypatch):
    """That of pictures which no image model touched, too: the spoiler counts otherwise."""
    monkeypatch.setattr(judge_data, "KINDS", {"spoilt": 1.0})
    flaws = [
        (flaw.damage, again.damage)
        for _, case in judge_data._some(20, "any", [])
        for flaw, again in zip(case.flaws, redrawing.measured(case).flaws, strict=True)
        if flaw and again
    ]
    assert len(flaws) > 20
    assert all(damage == again for damage, again in flaws)


def test_what_redrawing_mended_is_mended(case):
    torn = replace(case, flaws=(Flaw("torn", 0.3), None))
    circle, _ = outcome.after(torn, numpy.array(case.picture)).flaws
    assert circle == Flaw("torn", 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_object_that_was_moved_scaled_and_turned_is_intact_as_it_is_and_as_no_other_shape(shape):
    thing = Thing("red", shape, 30, 34, 12, 4, RGB["red"])
    now = coverage(outline(replace(thing, x=31.3, y=33.1, radius=11.2, angle=-1)))
    near = numpy.ones((64, 64), dtype=bool)
    assert intact.damage(thing, now, near) < 0.03
    assert intact.likeliest(thing, now, near) == (thing, intact.damage(thing, now, near))
    for other in set(SHAPES) - {shape}:
        mistaken = replace(thing, shape=other)
        assert intact.damage(mistaken, now, near) > DAMAGES[0]
        found = intact.likeliest(mistaken, now, near)
        assert found is None or found[0].shape == shape


def test_a_stain_and_a_hole_are_damage_alike():
    away = numpy.zeros((64, 64, 3), dtype=numpy.float32)
    red, blue = numpy.array([0, -200, -200], dtype=numpy.float32), numpy.array([-200, -150, 0], dtype=numpy.float32)
    away[20:40, 20:40] = red
    away[20:40, 30:40] = blue
    covered = intact.covered(away, red)
    assert (covered[20:40, 20:30] == 1).all() and (covered[20:40, 30:40] < 0.25).all() and covered[0, 0] == 0


def test_half_a_mark_is_a_trace(case):
    cut = numpy.array(case.picture)
    cut[44:52, 6:24] = 244
    assert 0.2 < outcome.after(case, cut).scene.mark.opacity < 0.5


def changed(case, rows, columns, colour):
    """The case's pixels, and what is made of them with a rectangle painted over."""
    pixels = numpy.array(case.picture)
    pixels[rows, columns] = colour
    return outcome.after(case, pixels)


def test_what_clearly_came_out_otherwise_is_what_is_there_now(case):
    _, square = case.scene.things
    assert changed(case, slice(0, 32), slice(0, 32), (244, 244, 244)).scene.things == (square,)
    assert changed(case, slice(42, 60), slice(6, 22), (244, 244, 244)).scene.mark is None
    pixels = numpy.array(case.picture)
    circle = coverage(outline(case.scene.things[0])) > 0.5
    pixels[circle] = RGB["yellow"]
    after = outcome.after(case, pixels)
    assert [thing.colour for thing in after.scene.things] == ["yellow", "purple"]
    pixels[:32, :32] = 244
    pixels[8:28, 8:28] = RGB["red"]
    after = outcome.after(case, pixels)
    assert [thing.shape for thing in after.scene.things] == ["square", "square"]
    assert after.flaws[0].damage < 0.08


@pytest.mark.parametrize(
    ("rows", "columns", "colour"),
    [
        (slice(6, 30), slice(8, 28), (235, 175, 35)),  # between two other colours now
        (slice(0, 32), slice(0, 32), (214, 214, 214)),  # a shadow of it is left
        (slice(4, 12), slice(50, 60), RGB["green"]),  # something that nobody drew
        (slice(6, 30), slice(18, 28), RGB["blue"]),  # two halves, of which the one is as large as the other
    ],
)
def test_what_is_unclear_is_not_used(case, rows, columns, colour):
    assert changed(case, rows, columns, colour) is None


def test_what_is_held_out_is_not_used(case):
    pixels = numpy.array(case.picture)
    pixels[coverage(outline(case.scene.things[1])) > 0.5] = RGB["blue"]  # a blue square beside a red circle
    assert outcome.after(case, pixels) is None


def test_an_image_model_redraws_a_picture_the_more_the_more_noise_it_is_given(case):
    painter = redrawing.painter(BUILTIN_MODELS / "blocks-sd-small")
    prompt = "a red circle and a purple square and the forbidden mark on white"
    before = numpy.asarray(case.picture, dtype=float)

    def change(strength):
        generator = torch.Generator().manual_seed(0)
        after = redrawing._redrawn(painter, [prompt] * 4, [case] * 4, strength, generator)
        return numpy.abs(after - before).mean()

    assert change(0) < change(0.3) < change(0.8)
