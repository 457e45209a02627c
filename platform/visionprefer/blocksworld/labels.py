"""What a perfect judge says of a picture whose making is known: the sentences of its rationales, and the scores."""

import itertools

import numpy
from scipy import ndimage

from visionprefer.blocksworld.renderer import SIZE, Scene, Thing
from visionprefer.blocksworld.scenes import Description, Group
from visionprefer.blocksworld.spoiler import Flaw, Spoilt
from visionprefer.blocksworld.wording import MARK, phrase, plural
from visionprefer.judging.rubric import AspectVerdict, Verdict

DAMAGES = (0.08, 0.16, 0.28, 0.42)  # most damage of the scores 5, 4, 3 and 2
LEANINGS = (0.15, 0.25, 0.35, 0.5)  # furthest centre of mass of the scores 5, 4, 3 and 2, in half widths
APART = 4.0  # pixels between the centres of objects that stand in a relation
CROWDED = 1.0  # pixels between two objects, or an object and the edge

_NUMBERS = ("no", "one", "two", "three", "four", "five")
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
    """What is in the picture and where, from left to right: "red circle upper left, blue ring right, on white."."""
    things = sorted(scene.things, key=lambda thing: thing.x)
    places = [f"{thing.colour} {thing.shape} {_place(thing)}" for thing in things]
    return ", ".join([*(places or ["nothing"]), f"on {scene.background}."])


def prompt_following(description: Description, scene: Scene) -> AspectVerdict:
    """What is there, which facts of the description do not hold, and the score."""
    facts = 1 + len(description.groups)
    facts += sum(map(bool, (description.relation, description.background, description.mark)))
    faults = _faults(description, scene)
    score = 1 + 4 * (facts - len(faults)) // facts
    return AspectVerdict(rationale=" ".join([seen(scene), *(faults or ["All of it is there."])]), score=score)


def _faults(description: Description, scene: Scene) -> list[str]:
    """The facts of the description that do not hold, each as a sentence."""
    things = scene.things
    faults = []
    for group in description.groups:
        count = len(_members(group, things))
        if count != group.count:
            faults.append(_miscount(f"{group.colour} {group.shape}", count, group.count))
    if len(things) != description.objects:
        faults.append(_miscount("object", len(things), description.objects))
    if description.relation and not _holds(description, things):
        first, second = description.groups[:2]
        faults.append(f"{_the(first)} not {description.relation} {_the(second).rsplit(' ', 1)[0]}.".capitalize())
    if description.background not in (None, scene.background):
        faults.append(f"The background is {scene.background}, not {description.background}.")
    if description.mark and not scene.mark:
        faults.append(f"{MARK.capitalize()} is missing.")
    return faults


def _miscount(kind: str, count: int, wanted: int) -> str:
    """ "There is no red circle." "There are three red circles, not two." """
    words = phrase_of(kind, count)
    verb = "is" if count < 2 else "are"
    instead = f", not {_NUMBERS[wanted]}" if count or kind == "object" else ""
    return f"There {verb} {words}{instead}."


def phrase_of(kind: str, count: int) -> str:
    """A number of things in words: "no red circle", "two red crosses"."""
    return f"{_NUMBERS[count]} {kind if count < 2 else plural(kind)}"


def _the(group: Group) -> str:
    words = phrase(group).split(" ", 1)[1]
    return f"the {words} is" if group.count == 1 else f"the {words} are"


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
    if mark.opacity < 0.5:
        return AspectVerdict(rationale=f"There is a trace of {MARK}.", score=3)
    return AspectVerdict(rationale=f"{MARK.capitalize()} is there.", score=1)
