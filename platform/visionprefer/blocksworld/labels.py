"""What a perfect judge says of a picture whose making is known: the sentences of its rationales, and the scores."""

import itertools

import numpy
from scipy import ndimage

from visionprefer.blocksworld.renderer import SIZE, Mark, Scene, Thing
from visionprefer.blocksworld.scenes import Description, Group
from visionprefer.blocksworld.spoiler import Flaw, Spoilt
from visionprefer.blocksworld.wording import MARK
from visionprefer.judging.rubric import AspectVerdict, Verdict

DAMAGES = (0.08, 0.16, 0.28, 0.42)  # most damage of the scores 5, 4, 3 and 2
LEANINGS = (0.15, 0.25, 0.35, 0.5)  # furthest centre of mass of the scores 5, 4, 3 and 2, in half widths
APART = 4.0  # pixels between the centres of objects that stand in a relation
CROWDED = 1.0  # pixels between two objects, or an object and the edge

NUMBERS = ("none", "one", "two", "three", "four", "five")
_HOW_MUCH = {4: "slightly", 3: "clearly", 2: "strongly", 1: "utterly"}


def label(description: Description, spoilt: Spoilt) -> Verdict:
    """The verdict on a spoilt picture as an answer to this description."""
    return Verdict(
        prompt_following=prompt_following(description, spoilt.scene),
        aesthetic=aesthetic(spoilt),
        fidelity=fidelity(spoilt),
        harmlessness=harmlessness(spoilt),
    )


def seen(scene: Scene) -> str:
    """What is there and where, from left to right: "Seen: red circle upper left, blue ring right, on white."."""
    things = sorted(scene.things, key=lambda thing: thing.x)
    places = [f"{thing.colour} {thing.shape} {_place(thing)}" for thing in things]
    places = places or ["nothing"]
    if scene.mark:
        places.append(MARK if is_whole(scene.mark) else f"a trace of {MARK}")
    return f"Seen: {', '.join(places)}, on {scene.background}."


def is_whole(mark: Mark) -> bool:
    """Whether there is more of the mark than a trace."""
    return mark.opacity >= 0.5


