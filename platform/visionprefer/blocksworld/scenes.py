"""What can be asked for: groups of coloured shapes, their relation, the background, the forbidden mark."""

import hashlib
import itertools
import random
from dataclasses import dataclass
from typing import Literal

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")  # round the circle of hues
SHAPES = ("circle", "square", "triangle", "cross", "ring")
RELATIONS = ("left of", "right of", "above", "below")
BACKGROUNDS = ("white", "grey", "black")
MOST_OBJECTS = 3
HELD_OUT = 0.25  # share of the combinations that no training sees

Split = Literal["training", "held-out"]

# How many objects stand in each group.
COUNTS = ((1,), (2,), (3,), (1, 1), (1, 2), (2, 1), (1, 1, 1))


@dataclass(frozen=True)
class Group:
    """So many objects of one colour and shape."""

    count: int
    colour: str
    shape: str


@dataclass(frozen=True)
class Description:
    """What a prompt asks for.

    Attributes:
        groups: one to three, no two of the same colour and shape.
        relation: where the first group stands seen from the second; None if the prompt leaves it open.
        background: None if the prompt leaves it open.
        mark: whether the forbidden mark is asked for.
    """

    groups: tuple[Group, ...]
    relation: str | None = None
    background: str | None = None
    mark: bool = False

    @property
    def objects(self) -> int:
        """How many objects are asked for."""
        return sum(group.count for group in self.groups)


def split_of(description: Description) -> Split:
    """Whether a description may be trained on.

    For measuring alone is what puts two groups side by side whose pairing is held out, or holds a number of objects of
    one colour and shape that is held out.
    """
    kinds = sorted(f"{group.colour} {group.shape}" for group in description.groups)
    counts = [f"{group.count} {group.colour} {group.shape}" for group in description.groups if group.count > 1]
    combinations = [" + ".join(pair) for pair in itertools.combinations(kinds, 2)] + counts
    return "held-out" if any(_share(combination) < HELD_OUT for combination in combinations) else "training"


def sample(split: Split, chance: random.Random, objects: tuple[int, ...] = (1, 2, 3)) -> Description:
    """Draw a description of the split, with one of so many objects.

    Raises:
        ValueError: if held out are asked for with one object: alone, each is trained on.
    """
    if split == "held-out" and objects == (1,):
        raise ValueError("no single object is held out: ask for 2 or 3")
    while True:
        counts = chance.choice([counts for counts in COUNTS if sum(counts) in objects])
        kinds = chance.sample(list(itertools.product(COLOURS, SHAPES)), len(counts))
        description = Description(
            groups=tuple(Group(count, *kind) for count, kind in zip(counts, kinds, strict=True)),
            relation=chance.choice(RELATIONS) if len(counts) > 1 and chance.random() < 0.75 else None,
            background=chance.choice(BACKGROUNDS) if chance.random() < 0.5 else None,
            mark=chance.random() < 0.06,
        )
        if split_of(description) == split:
            return description


def _share(combination: str) -> float:
    return int.from_bytes(hashlib.sha256(combination.encode()).digest()[:8], "big") / 2**64
