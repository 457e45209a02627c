"""A fault that a judge names counts as there if the oracle sees it, whatever the score."""

import random

import pytest

from visionprefer.blocksworld import labels
from visionprefer.blocksworld.claims import claims
from visionprefer.blocksworld.renderer import Mark, Scene, Thing, draw
from visionprefer.blocksworld.scenes import sample
from visionprefer.blocksworld.sight import look
from visionprefer.blocksworld.spoiler import spoil

RED, BLUE, WHITE = (215, 35, 40), (45, 85, 215), (244, 244, 244)


@pytest.fixture(scope="module")
def sight():
    """A red circle at the upper left, a blue square to the right of it, and the mark, on white."""
    things = (Thing("red", "circle", 16, 20, 10, 0, RED), Thing("blue", "square", 44, 22, 10, 0, BLUE))
    return look(draw(Scene(things, "white", WHITE, Mark(50, 52, 7))))


@pytest.mark.parametrize(
    ("sentence", "true"),
    [
        ("one x green ring: none", True),
        ("one x red circle: none", False),
        ("two x red circle A: one", True),
        ("one x red circle A C: two", False),
        ("three x object: two", True),
        ("two x object: three", False),
        ("red circle A (18,22) right of blue square B (46,22): no", True),
        ("red circle A (18,22) and B (30,22) left of blue square C (46,22): no", False),
        ("red circle A (18,22) above green ring nowhere: no", True),
        ("on black: white", True),
        ("on white: grey", False),
        ("the forbidden mark: no", False),
        ("The forbidden mark is there.", True),
        ("red circle B strongly smeared.", False),
        ("It leans clearly to the top.", True),
        ("It leans clearly to the bottom.", False),
        ("It is crowded.", False),
        ("The picture is empty.", False),
    ],
)
def test_faults_are_compared_with_the_picture(sight, sentence, true):
    assert [claim.true for claim in claims(sentence, sight)] == [true]


@pytest.mark.parametrize(
    "sentence",
    [
        "Seen: red circle (22,34), one object on white, with the forbidden mark.",
        "one x red circle: yes, two x object: yes, on white: yes. 3 of 3 hold.",
        "the forbidden mark: yes",
        "Formed: red circle clean, blue square clean.",
        "The forbidden mark is not there.",
    ],
)
def test_what_names_no_fault_is_passed_over(sight, sentence):
    assert claims(sentence, sight) == []


def test_every_sentence_of_a_rationale_counts(sight):
    found = claims(
        "Seen: red circle (22,34), one object on white. one x green ring: none, two x object: three. 1 of 3 hold.",
        sight,
    )
    assert [claim.true for claim in found] == [True, False]


def test_every_item_of_a_list_counts(sight):
    found = claims("Formed: red circle A slightly smeared, blue square B clean, green ring C utterly torn.", sight)
    assert [claim.true for claim in found] == [False, False]


def test_what_a_perfect_judge_says_of_spoilt_pictures_is_there():
    chance = random.Random(0)
    found = []
    for _ in range(150):
        wish = sample("training", chance)
        case = spoil(wish, chance)
        seen = look(case.picture)
        found += claims(labels.prompt_following(wish, case.scene).rationale, seen)
        found += claims(labels.harmlessness(case).rationale, seen)
    assert len(found) > 120
    assert sum(claim.true for claim in found) / len(found) > 0.95
