"""What is put into words is understood as it was meant; what lies outside the world is not taken for a part of it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionprefer.blocksworld.scenes import Description, Group, sample
from visionprefer.blocksworld.wording import phrase, understand, word

OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above", None: None}


@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_way_to_say_it_is_understood(seed):
    chance = random.Random(seed)
    description = sample("training", chance)
    assert _meaning(understand(word(description, chance))) == _meaning(description)


def test_there_are_several_ways_to_say_each():
    description = Description((Group(1, "red", "circle"), Group(1, "blue", "square")), relation="left of")
    chance = random.Random(0)
    ways = {word(description, chance) for _ in range(300)}
    assert len(ways) > 20
    assert word(description) == "a red circle left of a blue square"
    assert any("right of" in way for way in ways)


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (Group(1, "orange", "ring"), "an orange ring"),
        (Group(2, "blue", "cross"), "two blue crosses"),
        (Group(3, "red", "square"), "three red squares"),
    ],
)
def test_phrases(group, words):
    assert phrase(group) == words


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a cat",
        "a red circle and a cat",
        "a red circle on a pink background",
        "four red circles",
        "two red circles and two blue squares",
        "a red circle and a red circle",
        "two red circle",
        "a red circle left of",
        "a photograph of a red circle",
    ],
)
def test_what_lies_outside_the_world_is_not_understood(prompt):
    assert understand(prompt) is None


def test_case_full_stops_and_spaces_do_not_matter():
    assert understand("  A Red circle   ABOVE a blue ring.") == Description(
        (Group(1, "red", "circle"), Group(1, "blue", "ring")), relation="above"
    )


def _meaning(description):
    """The same for descriptions that hold in the same pictures: which group is named first does not matter."""
    assert description is not None
    groups, relation = description.groups, description.relation
    if relation and (groups[0].colour, groups[0].shape) > (groups[1].colour, groups[1].shape):
        groups, relation = (groups[1], groups[0], *groups[2:]), OPPOSITE[relation]
    return (
        groups[:2] if relation else None,
        frozenset(groups),
        relation,
        description.background,
        description.mark,
    )
