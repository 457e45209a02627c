"""What is in a picture is what is seen in it: colours, shapes, places, damage, gaps and the mark."""

import itertools
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from visionprefer.blocksworld import renderer
from visionprefer.blocksworld.renderer import GROUNDS, RGB, Mark, Scene, Thing
from visionprefer.blocksworld.scenes import COLOURS, SHAPES, sample
from visionprefer.blocksworld.sight import Sight, look


def thing(colour: str, shape: str, x: float = 32, y: float = 32, radius: float = 10, angle: float = 0) -> Thing:
    return Thing(colour, shape, x, y, radius, angle, RGB[colour])


def picture(*things: Thing, background: str = "white", mark: Mark | None = None) -> Image.Image:
    return renderer.draw(Scene(things, background, GROUNDS[background], mark))


def kinds(sight: Sight) -> list[tuple[str, str]]:
    return [(seen.colour, seen.shape) for seen in sight.objects]


def blurred(image: Image.Image, sigma: float) -> Image.Image:
    pixels = ndimage.gaussian_filter(np.asarray(image, dtype=float), (sigma, sigma, 0))
    return Image.fromarray(pixels.round().astype(np.uint8))


def painted(image: Image.Image, rgb: tuple[int, int, int], rows: slice, columns: slice) -> Image.Image:
    pixels = np.array(image)
    pixels[rows, columns] = rgb
    return Image.fromarray(pixels)


def wide(shape: str, radius: float = 10) -> float:
    """Width in pixels."""
    return float(np.ptp([x for x, _ in renderer.outline(thing("red", shape, radius=radius))[0]]))


def without(image: Image.Image, share: float) -> Image.Image:
    """The right part of what is drawn, so much of its area, covered with white."""
    pixels = np.array(image)
    drawn = np.abs(pixels.astype(int) - 244).sum(axis=(0, 2)).cumsum()
    pixels[:, np.flatnonzero(drawn > (1 - share) * drawn[-1])] = 244
    return Image.fromarray(pixels)