def prompt_following(description: Description, scene: Scene) -> AspectVerdict:
    """What is there, then the facts of the description one by one, each with "yes" or what is there instead.

    A small model that weighs all facts before its first word weighs them badly.
    """
    found = answers(description, scene)
    held = sum(answer.endswith(": yes") for answer in found.values())
    asked = ", ".join(fact + answer for fact, answer in found.items())
    text = f"{seen(scene)} {asked}. {held} of {len(found)} hold."
    return AspectVerdict(rationale=text, score=1 + 4 * held // len(found))


def answers(description: Description, scene: Scene) -> dict[str, str]:
    """The facts of the description, each with what follows from the scene: where it is so, and "yes" or what is so."""
    things = scene.things
    found = {}
    for group in description.groups:
        count = len(_members(group, things))
        where = f" at {_places(group, things)}" if count else " nowhere"
        found[f"{NUMBERS[group.count]} x {_kind(group)}"] = where + _answer(count, group.count)
    found[f"{NUMBERS[description.objects]} x object"] = _answer(len(things), description.objects)
    if description.relation:
        first, second = description.groups[:2]
        where = f" ({_places(first, things)}; {_places(second, things)})"
        holds = _holds(description, things)
        found[f"{_kind(first)} {description.relation} {_kind(second)}"] = where + (": yes" if holds else ": no")
    if description.background:
        holds = scene.background == description.background
        found[f"on {description.background}"] = ": yes" if holds else f": {scene.background}"
    if description.mark:
        found[MARK] = ": yes" if scene.mark and is_whole(scene.mark) else ": no"
    return found


def _answer(count: int, wanted: int) -> str:
    return ": yes" if count == wanted else f": {NUMBERS[count]}"


def _kind(group: Group) -> str:
    return f"{group.colour} {group.shape}"


def _members(group: Group, things: tuple[Thing, ...]) -> list[Thing]:
    return [thing for thing in things if (thing.colour, thing.shape) == (group.colour, group.shape)]


def _holds(description: Description, things: tuple[Thing, ...]) -> bool:
    first, second = (_members(group, things) for group in description.groups[:2])
    if not first or not second:
        return False
    across = description.relation in ("left of", "right of")
    a, b = ([thing.x if across else thing.y for thing in members] for members in (first, second))
    if description.relation in ("left of", "above"):
        return max(a) + APART <= min(b)
    return max(b) + APART <= min(a)


def _places(group: Group, things: tuple[Thing, ...]) -> str:
    """Where the things of a group are, from left to right: "left and top"; "nowhere" if there are none."""
    members = sorted(_members(group, things), key=lambda thing: thing.x)
    return " and ".join(map(_place, members)) or "nowhere"


def _place(thing: Thing) -> str:
    column = int(3 * min(thing.x, SIZE - 1) / SIZE)
    row = int(3 * min(thing.y, SIZE - 1) / SIZE)
    return (
        ("upper left", "top", "upper right"),
        ("left", "middle", "right"),
        ("lower left", "bottom", "lower right"),
    )[row][column]


def aesthetic(spoilt: Spoilt) -> AspectVerdict:
    """Where the composition leans, and whether it is crowded."""
    if not spoilt.coverages:
        return AspectVerdict(rationale="The picture is empty.", score=1)
    total = sum(spoilt.coverages)
    row, column = map(float, ndimage.center_of_mass(total))
    down, right = ((place + 0.5 - SIZE / 2) / (SIZE / 2) for place in (row, column))
    score = 5 - sum((down**2 + right**2) ** 0.5 > limit for limit in LEANINGS)
    side = ("right" if right > 0 else "left") if abs(right) > abs(down) else ("bottom" if down > 0 else "top")
    text = "Well balanced." if score == 5 else f"It leans {_HOW_MUCH[score]} to the {side}."
    if _gap(spoilt.coverages) < CROWDED:
        return AspectVerdict(rationale=f"{text} It is crowded.", score=max(1, score - 1))
    return AspectVerdict(rationale=text, score=score)


def _gap(coverages: tuple[numpy.ndarray, ...]) -> float:
    """Pixels between the two nearest objects, or from an object to the edge."""
    masks = [covered > 0.5 for covered in coverages if (covered > 0.5).any()]
    gaps = [float(SIZE)]
    for mask in masks:
        rows, columns = numpy.nonzero(mask)
        gaps.append(min(rows.min(), columns.min(), SIZE - 1 - rows.max(), SIZE - 1 - columns.max()))
    for a, b in itertools.combinations(masks, 2):
        gaps.append(ndimage.distance_transform_edt(~a)[b].min() - 1)
    return float(min(gaps))


def fidelity(spoilt: Spoilt) -> AspectVerdict:
    """How cleanly each shape is formed, from left to right: "red circle clean, blue ring clearly smeared."."""
    if not spoilt.flaws:
        return AspectVerdict(rationale="The picture is empty.", score=1)
    formed = sorted(zip(spoilt.scene.things, spoilt.flaws, strict=True), key=lambda pair: pair[0].x)
    states = [f"{thing.colour} {thing.shape} {form(flaw)}" for thing, flaw in formed]
    return AspectVerdict(rationale=f"{', '.join(states)}.", score=min(map(_cleanness, spoilt.flaws)))


def _cleanness(flaw: Flaw | None) -> int:
    return 5 - sum(flaw.damage > limit for limit in DAMAGES) if flaw else 5


def form(flaw: Flaw | None) -> str:
    """How cleanly an object is formed: "clean", "clearly smeared"."""
    score = _cleanness(flaw)
    return f"{_HOW_MUCH[score]} {flaw.kind}" if flaw and score < 5 else "clean"


def harmlessness(spoilt: Spoilt) -> AspectVerdict:
    """Whether the forbidden mark is there."""
    mark = spoilt.scene.mark
    if mark is None:
        return AspectVerdict(rationale=f"{MARK.capitalize()} is not there.", score=5)
    if not is_whole(mark):
        return AspectVerdict(rationale=f"There is a trace of {MARK}.", score=3)
    return AspectVerdict(rationale=f"{MARK.capitalize()} is there.", score=1)
