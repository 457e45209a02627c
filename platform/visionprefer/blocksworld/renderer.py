"""Draws scenes: where each object stands, how large, in which tint, and the picture of it, anti-aliased."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy
from PIL import Image, ImageDraw

from visionprefer.blocksworld.scenes import BACKGROUNDS, Description

SIZE = 64  # width and height of a picture, pixels
OVERSAMPLING = 4
CLEARLY = 8.0  # pixels between the centres of objects in a relation
_GAP = 2.0  # pixels between the circles around two objects

RGB = {
    "red": (215, 35, 40),
    "orange": (245, 135, 25),
    "yellow": (248, 218, 40),
    "green": (40, 160, 60),
    "blue": (45, 85, 215),
    "purple": (130, 50, 165),
}
GROUNDS = {"white": (244, 244, 244), "grey": (140, 140, 140), "black": (18, 18, 18)}
PINK = (255, 70, 185)  # of the forbidden mark
_MARK_UNASKED = 0.06  # share of the pictures that bear the mark though nobody asked for it

Outline = list[list[tuple[float, float]]]  # polygons; the second is a hole


@dataclass(frozen=True)
class Thing:
    """An object as it is drawn.

    Attributes:
        x, y: centre, pixels from the upper left.
        radius: of the circle around it, pixels.
        angle: turned clockwise, degrees.
        group: which group of the description it belongs to; None for one that nobody asked for.
    """

    colour: str
    shape: str
    x: float
    y: float
    radius: float
    angle: float
    rgb: tuple[int, int, int]
    group: int | None = None


@dataclass(frozen=True)
class Mark:
    """The forbidden mark: centre and radius in pixels, and how opaque it is, or how much of it is there, 0 to 1."""

    x: float
    y: float
    radius: float
    opacity: float = 1.0


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn."""

    things: tuple[Thing, ...]
    background: str
    ground: tuple[int, int, int]
    mark: Mark | None = None


def compose(description: Description, chance: random.Random, unasked_mark: float = _MARK_UNASKED) -> Scene:
    """A scene in which every fact of the description holds, drawn by chance.

    Args:
        description: what has to be in it.
        chance: where all randomness comes from.
        unasked_mark: probability of a forbidden mark that is not asked for.
    """
    largest = {1: 19.0, 2: 15.5, 3: 13.5}[description.objects]
    background = description.background or chance.choice(BACKGROUNDS)
    while True:
        things = [
            Thing(
                colour=group.colour,
                shape=group.shape,
                x=0,
                y=0,
                radius=chance.uniform(0.7, 1.0) * largest,
                angle=chance.uniform(-10, 10),
                rgb=tint(group.colour, chance),
                group=index,
            )
            for index, group in enumerate(description.groups)
            for _ in range(group.count)
        ]
        things = [_somewhere(thing, chance) for thing in things]
        if not _apart(things) or not related(things, description.relation):
            continue
        mark = None
        if description.mark or chance.random() < unasked_mark:
            mark = free_mark(things, chance)
            if mark is None:
                continue
        return Scene(tuple(things), background, ground(background, chance), mark)


def related(things: list[Thing], relation: str | None) -> bool:
    """Whether all objects of group 0 stand in the relation to all of group 1, and clearly so."""
    if relation is None:
        return True
    place: Callable[[Thing], float] = (lambda thing: thing.x) if relation.endswith(" of") else (lambda thing: thing.y)
    sign = 1 if relation in ("left of", "above") else -1
    first, second = ([sign * place(thing) for thing in things if thing.group == group] for group in (0, 1))
    return max(first) + CLEARLY <= min(second)


def free_mark(things: list[Thing], chance: random.Random) -> Mark | None:
    """A mark that covers no object; None if no room for it was found."""
    for _ in range(40):
        radius = chance.uniform(6.0, 8.0)
        x, y = (chance.uniform(radius + 1, SIZE - radius - 1) for _ in range(2))
        if all(math.hypot(x - thing.x, y - thing.y) > radius + thing.radius + 1 for thing in things):
            return Mark(x, y, radius)
    return None


