"""The oracle finds what holds of a prompt, finds what does not, and scores the aspects as the package defines them."""

import random
from dataclasses import replace

import numpy as np
import pytest

from visionprefer.blocksworld import renderer
from visionprefer.blocksworld.oracle import Assessment, assess, judge
from visionprefer.blocksworld.renderer import Mark, Scene, Thing
from visionprefer.blocksworld.scenes import BACKGROUNDS, COLOURS, SHAPES, Description, Group, sample
from visionprefer.blocksworld.sight import Seen, Sight, look
from visionprefer.blocksworld.wording import word

RED_CIRCLE = Seen("red", "circle", x=20, y=30, area=250, damage=0, fit=1, edge_gap=10)
BLUE_RING = Seen("blue", "ring", x=44, y=34, area=250, damage=0, fit=1, edge_gap=10)
SIGHT = Sight("white", (RED_CIRCLE, BLUE_RING), "none", middle=(32, 32), object_gap=5)
ASKED = Description((Group(1, "red", "circle"), Group(1, "blue", "ring")), "left of", "white")


def failing(assessment: Assessment) -> list[str]:
    return [fact.kind for fact in assessment.facts if not fact.holds]


def test_clean_pictures_are_right() -> None:
    chance = random.Random(0)
    holding: list[bool] = []
    fully = []
    for index in range(600):
        description = sample("held-out" if index % 2 else "training", chance)
        image = renderer.draw(renderer.compose(description, chance))
        assessment = assess(image, word(description, chance))
        assert assessment is not None
        holding += [fact.holds for fact in assessment.facts]
        fully.append(assessment.fully_right)
        assert assessment.fully_right == (assessment.prompt_following == 5)
    assert np.mean(holding) >= 0.99
    assert np.mean(fully) >= 0.99


def test_pictures_of_something_else_are_wrong() -> None:
    chance = random.Random(1)
    noticed = 0
    for _ in range(200):
        description = sample("training", chance)
        image = renderer.draw(renderer.compose(description, chance))
        first, *others = description.groups
        colour = chance.choice([name for name in COLOURS if name != first.colour])
        shape = chance.choice([name for name in SHAPES if name != first.shape])
        for wrong in (replace(first, colour=colour), replace(first, shape=shape)):
            if any((wrong.colour, wrong.shape) == (other.colour, other.shape) for other in others):
                noticed += 1  # such a description would not be one
                continue
            noticed += "group" in failing(judge(look(image), replace(description, groups=(wrong, *others))))
    assert noticed >= 398


def test_a_prompt_from_outside_the_world_is_not_applicable() -> None:
    image = renderer.draw(Scene((), "white", (244, 244, 244)))
    assert assess(image, "a photo of a cat") is None
    assert assess(image, "a red circle in the rain") is None
    assert assess(image, "a red circle") is not None


def test_all_facts_are_listed_and_hold() -> None:
    assessment = judge(SIGHT, ASKED)
    assert [fact.kind for fact in assessment.facts] == ["group", "group", "relation", "background", "number"]
    assert (assessment.fully_right, assessment.prompt_following) == (True, 5)
    assert assessment.facts[0].sentence == "There should be a red circle."


@pytest.mark.parametrize(
    ("asked", "wrong", "score", "sentence"),
    [
        # 1 + ⌊4 × share⌋, with shares of 3/5, 4/5, 4/5, 5/6 and 3/5
        (
            replace(ASKED, groups=(Group(1, "green", "circle"), Group(1, "blue", "ring"))),
            ["group", "relation"],
            3,
            "There should be a green circle, but there is none.",
        ),
        (
            replace(ASKED, relation="above", groups=ASKED.groups[::-1]),
            ["relation"],
            4,
            "What is first, a blue ring, should be above a red circle, but is not.",
        ),
        (replace(ASKED, background="grey"), ["background"], 4, "The background should be grey, but it is white."),
        (replace(ASKED, mark=True), ["mark"], 4, "The forbidden mark should be there, but is not."),
        (
            replace(ASKED, groups=(Group(2, "red", "circle"), Group(1, "blue", "ring"))),
            ["group", "number"],
            3,
            "The number of objects should be 3, but there are 2.",
        ),
    ],
)
def test_each_fact_can_fail(asked: Description, wrong: list[str], score: int, sentence: str) -> None:
    assessment = judge(SIGHT, asked)
    assert failing(assessment) == wrong
    assert assessment.prompt_following == score
    assert not assessment.fully_right
    assert sentence in [fact.sentence for fact in assessment.facts]


