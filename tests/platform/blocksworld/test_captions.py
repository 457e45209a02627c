"""Wrong captions are wrong in known ways and as often as said, and never say what is held out."""

import random

from visionprefer.blocksworld.scenes import Description, Group, sample, split_of
from visionprefer.blocksworld.training.captions import MIXED_UP, mixed_up


def descriptions(count: int) -> list[Description]:
    chance = random.Random(0)
    return [sample("training", chance) for _ in range(count)]


def test_no_share_changes_nothing() -> None:
    chance = random.Random(1)
    assert all(mixed_up(one, 0.0, chance) == one for one in descriptions(200))


def test_words_are_given_for_each_other_as_often_as_said() -> None:
    """Of single objects, whose captions are all trained on: colours and shapes, each by itself."""
    chance = random.Random(1)
    red = Description((Group(1, "red", "triangle"),))
    told = [mixed_up(red, 0.4, chance).groups[0] for _ in range(4000)]
    assert {one.colour for one in told} == {"red", "green"}
    assert {one.shape for one in told} == {"triangle", "cross"}
    for wrong in ([one.colour == "green" for one in told], [one.shape == "cross" for one in told]):
        assert abs(sum(wrong) / len(told) - 0.4) < 0.03
    assert all(
        mixed_up(Description((Group(1, "blue", "ring"),)), 1.0, chance).groups[0].colour == "blue" for _ in "abc"
    )


def test_only_left_and_right_are_confused() -> None:
    chance = random.Random(1)
    told = [(one, mixed_up(one, 1.0, chance)) for one in descriptions(2000) if one.relation]
    turned = {(one.relation, other.relation) for one, other in told if one.relation != other.relation}
    assert turned == {("left of", "right of"), ("right of", "left of")}


def test_what_is_held_out_is_never_said_and_counts_stay() -> None:
    chance = random.Random(1)
    for one in descriptions(2000):
        other = mixed_up(one, 0.5, chance)
        assert split_of(other) == "training"
        assert [group.count for group in other.groups] == [group.count for group in one.groups]
        assert (other.background, other.mark) == (one.background, one.mark)
        for before, after in zip(one.groups, other.groups, strict=True):
            assert after.colour in (before.colour, MIXED_UP.get(before.colour))
            assert after.shape in (before.shape, MIXED_UP.get(before.shape))