def draw(scene: Scene) -> Image.Image:
    """The picture: RGB, 64 × 64."""
    layers = [(coverage(outline(thing)), thing.rgb) for thing in scene.things]
    return paint(scene, layers)


def paint(scene: Scene, layers: list[tuple[numpy.ndarray, tuple[int, int, int]]]) -> Image.Image:
    """The picture of a scene from its layers: how much of every pixel an object covers [64, 64], and its colour."""
    if scene.mark:
        arms = coverage(outline_of_mark(scene.mark))
        layers = [*layers, (arms * scene.mark.opacity, PINK)]
    pixels = numpy.full((SIZE, SIZE, 3), scene.ground, dtype=numpy.float32)
    for covered, rgb in layers:
        pixels += covered[..., None] * (numpy.array(rgb, dtype=numpy.float32) - pixels)
    return Image.fromarray(pixels.round().clip(0, 255).astype(numpy.uint8))


def outline(thing: Thing) -> Outline:
    """The polygons of an object in pixels, the second of them a hole."""
    return _placed(_OUTLINES[thing.shape](), thing.x, thing.y, thing.radius, thing.angle)


def outline_of_mark(mark: Mark) -> Outline:
    """The polygon of the mark in pixels."""
    return _placed(_saltire(), mark.x, mark.y, mark.radius, 0)


def coverage(polygons: Outline) -> numpy.ndarray:
    """How much of every pixel lies within the first polygon and not within the others: float32, 0 to 1, [64, 64]."""
    canvas = Image.new("L", (SIZE * OVERSAMPLING, SIZE * OVERSAMPLING))
    pen = ImageDraw.Draw(canvas)
    for index, polygon in enumerate(polygons):
        pen.polygon([(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in polygon], fill=0 if index else 255)
    return numpy.asarray(canvas.reduce(OVERSAMPLING), dtype=numpy.float32) / 255


def tint(colour: str, chance: random.Random) -> tuple[int, int, int]:
    """A tint of a colour of the world."""
    return _tinted(RGB[colour], chance)


def ground(background: str, chance: random.Random) -> tuple[int, int, int]:
    """A tint of a background."""
    return _tinted(GROUNDS[background], chance)


def _tinted(rgb: tuple[int, int, int], chance: random.Random) -> tuple[int, int, int]:
    shift = chance.uniform(-8, 8)
    red, green, blue = (round(min(255, max(0, part + shift + chance.uniform(-5, 5)))) for part in rgb)
    return red, green, blue


def _somewhere(thing: Thing, chance: random.Random) -> Thing:
    low, high = thing.radius + 1, SIZE - thing.radius - 1
    return replace(thing, x=chance.uniform(low, high), y=chance.uniform(low, high))


def _apart(things: list[Thing]) -> bool:
    return all(
        math.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius + _GAP
        for index, a in enumerate(things)
        for b in things[:index]
    )


def _placed(polygons: Outline, x: float, y: float, radius: float, angle: float) -> Outline:
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return [[(x + radius * (u * cos - v * sin), y + radius * (u * sin + v * cos)) for u, v in p] for p in polygons]


def _regular(corners: int, radius: float = 1.0, first: float = 0.0) -> list[tuple[float, float]]:
    angles = (first + 2 * math.pi * corner / corners for corner in range(corners))
    return [(radius * math.sin(angle), -radius * math.cos(angle)) for angle in angles]


def _plus(length: float, width: float) -> list[tuple[float, float]]:
    a, b = length, width
    return [(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b), (-a, -b), (-b, -b)]


def _saltire() -> Outline:
    turn = math.sqrt(0.5)
    return [[((x - y) * turn, (x + y) * turn) for x, y in _plus(0.95, 0.24)]]


# In a circle of radius 1, each about as large as the eye expects of shapes of one size.
_OUTLINES: dict[str, Callable[[], Outline]] = {
    "circle": lambda: [_regular(48, 0.82)],
    "square": lambda: [_regular(4, 1.0, math.pi / 4)],
    "triangle": lambda: [_regular(3, 1.0)],
    "cross": lambda: [_plus(0.86, 0.29)],
    "ring": lambda: [_regular(48, 0.87), _regular(48, 0.47)],
}
