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
LETTERS = "ABCDE"
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
    """What is there and where, from left to right, in pixels from the upper left:

    "Seen: red circle A (18,10), blue ring B (46,30), red circle C (58,18), three objects on white."

    Things of a kind are not numbered: a judge would learn which are never more than one in what it was trained on.
    """
    things = scene.things
    places = [f"{kind(things[at])} {letter} {_place(things[at])}" for letter, at in lettered(things).items()]
    count = f"{NUMBERS[len(things)]} object{'s' * (len(things) > 1)}" if things else "nothing"
    places.append(f"{count} on {scene.background}")
    if scene.mark:
        places.append(f"with {MARK}" if is_whole(scene.mark) else f"with a trace of {MARK}")
    return f"Seen: {', '.join(places)}."


def is_whole(mark: Mark) -> bool:
    """Whether there is more of the mark than a trace."""
    return mark.opacity >= 0.5


def prompt_following(description: Description, scene: Scene) -> AspectVerdict:
    """What is there, then the facts of the description one by one, each with "yes" or what is there instead.

    A small model that weighs all facts before its first word weighs them badly.
    """
    found = answers(description, scene)
    held = sum(answer.endswith(": yes") for *_, answer in found)
    asked = ", ".join(map("".join, found))
    text = f"{seen(scene)} {asked}. {held} of {len(found)} hold."
    return AspectVerdict(rationale=text, score=1 + 4 * held // len(found))


def answers(description: Description, scene: Scene) -> list[tuple[str, ...]]:
    """The facts of the description, each in pieces: in turn what is asked, and what of the scene answers it.

    ("one x red circle", " A: yes"), ("red circle", " A (18,10)", " left of blue ring", " B (46,30): yes"); the last
    ends with ": yes", or with what is so instead.
    """
    things = scene.things
    found: list[tuple[str, ...]] = []
    for group in description.groups:
        members = _members(group, things)
        answer = "".join(f" {letter}" for letter in members) + _count(len(members), group.count)
        found.append((f"{NUMBERS[group.count]} x {kind(group)}", answer))
    found.append((f"{NUMBERS[description.objects]} x object", _count(len(things), description.objects)))
    if description.relation:
        found.append(_related(description, things))
    if background := description.background:
        holds = scene.background == background
        found.append((f"on {background}", ": yes" if holds else f": {scene.background}"))
    if description.mark:
        found.append((MARK, ": yes" if scene.mark and is_whole(scene.mark) else ": no"))
    return found


def _count(count: int, wanted: int) -> str:
    return ": yes" if count == wanted else f": {NUMBERS[count]}"


def _related(description: Description, things: tuple[Thing, ...]) -> tuple[str, ...]:
    first, second = (_members(group, things) for group in description.groups[:2])
    across = description.relation in ("left of", "right of")
    places = [[grid(thing.x if across else thing.y) for thing in members.values()] for members in (first, second)]
    before, after = places if description.relation in ("left of", "above") else places[::-1]
    holds = before and after and max(before) < min(after)
    kinds = [kind(group) for group in description.groups[:2]]
    return (
        kinds[0],
        _places(first),
        f" {description.relation} {kinds[1]}",
        _places(second) + (": yes" if holds else ": no"),
    )


def _members(group: Group, things: tuple[Thing, ...]) -> dict[str, Thing]:
    """The things of a group by their letters."""
    return {letter: things[at] for letter, at in lettered(things).items() if kind(things[at]) == kind(group)}


def _places(members: dict[str, Thing]) -> str:
    """Where they are: " A (18,10) and C (58,18)"."""
    return " and".join(f" {letter} {_place(thing)}" for letter, thing in members.items()) or " nowhere"


def _place(thing: Thing) -> str:
    return f"({grid(thing.x)},{grid(thing.y)})"


def kind(of: Group | Thing) -> str:
    """What an object is: "red circle"."""
    return f"{of.colour} {of.shape}"


def grid(place: float) -> int:
    """A place in pixels to the nearest that is told: what is APART is told apart, and what is nearer may be."""
    return int(min(max(place, 0), SIZE - 1) // APART * APART + APART / 2)


def lettered(things: tuple[Thing, ...]) -> dict[str, int]:
    """The letters that name things from left to right, and their places in `things`."""
    return dict(zip(LETTERS, sorted(range(len(things)), key=lambda at: things[at].x), strict=False))


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
    """How cleanly each shape is formed, from left to right: "Formed: red circle A clean, blue ring B clearly torn."."""
    if not spoilt.flaws:
        return AspectVerdict(rationale="The picture is empty.", score=1)
    things = spoilt.scene.things
    states = [f"{kind(things[at])} {letter} {form(spoilt.flaws[at])}" for letter, at in lettered(things).items()]
    return AspectVerdict(rationale=f"Formed: {', '.join(states)}.", score=min(map(_cleanness, spoilt.flaws)))


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
