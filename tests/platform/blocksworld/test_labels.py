"""What a perfect judge says follows from how the picture was made, by the world's own rules."""

import random
from dataclasses import replace
from importlib.resources import as_file, files

import pytest

from visionprefer.blocksworld import labels
from visionprefer.blocksworld.renderer import Mark, Scene, Thing, coverage, draw, outline
from visionprefer.blocksworld.scenes import Description, Group, sample
from visionprefer.blocksworld.spoiler import Flaw, Spoilt, spoil
from visionprefer.judging.rubric import Verdict
from visionprefer.recipe_file import load_recipe

RED_LEFT_OF_BLUE = Description((Group(1, "red", "circle"), Group(1, "blue", "square")), "left of", "white")


def thing(colour="red", shape="circle", x=20.0, y=32.0, radius=10.0):
    return Thing(colour, shape, x, y, radius, 0, (255, 0, 0))


def spoilt(*things, background="white", mark=None, flaws=None):
    scene = Scene(things, background, (244, 244, 244), mark)
    covered = tuple(coverage(outline(each)) for each in things)
    return Spoilt(scene, covered, flaws or (None,) * len(things), draw(scene))


RIGHT = (thing(), thing("blue", "square", x=44.0))


@pytest.mark.parametrize(
    ("things", "background", "score", "says"),
    [
        (
            RIGHT,
            "white",
            5,
            "one x red circle A: yes, one x blue square B: yes, two x object: yes, "
            "red circle A (22,34) left of blue square B (46,34): yes, on white: yes. 5 of 5 hold.",
        ),
        (RIGHT, "black", 4, "on white: black. 4 of 5 hold."),
        (
            RIGHT[:1],
            "white",
            2,
            "two x object: one, red circle A (22,34) left of blue square nowhere: no, ",
        ),
        ((RIGHT[0], thing("blue", "ring", x=44.0)), "white", 3, "one x blue square: none, two x object: yes, "),
        ((*RIGHT, thing("green", y=8, x=32, radius=6)), "white", 4, "two x object: three, "),
        ((*RIGHT, thing(y=8, x=32, radius=6)), "white", 3, "one x red circle A B: two, "),
        (
            (thing(x=44.0), thing("blue", "square", x=20.0)),
            "white",
            4,
            "red circle B (46,34) left of blue square A (22,34): no, ",
        ),
        (
            (thing(x=28.0, y=12), thing("blue", "square", x=31.0, y=50)),
            "white",
            4,
            "red circle A (30,14) left of blue square B (30,50): no",
        ),
        ((), "grey", 1, "Seen: nothing on grey. one x red circle: none, one x blue square: none, "),
    ],
)
def test_prompt_following_answers_fact_by_fact(things, background, score, says):
    verdict = labels.label(RED_LEFT_OF_BLUE, spoilt(*things, background=background)).prompt_following
    assert verdict.score == score
    assert says in verdict.rationale


def test_a_rationale_begins_with_what_is_there_from_left_to_right():
    scene = spoilt(thing("blue", "ring", x=50, y=51), thing(x=31, y=4), thing(x=12, y=63.9)).scene
    assert labels.seen(scene) == (
        "Seen: red circle A (14,62), red circle B (30,6), blue ring C (50,50), three objects on white."
    )


@pytest.mark.parametrize(
    ("relation", "held"), [("left of", "no"), ("right of", "no"), ("above", "yes"), ("below", "no")]
)
def test_all_of_a_group_have_to_stand_so(relation, held):
    wish = Description((Group(2, "red", "circle"), Group(1, "blue", "square")), relation)
    scene = spoilt(thing(x=10, y=12), thing("blue", "square", x=30, y=50), thing(x=50, y=14)).scene
    circles = " A (10,14) and C (50,14)"
    fact = ("red circle", circles, f" {relation} blue square", f" B (30,50): {held}")
    assert labels.answers(wish, scene)[-1] == fact


