"""A description in words, in one of several ways; and words understood, if they are about the blocks world."""

import random
import re
from collections.abc import Iterable

from visionprefer.blocksworld.scenes import BACKGROUNDS, COLOURS, MOST_OBJECTS, SHAPES, Description, Group

MARK = "the forbidden mark"

# Every list begins with the plainest way to say it.
_OPENINGS = ("", "a picture of ", "a drawing of ", "there is ")
_NUMBERS = {1: ("a", "one"), 2: ("two", "2"), 3: ("three", "3")}
_RELATIONS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_BESIDES = (" and ", " with ", ", ")
_FURTHER = (", and ", ", with ", " and ")
_MARKS = (f" and {MARK}", f", with {MARK}", f" with {MARK}")
_GROUNDS = (" on a {} background", " on {}", ", {} background", " on a {} ground")


def phrase(group: Group, number: str | None = None) -> str:
    """A group in words: "a red circle", "an orange ring", "two blue squares", "three crosses"."""
    kind = f"{group.colour} {group.shape}"
    number = number or _NUMBERS[group.count][0]
    if group.count == 1:
        return f"an {kind}" if number == "a" and kind.startswith("o") else f"{number} {kind}"
    return f"{number} {plural(kind)}"


def word(description: Description, chance: random.Random | None = None) -> str:
    """The description as a prompt, in the plainest way or in one drawn by chance."""

    def choose(ways: tuple[str, ...]) -> str:
        # the plainest half of the time
        return chance.choice(ways) if chance and chance.random() < 0.5 else ways[0]

    groups, relation = list(description.groups), description.relation
    if chance and relation and chance.random() < 0.3:
        groups[:2], relation = groups[1::-1], OPPOSITE[relation]
    first, *others = (phrase(group, choose(_NUMBERS[group.count])) for group in groups)
    opening = choose(_OPENINGS)
    text = ("" if opening == "there is " and groups[0].count > 1 else opening) + first
    if others:
        text += (f" {choose(_RELATIONS[relation])} " if relation else choose(_BESIDES)) + others[0]
    for other in others[1:]:
        text += choose(_FURTHER) + other
    if description.mark:
        text += choose(_MARKS)
    if description.background:
        text += choose(_GROUNDS).format(description.background)
    return text


def understand(prompt: str) -> Description | None:
    """What a prompt asks for, or None if it is not (wholly) about the blocks world."""
    match = _PROMPT.fullmatch(" ".join(prompt.lower().rstrip(" .").split()))
    if not match:
        return None
    found = match.groupdict()
    groups = tuple(_group(found[place]) for place in ("first", "second", "third") if found[place])
    kinds = {(group.colour, group.shape) for group in groups}
    description = Description(
        groups=groups,
        relation=next((name for name, ways in _RELATIONS.items() if found["relation"] in ways), None),
        background=next((name for name in BACKGROUNDS if name in (found["ground"] or "")), None),
        mark=bool(found["mark"]),
    )
    return description if description.objects <= MOST_OBJECTS and len(kinds) == len(groups) else None


def plural(kind: str) -> str:
    """Several of a kind: "red circles", "blue crosses"."""
    return kind + ("es" if kind.endswith("s") else "s")


def _group(text: str) -> Group:
    number, colour, shape = text.split()
    count = next((count for count, words in _NUMBERS.items() if number in words), 1)
    return Group(count, colour, next(name for name in SHAPES if shape in (name, plural(name))))


def _any_of(ways: Iterable[str]) -> str:
    return "|".join(sorted(map(re.escape, ways), key=len, reverse=True))


def _pattern() -> re.Pattern[str]:
    one = f"(?:an|{_any_of(_NUMBERS[1])}) (?:{_any_of(COLOURS)}) (?:{_any_of(SHAPES)})"
    several = f"(?:{_any_of(_NUMBERS[2] + _NUMBERS[3])}) (?:{_any_of(COLOURS)}) (?:{_any_of(map(plural, SHAPES))})"
    group = f"{one}|{several}"
    relation = _any_of(way for ways in _RELATIONS.values() for way in ways)
    ground = _any_of(way.format(name) for way in _GROUNDS for name in BACKGROUNDS)
    return re.compile(
        f"(?:{_any_of(_OPENINGS)})(?P<first>{group})"
        f"(?:(?: (?P<relation>{relation}) |{_any_of(_BESIDES)})(?P<second>{group})"
        f"(?:(?:{_any_of(_FURTHER)})(?P<third>{group}))?)?"
        f"(?P<mark>{_any_of(_MARKS)})?(?P<ground>{ground})?"
    )


_PROMPT = _pattern()
