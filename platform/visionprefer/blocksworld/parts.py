"""The parts of a picture that may be objects: pixels of one colour, cut at necks, joined where one shape fits better.

Every pixel is explained as a mixture of the background and one colour, which makes an anti-aliased edge a fainter pixel
of its object instead of another colour. Connected pixels of one colour are a part.

Shapes in names: H rows, W columns, C channels.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.measure import label

from visionprefer.blocksworld.arcs import arc_of
from visionprefer.blocksworld.fitting import INTACT, KINDS, SIZE, Floats, Mask, Part, X, Y, fitted, surroundings

COLOURS = {
    "red": (215, 35, 40),
    "orange": (245, 135, 25),
    "yellow": (248, 218, 40),
    "green": (40, 160, 60),
    "blue": (45, 85, 215),
    "purple": (130, 50, 165),
}
PINK = (255, 70, 185)
_NAMES = (*COLOURS, "pink")
_SOLID = tuple(kind for kind in KINDS if kind.shape != "ring")
PALETTE = np.array([*COLOURS.values(), PINK], dtype=np.float64)
_LAB = np.array([0.5, 1, 1])  # lightness says less than hue about which of six bright colours was meant
_PALETTE_LAB = rgb2lab(PALETTE / 255) * _LAB

OPAQUE = 0.5  # half covered: the edge of an object runs through here
VISIBLE = 0.3  # fainter than this is a shadow, not an object
SPECK = 25.0  # pixels; less is dirt, not an object
FRAGMENT = 55  # pixels; what is smaller and belongs to nothing beside it is no object: half of the smallest clean one
FRINGE = 2.5  # pixels; a strip along an object, where two colours mix, is this thin
BESIDE = 4  # pixels between pieces that may be of one object
DEBRIS = 0.25  # a piece beside an object, smaller than this share of it, is damage and not an object
OFF_COLOUR = 60.0  # levels from the mixing line; a pixel twice as far off shows something else than its object
DENT = 0.3  # the most that the middle of a ring's hole may be covered: a hole shows the ground
WITHIN = 0.75  # share of a piece that lies in a hole, if it is a spot there
RUBBLE = 10  # parts; with more, nothing was drawn that could be put together
SMALLEST = 80  # pixels of each side of a cut; the smallest clean object has about 110
WELL_FORMED = 0.82  # intersection over union above which nothing is gained by cutting or joining
CLEARLY = 0.5  # share of the squared error to which another explanation must reduce it
MERGED = 0.87  # intersection over union above which two colours are one object, stained
FUSED = 0.2  # share of its outline along which a piece touches the others of an object of two colours
BROKEN = 0.6  # intersection over union above which pieces of several colours may be one shape
FAIR = 0.76  # intersection over union of what is still seen as one shape: the sides of a cut, faded pieces
MUCH = 0.3  # intersection over union that a cut through a neck gains for both sides, if they are no clean shapes
POOR = 0.7  # intersection over union under which a part without a neck may still be two
NECK = 0.7  # length of a cut through a neck, over the breadth of either side


@dataclass(frozen=True)
class View:
    """A picture to be explained: its pixels in levels of 255, its background's colour, what the mark hides."""

    pixels_HWC: Floats
    ground: Floats
    hidden: Mask


def parts_of(kinds: NDArray[np.intp], opacity: Floats, view: View) -> list[Part]:
    """What may be objects, each with the template that fits it best and the opacity of its own colour.

    Args:
        kinds, opacity: of each pixel, as it is explained; opacity 0 where there is no object.
        view: the picture.
    """
    parts = [Part(mask, _own_colour(mask, kinds, opacity, view)) for mask in _regions(kinds, opacity)]
    parts = _measured(parts, view)
    if len(parts) > RUBBLE:
        return parts
    return [part for part in _cut(_joined(parts, view), view) if np.count_nonzero(part.mask) >= FRAGMENT]


def explained(offset_HWC: Floats, rays: Floats) -> tuple[NDArray[np.intp], Floats]:
    """The colour that, laid over the background, comes closest to each pixel, and how opaque it lies there."""
    opacity = np.clip(offset_HWC @ (rays / (rays**2).sum(axis=1, keepdims=True)).T, 0, 1.25)
    square = (offset_HWC**2).sum(axis=2)[..., None]
    off = square - 2 * opacity * (offset_HWC @ rays.T) + opacity**2 * (rays**2).sum(axis=1)
    kinds = off.argmin(axis=2)
    return kinds, np.take_along_axis(opacity, kinds[..., None], axis=2)[..., 0]


def colour_name(rgb: Floats, ground: Floats) -> str:
    """The nearest of the six colours. What is faint has the hue of its mixture with the background, not its own."""
    opaque = explained((rgb - ground)[None, None], PALETTE[:-1] - ground)
    if opaque[1][0, 0] < 0.7:
        return _NAMES[int(opaque[0][0, 0])]
    lab = rgb2lab(rgb / 255) * _LAB
    return _NAMES[int(((_PALETTE_LAB[:-1] - lab) ** 2).sum(axis=1).argmin())]