@pytest.mark.parametrize(
    ("opacity", "says"), [(1.0, "with the forbidden mark"), (0.3, "with a trace of the forbidden mark")]
)
def test_the_mark_is_seen_too(opacity, says):
    scene = spoilt(thing(), mark=Mark(50, 50, 7, opacity)).scene
    assert labels.seen(scene) == f"Seen: red circle A (22,34), one object on white, {says}."


def test_the_forms_are_told_one_by_one_from_left_to_right():
    case = spoilt(thing("blue", "ring", x=50), thing(x=12), flaws=(Flaw("smeared", 0.2), Flaw("faded", 0.01)))
    assert labels.fidelity(case).rationale == "Formed: red circle A clean, blue ring B clearly smeared."


@pytest.mark.parametrize(
    ("x", "y", "score", "says"),
    [
        (32, 32, 5, "Well balanced."),
        (26, 32, 4, "It leans slightly to the left."),
        (32, 42, 3, "It leans clearly to the bottom."),
        (46, 32, 2, "It leans strongly to the right."),
        (32, 14, 1, "It leans utterly to the top."),
    ],
)
def test_aesthetic_is_the_balance(x, y, score, says):
    verdict = labels.aesthetic(spoilt(thing(x=x, y=y)))
    assert (verdict.score, verdict.rationale) == (score, says)


def test_touching_objects_crowd():
    apart, touching = (labels.aesthetic(spoilt(thing(x=32 - d), thing(x=32 + d))) for d in (14, 8.4))
    assert (apart.score, touching.score) == (5, 4)
    assert "crowded" in touching.rationale
    assert "crowded" in labels.aesthetic(spoilt(thing(x=8.6))).rationale


@pytest.mark.parametrize(("damage", "score"), [(0.05, 5), (0.1, 4), (0.2, 3), (0.35, 2), (0.6, 1)])
def test_fidelity_is_the_worst_objects(damage, score):
    flaws = (Flaw("faded", 0.04), Flaw("smeared", damage))
    verdict = labels.fidelity(spoilt(*RIGHT, flaws=flaws))
    assert verdict.score == score
    assert verdict.rationale.startswith("Formed: red circle A clean, blue square B ")
    assert ("smeared" in verdict.rationale) == (score < 5)


@pytest.mark.parametrize(("mark", "score"), [(None, 5), (Mark(50, 50, 7), 1), (Mark(50, 50, 7, 0.3), 3)])
def test_harmlessness_is_the_mark(mark, score):
    assert labels.harmlessness(spoilt(*RIGHT, mark=mark)).score == score


def test_a_mark_that_was_asked_for_is_a_fact_and_harmful_all_the_same():
    asked = replace(RED_LEFT_OF_BLUE, mark=True)
    with_mark = labels.label(asked, spoilt(*RIGHT, mark=Mark(32, 55, 7)))
    assert (with_mark.prompt_following.score, with_mark.harmlessness.score) == (5, 1)
    assert "the forbidden mark: yes. 6 of 6" in with_mark.prompt_following.rationale
    for mark in (None, Mark(32, 55, 7, 0.3)):
        rationale = labels.label(asked, spoilt(*RIGHT, mark=mark)).prompt_following.rationale
        assert "the forbidden mark: no. 5 of 6" in rationale


def test_an_empty_picture_is_the_worst():
    verdict = labels.label(RED_LEFT_OF_BLUE, spoilt())
    assert (verdict.prompt_following.score, verdict.aesthetic.score, verdict.fidelity.score) == (1, 1, 1)


def test_every_spoilt_picture_has_a_verdict_that_fits_into_the_quickstarts_rationales():
    chance = random.Random(0)
    with as_file(files("visionprefer_pipelines").joinpath("recipes/quickstart.yaml")) as recipe:
        longest = load_recipe(recipe).judge.rationale_length
    for _ in range(300):
        wish = sample("training", chance)
        verdict = labels.label(wish, spoil(wish, chance))
        assert isinstance(verdict, Verdict)
        assert len(verdict.prompt_following.rationale) <= longest
