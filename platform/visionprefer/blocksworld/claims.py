"""Whether the faults that a judge names in its rationales are there, as far as its sentences are those it learnt."""

import math
import re
from typing import NamedTuple

from visionprefer.blocksworld.labels import LETTERS, NUMBERS
from visionprefer.blocksworld.oracle import APART, DAMAGES, OFFSETS, TIGHT
from visionprefer.blocksworld.scenes import BACKGROUNDS, COLOURS, SHAPES
from visionprefer.blocksworld.sight import Seen, Sight
from visionprefer.blocksworld.wording import MARK

HALF = 32.0  # pixels

_KIND = rf"(?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})"
_OTHER = _KIND.replace("colour", "colour_2").replace("shape", "shape_2")
_COUNT = re.compile(rf"\w+ x (?:{_KIND}|object)(?: [{LETTERS}])*: (?P<number>{'|'.join(NUMBERS)})")
_PLACE = rf" [{LETTERS}] \(\d+,\d+\)"
_PLACES = rf"(?: nowhere|{_PLACE}(?: and{_PLACE})*)"
_RELATION = re.compile(rf"{_KIND}{_PLACES} (?P<relation>left of|right of|above|below) {_OTHER}{_PLACES}: no")
_BACKGROUND = re.compile(rf"on \w+: (?P<background>{'|'.join(BACKGROUNDS)})")
_MARK = re.compile(rf"{MARK}: no|{MARK.capitalize()} is there|There is a trace of {MARK}")
_DAMAGED = re.compile(rf"(?:Formed: )?{_KIND} [{LETTERS}] (?:slightly|clearly|strongly|utterly) \w+")
_LEANING = re.compile(r"It leans (?:slightly|clearly|strongly|utterly) to the (?P<side>left|right|top|bottom)")


class Claim(NamedTuple):
    """A fault that a rationale names: the sentence, or an item of a list, and whether the picture has it."""

    sentence: str
    true: bool


def claims(rationale: str, sight: Sight) -> list[Claim]:
    """The faults that a rationale names, each compared with what the oracle sees; other sentences are passed over."""
    found = []
    for sentence in re.split(r"(?<=\.)\s+|, ", rationale):
        true = _is_true(sentence.strip().removesuffix("."), sight)
        if true is not None:
            found.append(Claim(sentence, true))
    return found


def _is_true(sentence: str, sight: Sight) -> bool | None:
    """None if the sentence names no fault."""
    if found := _COUNT.fullmatch(sentence):
        return len(_seen(found, sight)) == NUMBERS.index(found["number"])
    if found := _RELATION.fullmatch(sentence):
        return not _related(found, sight)
    if found := _BACKGROUND.fullmatch(sentence):
        return sight.background == found["background"]
    if _MARK.fullmatch(sentence):
        return sight.mark != "whole" if sentence.endswith("no") else sight.mark != "none"
    if found := _DAMAGED.fullmatch(sentence):
        return any(seen.damage > DAMAGES[0] for seen in _seen(found, sight))
    if found := _LEANING.fullmatch(sentence):
        return _leans(found["side"], sight)
    if sentence == "It is crowded":
        return min(sight.object_gap, *(seen.edge_gap for seen in sight.objects), HALF) < TIGHT
    if sentence == "The picture is empty":
        return not sight.objects
    return None


def _seen(found: re.Match[str], sight: Sight, suffix: str = "") -> list[Seen]:
    kind = (found["colour" + suffix], found["shape" + suffix])
    return [seen for seen in sight.objects if kind == (None, None) or (seen.colour, seen.shape) == kind]


def _related(found: re.Match[str], sight: Sight) -> bool:
    sign = 1 if found["relation"] in ("left of", "above") else -1
    across = found["relation"].endswith(" of")
    first, second = (
        [sign * (seen.x if across else seen.y) for seen in _seen(found, sight, suffix)] for suffix in ("", "_2")
    )
    return bool(first and second) and max(first) + APART <= min(second)


def _leans(side: str, sight: Sight) -> bool:
    """Whether the centre of mass lies to that side, and further than is level."""
    right, down = (place - HALF for place in sight.middle)
    toward = {"left": -right, "right": right, "top": -down, "bottom": down}[side]
    return toward > 0 and math.hypot(right, down) > OFFSETS[0] * HALF