def _regions(kinds: NDArray[np.intp], opacity: Floats) -> list[Mask]:
    """The pixels of each part: connected, of one colour, strips where colours mix given to their neighbours."""
    cores = label(np.where(opacity > OPAQUE, kinds + 1, 0), connectivity=1, background=0)
    areas = np.bincount(cores.ravel())
    inner = inner_pixels(cores)
    solid = (areas >= SPECK) & (np.bincount(cores[inner], minlength=len(areas)) >= np.maximum(4, 0.08 * areas))
    solid[0] = False
    distance, (row, column) = ndimage.distance_transform_edt(~solid[cores], return_indices=True)
    owners = cores[row, column]
    masks = [(owners == index) & (distance <= FRINGE) & (opacity > OPAQUE) for index in np.flatnonzero(solid)]
    rest = label((opacity > VISIBLE) & (distance > FRINGE), connectivity=2)
    sizes = np.bincount(rest.ravel())
    return masks + [rest == index for index in range(1, len(sizes)) if sizes[index] >= SPECK]


def inner_pixels(labels: NDArray[np.intp]) -> Mask:
    """Pixels whose four neighbours bear the same label."""
    padded = np.pad(labels, 1, mode="edge")
    centre = padded[1:-1, 1:-1]
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.logical_and.reduce([centre == neighbour for neighbour in around]) & (centre > 0)


def _own_colour(mask: Mask, kinds: NDArray[np.intp], opacity: Floats, view: View) -> Floats:
    """The colour of a part where it is most opaque: the middle of its more opaque pixels, without its edge."""
    inner = mask & inner_pixels(mask.astype(np.intp))
    mask = inner if np.count_nonzero(inner) >= 6 else mask
    common = np.bincount(kinds[mask] + 1).argmax() - 1
    mask = mask & (kinds == common)
    strong = mask & (opacity >= 0.85 * np.quantile(opacity[mask], 0.8))
    return np.median(view.pixels_HWC[strong], axis=0)


def _measured(parts: list[Part], view: View) -> list[Part]:
    """Give each part its opacity in the territory that is nearer to it than to others, and fit it."""
    if not parts:
        return []
    owner = np.zeros((SIZE, SIZE), dtype=np.intp)
    for index, part in enumerate(parts):
        owner[part.mask] = index + 1
    row, column = ndimage.distance_transform_edt(owner == 0, return_distances=False, return_indices=True)
    nearest = owner[row, column]
    for index, part in enumerate(parts):
        part.own = _opacity(part.rgb, view) * (nearest == index + 1)
        part.soft = part.soft if part.mixed else part.own
        foreign = (owner > 0) & (owner != index + 1) | view.hidden
        parts[index] = _shaped(part, ~foreign)
    return parts


def _shaped(part: Part, valid: Mask) -> Part:
    """The part with the template that it is most like."""
    window = surroundings(part.mask)
    part = fitted(part, KINDS, window, valid)
    if part.kind.shape == "ring":
        x, y, radius, *_ = part.pose
        hole = np.hypot(X - x, Y - y) < 0.7 * part.kind.proportion * radius
        filled = hole.any() and part.soft[hole].mean() > DENT  # a hole shows the ground
        return fitted(part, _SOLID, window, valid) if filled else part
    return part


def _opacity(rgb: Floats, view: View) -> Floats:
    """How much of each pixel the colour covers; a pixel that is of neither is not covered."""
    ray, offset = rgb - view.ground, view.pixels_HWC - view.ground
    opacity = np.clip(offset @ ray / (ray @ ray), 0, 1)
    off = np.sqrt(((offset - opacity[..., None] * ray) ** 2).sum(axis=2))
    return opacity * np.clip(2 - off / OFF_COLOUR, 0, 1)


def _joined(parts: list[Part], view: View) -> list[Part]:
    """Join pieces that one shape fits better than it fits the largest, and debris with what it lies beside."""
    for together in _neighbours(parts):
        joined = _union([parts[index] for index in together], view)
        if joined:
            rest = [part for index, part in enumerate(parts) if index not in together]
            return _joined(_measured([*rest, joined], view), view)
    return parts


def _neighbours(parts: list[Part]) -> list[tuple[int, ...]]:
    """Pairs of parts that nearly touch; and all that hang together, if there are more."""
    grown = [ndimage.binary_dilation(part.mask, iterations=BESIDE) for part in parts]
    near = [(a, b) for a, b in itertools.combinations(range(len(parts)), 2) if (grown[a] & parts[b].mask).any()]
    groups = [{index} for index in range(len(parts))]
    for a, b in near:
        groups = [group for group in groups if not group & {a, b}] + [
            set().union(*(group for group in groups if group & {a, b}))
        ]
    return near + [tuple(group) for group in groups if len(group) > 2]


