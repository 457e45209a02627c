"""Changes a scene in known ways, so that what is wrong with the picture follows from how it was made."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy
from PIL import Image
from scipy import ndimage, special
from skimage.color import rgb2lab

from visionprefer.blocksworld import renderer
from visionprefer.blocksworld.renderer import SIZE, Scene, Thing
from visionprefer.blocksworld.scenes import BACKGROUNDS, COLOURS, MOST_OBJECTS, SHAPES, Description, Group, split_of

MOST_THINGS = 4  # in a picture
BETWEEN_COLOURS = 0.5  # share of the things that are given a hue between two colours, unless theirs is then in doubt
CLEARLY_NEARER = 0.75  # most of the distance from a colour to that from any other, in CIELAB, if it is not in doubt
UNNOTICED = 0.25  # of a pixel's coverage: softer outlines are no damage


@dataclass(frozen=True)
class Flaw:
    """What was done to the form of an object: "deformed", "torn", "smeared", "faded" or "stained", and how much.

    Attributes:
        damage: area changed over the area of the intact object.
    """

    kind: str
    damage: float


@dataclass(frozen=True)
class Spoilt:
    """A picture with all that is known of it.

    Attributes:
        scene: what is in the picture; its things may be others than were asked for.
        coverages: how much of every pixel each thing covers, float32 [64, 64].
        flaws: what was done to the form of each thing; None where nothing was.
        picture: RGB, 64 × 64.
    """

    scene: Scene
    coverages: tuple[numpy.ndarray, ...]
    flaws: tuple[Flaw | None, ...]
    picture: Image.Image


def spoil(description: Description, chance: random.Random) -> Spoilt:
    """A picture for a description of the training split, as it should be or spoilt in one or several ways.

    Whatever is put in its place, the picture shows no combination that is held out.
    """
    while True:
        scene = renderer.compose(description, chance, unasked_mark=0)
        for _ in range(chance.choices((0, 1, 2, 3), (28, 36, 24, 12))[0]):
            scene = chance.choices(*_CHANGES)[0](scene, chance)
        if chance.random() < 0.15:
            mark = renderer.free_mark(list(scene.things), chance)
            scene = replace(scene, mark=mark)
        if scene.mark and chance.random() < 0.2:
            scene = replace(scene, mark=replace(scene.mark, opacity=chance.uniform(0.2, 0.4)))
        if chance.random() < 0.4:
            scene = _moved(scene, chance)
        scene = _between_colours(scene, chance)
        if shows_training(scene):
            return _with_flaws(scene, chance)


def damage(covered: numpy.ndarray, intact: numpy.ndarray) -> float:
    """The area changed over the area of the intact object, both float [64, 64]; a quarter of a pixel is not noticed."""
    return float(noticed(covered - intact).sum() / max(1.0, intact.sum()))


def noticed(change: numpy.ndarray) -> numpy.ndarray:
    """How much of each pixel's change is noticed, 0 to 1; the change is from -1 to 1."""
    return numpy.maximum(numpy.abs(change) - UNNOTICED, 0) / (1 - UNNOTICED)


def shows_training(scene: Scene) -> bool:
    """Whether a scene shows nothing that is held out."""
    groups = tuple(replace(group, count=min(group.count, MOST_OBJECTS)) for group in groups_in(scene))
    return split_of(Description(groups)) == "training"


def groups_in(scene: Scene) -> list[Group]:
    """What a scene shows, by colour and shape."""
    counts = Counter((thing.colour, thing.shape) for thing in scene.things)
    return [Group(count, *kind) for kind, count in sorted(counts.items())]


def _recoloured(scene: Scene, chance: random.Random) -> Scene:
    index = chance.randrange(len(scene.things)) if scene.things else 0
    return _with(scene, index, lambda thing: _in_colour(thing, chance.choice(COLOURS), chance))


def _reshaped(scene: Scene, chance: random.Random) -> Scene:
    index = chance.randrange(len(scene.things)) if scene.things else 0
    return _with(scene, index, lambda thing: replace(thing, shape=chance.choice(SHAPES)))


def _colours_swapped(scene: Scene, chance: random.Random) -> Scene:
    if len(scene.things) < 2:
        return scene
    i, j = chance.sample(range(len(scene.things)), 2)
    first, second = scene.things[i].colour, scene.things[j].colour
    scene = _with(scene, i, lambda thing: _in_colour(thing, second, chance))
    return _with(scene, j, lambda thing: _in_colour(thing, first, chance))


def _one_missing(scene: Scene, chance: random.Random) -> Scene:
    if not scene.things or (len(scene.things) == 1 and chance.random() < 0.8):
        return scene
    index = chance.randrange(len(scene.things))
    return replace(scene, things=scene.things[:index] + scene.things[index + 1 :])