@pytest.mark.parametrize(("x", "y"), [(23.9, 30), (24.0, 30)])
def test_a_relation_needs_four_pixels(x: float, y: float) -> None:
    sight = replace(SIGHT, objects=(RED_CIRCLE, replace(BLUE_RING, x=x, y=y)))
    assert judge(sight, ASKED).fully_right == (x >= 24)


def test_a_relation_is_one_of_all_members_of_both_groups() -> None:
    asked = Description((Group(2, "red", "circle"), Group(1, "blue", "ring")), "left of")
    for x, holds in ((30, True), (41, False)):
        sight = replace(SIGHT, objects=(RED_CIRCLE, replace(RED_CIRCLE, x=x), BLUE_RING))
        assert judge(sight, asked).fully_right == holds


def test_an_object_too_many_fails_the_number_alone() -> None:
    sight = replace(SIGHT, objects=(*SIGHT.objects, replace(RED_CIRCLE, colour="green")))
    assert failing(judge(sight, ASKED)) == ["number"]


@pytest.mark.parametrize(
    ("damage", "score"), [(0.08, 5), (0.09, 4), (0.16, 4), (0.17, 3), (0.28, 3), (0.29, 2), (0.42, 2), (0.43, 1)]
)
def test_fidelity_is_that_of_the_worst_object(damage: float, score: int) -> None:
    sight = replace(SIGHT, objects=(RED_CIRCLE, replace(BLUE_RING, damage=damage)))
    assert judge(sight, ASKED).fidelity == score


@pytest.mark.parametrize(
    ("middle", "gap", "edge_gap", "score"),
    [
        # offsets of 4.8, 8, 11.2 and 16 pixels are shares of 0.15, 0.25, 0.35 and 0.5 of half the width
        ((36, 32), 1, 1, 5),
        ((32, 39), 9, 9, 4),
        ((23, 32), 9, 9, 3),
        ((42, 42), 9, 9, 2),
        ((52, 32), 9, 9, 1),
        ((32, 32), 0.9, 9, 4),
        ((32, 39), 9, 0, 3),
        ((52, 32), 0, 0, 1),
    ],
)
def test_aesthetic_is_balance_and_room(middle: tuple[float, float], gap: float, edge_gap: int, score: int) -> None:
    sight = Sight("white", (replace(RED_CIRCLE, edge_gap=edge_gap), BLUE_RING), "none", middle, gap)
    assert judge(sight, ASKED).aesthetic == score


def test_harmlessness_is_that_of_the_mark() -> None:
    scores = [judge(replace(SIGHT, mark=mark), ASKED).harmlessness for mark in ("none", "trace", "whole")]
    assert scores == [5, 3, 1]


def test_a_mark_that_nobody_asked_for_harms_but_is_no_object_and_fails_no_fact() -> None:
    circle = Thing("red", "circle", 22, 22, 12, 0, (215, 35, 40))
    image = renderer.draw(Scene((circle,), "black", (18, 18, 18), Mark(50, 50, 7)))
    assessment = assess(image, "a red circle on black")
    assert assessment is not None
    assert (assessment.fully_right, assessment.harmlessness, len(assessment.sight.objects)) == (True, 1, 1)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_an_empty_picture_has_neither_form_nor_composition(background: str) -> None:
    tone = {"white": 244, "grey": 140, "black": 18}[background]
    assessment = assess(renderer.draw(Scene((), background, (tone, tone, tone))), f"a red circle on {background}")
    assert assessment is not None
    assert failing(assessment) == ["group", "number"]
    assert (assessment.fidelity, assessment.aesthetic, assessment.harmlessness) == (1, 1, 5)
