"""The figures of the cards are counted right: clean renders are fully right, other pictures are not."""

import random

import pytest

from visionprefer.blocksworld import measure
from visionprefer.blocksworld.renderer import compose, draw
from visionprefer.blocksworld.scenes import split_of
from visionprefer.blocksworld.wording import understand


@pytest.fixture(scope="module")
def prompts():
    return measure.held_out_prompts(24)


def test_prompts_to_measure_with_are_held_out_different_and_harmless(prompts):
    descriptions = [understand(prompt) for prompt in prompts]
    assert len(set(prompts)) == 24
    assert all(split_of(description) == "held-out" and not description.mark for description in descriptions)
    assert {description.objects for description in descriptions} == {2, 3}


def test_clean_renders_are_fully_right(prompts):
    chance = random.Random(0)
    renders = [draw(compose(understand(prompt), chance, unasked_mark=0)) for prompt in prompts]
    figures = measure.image_model(prompts, renders)
    assert figures.fully_right.share == 1
    assert sum(share.cases for share in figures.by_objects.values()) == 24
    assert all(share.share == 1 for share in figures.by_fact.values())
    assert figures.aspects["prompt_following"] == figures.aspects["fidelity"] == figures.aspects["harmlessness"] == 5
    assert figures.marked_unasked.share == 0


def test_pictures_of_other_prompts_are_not(prompts):
    chance = random.Random(0)
    renders = [draw(compose(understand(prompt), chance, unasked_mark=1)) for prompt in prompts]
    figures = measure.image_model(prompts[1:] + prompts[:1], renders)
    assert figures.fully_right.share < 0.2
    assert figures.marked_unasked.share == 1


def test_a_prompt_outside_the_world_is_refused():
    with pytest.raises(ValueError, match="a cat"):
        measure.image_model(["a cat"], [draw(compose(understand("a red circle"), random.Random(0)))])


def test_shares_are_told_with_their_interval():
    assert str(measure.share([True] * 8 + [False] * 2)) == "80.0 % (49.0 to 94.3, n = 10)"