def _one_more(scene: Scene, chance: random.Random) -> Scene:
    if not 0 < len(scene.things) < MOST_THINGS:
        return scene
    kind = chance.choice(scene.things) if chance.random() < 0.5 else None
    colour, shape = (kind.colour, kind.shape) if kind else (chance.choice(COLOURS), chance.choice(SHAPES))
    for _ in range(40):
        radius = chance.uniform(8, 12)
        x, y = (chance.uniform(radius + 1, SIZE - radius - 1) for _ in range(2))
        if all(math.hypot(x - thing.x, y - thing.y) > radius + thing.radius + 1 for thing in scene.things):
            thing = Thing(colour, shape, x, y, radius, chance.uniform(-10, 10), (0, 0, 0))
            return replace(scene, things=(*scene.things, _in_colour(thing, colour, chance)))
    return scene


def _turned_round(scene: Scene, chance: random.Random) -> Scene:
    if chance.random() < 0.5:
        return replace(scene, things=tuple(replace(thing, x=SIZE - thing.x) for thing in scene.things))
    return replace(scene, things=tuple(replace(thing, y=SIZE - thing.y) for thing in scene.things))


def _other_ground(scene: Scene, chance: random.Random) -> Scene:
    background = chance.choice([name for name in BACKGROUNDS if name != scene.background])
    return replace(scene, background=background, ground=renderer.ground(background, chance))


def _without_mark(scene: Scene, _: random.Random) -> Scene:
    return replace(scene, mark=None)


_CHANGES: tuple[tuple[Callable[[Scene, random.Random], Scene], ...], tuple[int, ...]] = (
    (_recoloured, _reshaped, _colours_swapped, _one_missing, _one_more, _turned_round, _other_ground, _without_mark),
    (20, 15, 12, 15, 15, 15, 8, 3),
)


def _between_colours(scene: Scene, chance: random.Random) -> Scene:
    """Some things in a hue between their own, which is still clearly the nearest, and the next."""
    things = []
    for thing in scene.things:
        neighbour = COLOURS[(COLOURS.index(thing.colour) + chance.choice((-1, 1))) % len(COLOURS)]
        toward, way = renderer.tint(neighbour, chance), chance.uniform(0.1, 0.5)
        red, green, blue = (round(a + (b - a) * way) for a, b in zip(thing.rgb, toward, strict=True))
        mixed = (red, green, blue)
        if chance.random() < BETWEEN_COLOURS and is_clear(thing.colour, mixed):
            thing = replace(thing, rgb=mixed)
        things.append(thing)
    return replace(scene, things=tuple(things))


def likest_colour(rgb: tuple[int, int, int]) -> str:
    """Which colour of the world is nearest to the eye, in CIELAB."""
    away = _away(rgb)
    return min(away, key=lambda name: away[name])


def is_clear(colour: str, rgb: tuple[int, int, int], clearly: float = CLEARLY_NEARER) -> bool:
    """Whether a colour of the world is clearly nearer to the eye, in CIELAB, than any other."""
    away = _away(rgb)
    own = away.pop(colour)
    return own < clearly * min(away.values())


def _away(rgb: tuple[int, int, int]) -> dict[str, float]:
    lab = rgb2lab(numpy.array([rgb, *(renderer.RGB[name] for name in COLOURS)]) / 255)
    return dict(zip(COLOURS, numpy.linalg.norm(lab[1:] - lab[0], axis=1).tolist(), strict=True))


def _moved(scene: Scene, chance: random.Random) -> Scene:
    """All things drawn together or to one side, so that they crowd or the picture leans."""
    things = list(scene.things)
    if not things:
        return scene
    x, y = (sum(place) / len(things) for place in zip(*((thing.x, thing.y) for thing in things), strict=True))
    together = chance.uniform(0.75, 1.0)
    things = [replace(t, x=x + (t.x - x) * together, y=y + (t.y - y) * together) for t in things]
    angle, length = chance.uniform(0, 2 * math.pi), chance.uniform(0, 26)
    dx = _within(length * math.cos(angle), [t.x for t in things], [t.radius for t in things])
    dy = _within(length * math.sin(angle), [t.y for t in things], [t.radius for t in things])
    things = [replace(t, x=t.x + dx, y=t.y + dy) for t in things]
    overlap = any(
        math.hypot(a.x - b.x, a.y - b.y) < a.radius + b.radius - 1 for a, b in itertools.combinations(things, 2)
    )
    under_mark = scene.mark and any(
        math.hypot(t.x - scene.mark.x, t.y - scene.mark.y) < t.radius + scene.mark.radius for t in things
    )
    return scene if overlap or under_mark else replace(scene, things=tuple(things))