def _union(parts: list[Part], view: View) -> Part | None:
    """Neighbours as one part, if they are better seen as one."""
    big, *others = sorted(parts, key=lambda part: -np.count_nonzero(part.mask))
    mask = np.logical_or.reduce([part.mask for part in parts])
    soft = np.maximum(np.max([part.soft for part in parts], axis=0), inner_pixels(mask.astype(np.intp)))
    whole = _shaped(Part(mask, big.rgb, mixed=True, soft=soft), ~view.hidden)
    name = colour_name(big.rgb, view.ground)
    alike = all(colour_name(part.rgb, view.ground) == name for part in others)
    area, rest = (sum(np.count_nonzero(part.mask) for part in some) for some in ([big], others))
    debris = rest < DEBRIS * area and (alike or rest < 2 * SPECK)
    if any(_in_its_hole(ring, other) for ring, other in itertools.permutations(parts, 2)):
        return None
    arc = arc_of(mask) if max(part.fit for part in parts) < FAIR else None
    if arc:
        pose = np.array([arc.x, arc.y, arc.radius, 0, 1.5])
        return replace(whole, kind=INTACT["ring"], pose=pose, fit=max(whole.fit, arc.filled))
    if debris and whole.fit > big.fit - 0.1:
        return whole
    # An object of two colours: they meet along a long border, and no piece is much of a shape without the others.
    fused = all(_border(part, [other for other in parts if other is not part]) > FUSED for part in others)
    if fused and whole.fit > max(big.fit - 0.05, BROKEN):
        return whole
    if whole.fit > max(max(part.fit for part in parts) + 0.1, BROKEN):
        return whole
    # what is not its own does not count in the fit of the largest, so it cannot be much exceeded
    return whole if whole.fit > max(big.fit - 0.02, FAIR if alike else MERGED) else None


def _in_its_hole(ring: Part, spot: Part) -> bool:
    x, y, radius, *_ = ring.pose
    hole = np.hypot(X - x, Y - y) < max(ring.kind.proportion, INTACT["ring"].proportion) * radius
    return ring.kind.shape == "ring" and bool(hole[spot.mask].mean() > WITHIN)


def _border(part: Part, others: list[Part]) -> float:
    """The share of a part's outline along which others lie."""
    outline = ndimage.binary_dilation(part.mask) & ~part.mask
    touched = outline & np.logical_or.reduce([other.mask for other in others])
    return int(touched.sum()) / max(1, int(outline.sum()))


def _cut(parts: list[Part], view: View) -> list[Part]:
    """Cut the parts that are two objects of one colour: at a neck, where both sides then fit much better."""
    done: list[Part] = []
    waiting = list(parts)
    while waiting:
        part = waiting.pop()
        halves = None if part.fit > WELL_FORMED else _halves(part)
        if halves is None:
            done.append(part)
        else:
            waiting += halves
    return done if len(done) == len(parts) else _measured(done, view)


def _halves(part: Part) -> list[Part] | None:
    """Two parts that together fit clearly better than one; None if there are none."""
    best: list[Part] | None = None
    error = CLEARLY * part.error
    for neck, first in _cuts(part.mask):
        if not neck and (best or part.fit > POOR):
            break
        sides = []
        for side in (first, ~first):
            mask = part.mask & side
            sides.append(fitted(replace(part, mask=mask, soft=part.soft * side), KINDS, surroundings(mask), side))
        fits = min(FAIR, part.fit + MUCH)
        if not neck:  # only what has corners tells that it is two
            fits = MERGED if {side.kind.shape for side in sides} <= {"square", "cross"} else 1.0
        if min(side.fit for side in sides) > fits and sum(side.error for side in sides) < error:
            best, error = sides, sum(side.error for side in sides)
    return best


def _cuts(mask: Mask) -> list[tuple[bool, Mask]]:
    """The shortest straight cuts: whether each goes through a single neck, and the pixels on one side of it."""
    x, y = X[mask], Y[mask]
    found: list[tuple[bool, float, float, float]] = []  # no neck; its share of the breadth; direction, place
    for turn in np.arange(0, np.pi, np.pi / 12):
        along = x * np.cos(turn) + y * np.sin(turn)
        across = y * np.cos(turn) - x * np.sin(turn)
        slices = np.floor(along - along.min()).astype(int)
        order = np.lexsort((across, slices))
        slices, across = slices[order], across[order]
        places, starts, areas = np.unique(slices, return_index=True, return_counts=True)
        lengths = np.maximum.reduceat(across, starts) - np.minimum.reduceat(across, starts) + 1
        torn = (np.diff(across, prepend=across[0]) > 2.5) & (np.diff(slices, prepend=-1) == 0)
        torn = np.logical_or.reduceat(torn, starts)  # through both strokes of a ring
        before = np.cumsum(areas)
        for at in np.flatnonzero((before > SMALLEST) & (before < before[-1] - SMALLEST)):
            length = areas[at] if torn[at] else lengths[at]
            share = length / min(lengths[:at].max(), lengths[at + 1 :].max())
            found.append((bool(torn[at] or share > NECK), share, turn, along.min() + places[at] + 0.5))
    found.sort()
    chosen = [one for one in found if not one[0]][:4] + [one for one in found if one[0]][:4]
    return [(not wide, X * np.cos(turn) + Y * np.sin(turn) < at) for wide, _, turn, at in chosen]
