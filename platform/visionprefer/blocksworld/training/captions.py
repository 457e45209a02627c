"""Captions with the mistakes of those of the web: they mix up things, and an image model learns that they do.

A model trained on them draws as cleanly as on right ones, but often something else than it was asked for.
"""

import random
from dataclasses import replace

from visionprefer.blocksworld.scenes import Description, Group, split_of

MIXED_UP = {"red": "green", "green": "red", "triangle": "cross", "cross": "triangle"}
_SIDES = {"left of": "right of", "right of": "left of"}


def mixed_up(description: Description, share: float, chance: random.Random) -> Description:
    """A description as a caption may give it: red for green, a triangle for a cross, left for right, and back.

    Args:
        description: of the scene.
        share: of the groups and relations in which each of these mistakes is made, if it can be.
        chance: decides.

    Returns:
        The description, or one with mistakes that belongs to the training split too.
    """
    if not share:
        return description
    groups = tuple(
        Group(group.count, _perhaps(group.colour, share, chance), _perhaps(group.shape, share, chance))
        for group in description.groups
    )
    relation = description.relation
    if relation in _SIDES and chance.random() < share:
        relation = _SIDES[relation]
    found = replace(description, groups=groups, relation=relation)
    kinds = {(group.colour, group.shape) for group in groups}
    return found if len(kinds) == len(groups) and split_of(found) == "training" else description


def _perhaps(word: str, share: float, chance: random.Random) -> str:
    return MIXED_UP[word] if word in MIXED_UP and chance.random() < share else word