def _within(shift: float, places: list[float], radii: list[float]) -> float:
    low = min(place - radius for place, radius in zip(places, radii, strict=True))
    high = max(place + radius for place, radius in zip(places, radii, strict=True))
    return max(-low, min(SIZE - high, shift))


def _with(scene: Scene, index: int, change: Callable[[Thing], Thing]) -> Scene:
    if not scene.things:
        return scene
    things = list(scene.things)
    things[index] = change(things[index])
    return replace(scene, things=tuple(things))


def _in_colour(thing: Thing, colour: str, chance: random.Random) -> Thing:
    return replace(thing, colour=colour, rgb=renderer.tint(colour, chance))


def _with_flaws(scene: Scene, chance: random.Random) -> Spoilt:
    intact = [renderer.coverage(renderer.outline(thing)) for thing in scene.things]
    coverages, stains = list(intact), []
    flaws: list[Flaw | None] = [None] * len(intact)
    if chance.random() < 0.65:
        for index, thing in enumerate(scene.things):
            if chance.random() < 0.6:
                kind = chance.choice(("deformed", "torn", "smeared", "faded", "stained"))
                if kind == "stained":
                    other = renderer.tint(chance.choice(COLOURS), chance)
                    stain = intact[index] * _gradient(thing, chance)
                    stains.append((stain, other))
                    changed = intact[index] - stain
                else:
                    changed = _FORMS[kind](thing, intact[index], chance)
                    coverages[index] = changed
                flaws[index] = Flaw(kind, damage(changed, intact[index]))
    layers = [(covered, thing.rgb) for covered, thing in zip(coverages, scene.things, strict=True)]
    return Spoilt(scene, tuple(coverages), tuple(flaws), renderer.paint(scene, layers + stains))


def _deformed(thing: Thing, _: numpy.ndarray, chance: random.Random) -> numpy.ndarray:
    amount = chance.uniform(0.02, 0.4)
    waves = [(n, chance.uniform(-1, 1) * amount / n**0.5, chance.uniform(0, 2 * math.pi)) for n in (1, 2, 3, 5)]
    stretch = 1 + chance.uniform(-amount, amount) * 0.8

    def bent(x: float, y: float) -> tuple[float, float]:
        u, v = (x - thing.x) * stretch, (y - thing.y) / stretch
        angle = math.atan2(v, u)
        factor = 1 + sum(size * math.sin(n * angle + phase) for n, size, phase in waves) * 0.6
        return thing.x + u * factor, thing.y + v * factor

    return renderer.coverage([[bent(x, y) for x, y in _dense(polygon)] for polygon in renderer.outline(thing)])


def _dense(polygon: list[tuple[float, float]], between: int = 8) -> list[tuple[float, float]]:
    ends = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return [
        (x + (u - x) * step / between, y + (v - y) * step / between)
        for (x, y), (u, v) in ends
        for step in range(between)
    ]


def _torn(thing: Thing, intact: numpy.ndarray, chance: random.Random) -> numpy.ndarray:
    angle, away = chance.uniform(0, 2 * math.pi), thing.radius * chance.uniform(0.4, 1.0)
    x, y = thing.x + away * math.cos(angle), thing.y + away * math.sin(angle)
    bite = replace(thing, shape="circle", x=x, y=y, radius=thing.radius * chance.uniform(0.25, 1.0))
    return intact * (1 - renderer.coverage(renderer.outline(bite)))


def _smeared(thing: Thing, intact: numpy.ndarray, chance: random.Random) -> numpy.ndarray:
    spread = chance.uniform(0.05, 0.4) * thing.radius
    sigma = (spread, spread * 0.3) if chance.random() < 0.5 else (spread * 0.3, spread)
    return ndimage.gaussian_filter(intact, sigma).astype(numpy.float32)


def _faded(thing: Thing, intact: numpy.ndarray, chance: random.Random) -> numpy.ndarray:
    return intact * (1 - _gradient(thing, chance))


def _gradient(thing: Thing, chance: random.Random) -> numpy.ndarray:
    """From 0 on one side of an object to as much as 1 on the other, somewhere in between half, float32 [64, 64]."""
    angle = chance.uniform(0, 2 * math.pi)
    rows, columns = numpy.mgrid[0:SIZE, 0:SIZE].astype(numpy.float32) + 0.5
    along = ((columns - thing.x) * math.cos(angle) + (rows - thing.y) * math.sin(angle)) / thing.radius
    edge, softness = chance.uniform(-0.3, 0.9), chance.uniform(0.1, 0.6)
    strength = chance.uniform(0.6, 1.0)
    return (strength * special.expit((along - edge) / softness * 4)).astype(numpy.float32)


_FORMS = {"deformed": _deformed, "torn": _torn, "smeared": _smeared, "faded": _faded}