@pytest.mark.parametrize("background", GROUNDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_colour_and_shape_is_known_at_every_size_and_turn(shape: str, background: str) -> None:
    for colour in COLOURS:
        for radius, angle in ((9.5, -10), (13, 0), (19, 10)):
            sight = look(picture(thing(colour, shape, 30, 34, radius, angle), background=background))
            (seen,) = sight.objects
            assert (seen.colour, seen.shape, sight.background, sight.mark) == (colour, shape, background, "none")
            assert math.hypot(seen.x - 30, seen.y - 34) < 0.3
            assert seen.damage < 0.02


def test_clean_scenes_are_seen_as_they_were_composed() -> None:
    chance = random.Random(1)
    right = fine = 0
    for index in range(300):
        scene = renderer.compose(sample("held-out" if index % 2 else "training", chance), chance)
        sight = look(renderer.draw(scene))
        drawn = sorted(scene.things, key=lambda one: one.x)
        right += kinds(sight) == [(one.colour, one.shape) for one in drawn] and sight.background == scene.background
        right += sight.mark == ("whole" if scene.mark else "none")
        fine += all(seen.damage <= 0.08 for seen in sight.objects)
    assert right >= 597
    assert fine >= 297


@pytest.mark.parametrize("shape", SHAPES)
def test_soft_edges_are_no_damage(shape: str) -> None:
    (seen,) = look(blurred(picture(thing("blue", shape, radius=9)), 0.7)).objects
    assert seen.shape == shape
    assert seen.damage < 0.04


@pytest.mark.parametrize("shape", ["circle", "square"])
def test_damage_grows_with_what_is_missing(shape: str) -> None:
    whole = picture(thing("green", shape, radius=14))
    damages = [look(without(whole, share)).objects[0].damage for share in (0, 0.1, 0.2, 0.3)]
    assert damages[0] < 0.01
    assert all(less + 0.02 < more for less, more in itertools.pairwise(damages))


def test_half_an_object_at_half_strength_is_damaged_by_a_sixth() -> None:
    # half of the area lacks half of its opacity, of which a quarter goes unnoticed: 1/2 × (1/2 − 1/4) / (3/4) = 1/6
    whole = np.asarray(picture(thing("red", "circle", radius=14)), dtype=float)
    faded = whole.copy()
    faded[:, 32:] = (whole[:, 32:] + 244) / 2
    (seen,) = look(Image.fromarray(faded.astype(np.uint8))).objects
    assert (seen.colour, seen.shape) == ("red", "circle")
    assert seen.damage == pytest.approx(1 / 6, abs=0.03)


def test_shapes_that_touch_the_edge_are_known_and_have_no_gap() -> None:
    for shape in SHAPES:
        sight = look(picture(thing("orange", shape, wide(shape) / 2 - 1, 40), thing("blue", shape, 44, 40)))
        assert kinds(sight) == [("orange", shape), ("blue", shape)]
        assert [seen.edge_gap > 0 for seen in sight.objects] == [False, True]


def test_gaps_are_whole_pixels() -> None:
    # squares with a side of 16 pixels, from 4 to 20 and from 23 to 39: three pixels between them, four to the edge
    squares = [thing("red", "square", x, 32, 10 * 16 / wide("square")) for x in (12, 31)]
    sight = look(picture(*squares))
    assert sight.object_gap == pytest.approx(3, abs=0.1)
    assert [seen.edge_gap for seen in sight.objects] == [4, 23]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("second", ["red", "yellow"])
def test_two_shapes_that_touch_are_two(shape: str, second: str) -> None:
    reach = wide(shape) / 2
    lower = 33 if shape in ("square", "cross") else 30
    pair = thing("red", shape, 32 - reach, 30), thing(second, shape, 32 + reach - 0.5, lower)
    sight = look(blurred(picture(*pair, background="black"), 0.6))
    assert kinds(sight) == [("red", shape), (second, shape)]
    assert sight.object_gap < 1


def test_objects_of_one_colour_stay_apart() -> None:
    things = thing("purple", "ring", 14, 20), thing("purple", "cross", 34, 42), thing("purple", "circle", 50, 16)
    assert kinds(look(picture(*things))) == [("purple", "ring"), ("purple", "cross"), ("purple", "circle")]


def test_an_edge_on_black_is_no_object_of_a_darker_colour() -> None:
    sight = look(blurred(picture(thing("yellow", "cross", radius=16), background="black"), 1.5))
    assert kinds(sight) == [("yellow", "cross")]


def test_a_fringe_between_red_and_blue_is_no_purple_object() -> None:
    pair = thing("red", "square", 22, 32, 12), thing("blue", "square", 22 + wide("square", 12), 32, 12)
    assert kinds(look(blurred(picture(*pair), 1))) == [("red", "square"), ("blue", "square")]


def test_a_stained_object_is_one() -> None:
    scene = Scene((thing("green", "circle", radius=14),), "white", GROUNDS["white"])
    whole = renderer.coverage(renderer.outline(scene.things[0]))
    stain = whole * (np.arange(64) < 25)
    sight = look(renderer.paint(scene, [(whole, RGB["green"]), (stain, RGB["blue"])]))
    assert kinds(sight) == [("green", "circle")]
    assert sight.objects[0].damage > 0.1


def test_a_speck_is_no_object_but_a_blob_is() -> None:
    one = picture(thing("red", "circle", 20, 20))
    assert len(look(painted(one, RGB["blue"], slice(44, 48), slice(44, 48))).objects) == 1
    assert len(look(painted(one, RGB["blue"], slice(44, 52), slice(44, 52))).objects) == 2


def test_a_ring_with_a_small_hole_is_a_ring() -> None:
    circle = picture(thing("blue", "circle", radius=14))
    (seen,) = look(painted(circle, GROUNDS["white"], slice(29, 35), slice(29, 35))).objects
    assert seen.shape == "ring"
    assert seen.damage > 0.08


@pytest.mark.parametrize("background", GROUNDS)
@pytest.mark.parametrize(("opacity", "seen"), [(0, "none"), (0.3, "trace"), (1, "whole")])
def test_the_mark(background: str, opacity: float, seen: str) -> None:
    for radius in (6, 8):
        mark = Mark(50, 50, radius, opacity)
        for colour in ("red", "purple"):
            sight = look(blurred(picture(thing(colour, "circle", 20, 20), background=background, mark=mark), 0.5))
            assert sight.mark == seen
            assert kinds(sight) == [(colour, "circle")]


def test_what_the_mark_hides_is_no_damage() -> None:
    marked = picture(thing("orange", "circle", radius=16), mark=Mark(34, 30, 7))
    (seen,) = look(marked).objects
    assert (seen.shape, look(marked).mark) == ("circle", "whole")
    assert seen.damage < 0.08


@pytest.mark.parametrize("background", GROUNDS)
def test_nothing_is_seen_where_nothing_is(background: str) -> None:
    sight = look(picture(background=background))
    assert (sight.background, sight.objects, sight.mark, sight.object_gap) == (background, (), "none", math.inf)
    assert sight.middle == pytest.approx((32, 32))


def test_the_middle_is_the_common_centre_of_mass() -> None:
    # the larger circle has four times the mass of the smaller
    sight = look(picture(thing("red", "circle", 20, 30, 16), thing("blue", "circle", 50, 30, 8)))
    assert sight.middle == (pytest.approx(26, abs=0.3), pytest.approx(30, abs=0.3))


def test_noise_and_blur_together_do_not_confuse() -> None:
    chance, noise = random.Random(2), np.random.default_rng(2)
    right = 0
    for index in range(100):
        scene = renderer.compose(sample("held-out" if index % 2 else "training", chance), chance)
        soft = np.asarray(blurred(renderer.draw(scene), 1)) + noise.normal(size=(64, 64, 3)) * 10
        sight = look(Image.fromarray(soft.clip(0, 255).astype(np.uint8)))
        right += sorted(kinds(sight)) == sorted((one.colour, one.shape) for one in scene.things)
    assert right >= 99


def test_another_size_is_scaled() -> None:
    scene = Scene((thing("red", "ring", 20, 20), replace(thing("blue", "square"), x=46, y=46)), "grey", GROUNDS["grey"])
    large = renderer.draw(scene).resize((256, 256), Image.Resampling.BICUBIC)
    assert kinds(look(large)) == [("red", "ring"), ("blue", "square")]
