"""What a picture of the blocks world shows, found by classical image analysis: the background, the objects, the mark.

Three steps: what the background is (here), which pixels belong together (`parts`), and which shape they are most like
(`fitting`). No step learns anything; the numbers are the world's definition, or say what the eye overlooks.

Coordinates are those of the picture: pixels from its upper left corner, the centre of the first pixel at (0.5, 0.5).
Shapes in names: H rows, W columns, C channels.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.measure import label

from visionprefer.blocksworld.fitting import (
    INTACT,
    SALTIRE,
    SIZE,
    Floats,
    Mask,
    Part,
    X,
    Y,
    fitted,
    surroundings,
    template,
)
from visionprefer.blocksworld.parts import (
    CLEARLY,
    COLOURS,
    OPAQUE,
    PALETTE,
    View,
    colour_name,
    explained,
    inner_pixels,
    parts_of,
)

MarkSeen = Literal["none", "trace", "whole"]

GROUNDS = {"white": 244.0, "grey": 140.0, "black": 18.0}

NEUTRAL = 60.0  # channels that differ by less are those of a background, however stained, in levels of 255
NOISY = 4.0  # standard deviation in levels above which a picture is smoothed before it is analysed
UNNOTICED = 0.25  # of a pixel's coverage: softer outlines are no damage
SOFTEST = 1.75  # pixels within which an outline may pass from nothing to all without being damage
FAINT = 0.15  # opacity from which pink can be a trace of the mark
PALE = 40.0  # levels of 255 by which an object differs from the background at least
TRACE = 8.0  # pixels of pink, weighted by opacity, that are a trace of the mark
WHOLE = 28.0  # and that are the mark: half of a small one
BOLD = 0.55  # opacity of its strokes, above which the mark is more than a trace
LARGEST = 110.0  # pixels, so weighted, of a mark; more may be an object
FRINGED = 0.4  # share of its outline along which what is pink lies beside objects
SHAPED = 0.6  # intersection over union under which an object's centre is that of its pixels, not of its template
MARK_FITS = 0.45  # intersection over union with a ✕


@dataclass(frozen=True)
class Seen:
    """An object as it is seen.

    Attributes:
        colour, shape: which of the world's it is most like.
        x, y: centre of its shape, or of its mass where no shape fits, pixels.
        area: what is drawn, pixels.
        damage: area that is drawn but should not be, or should be drawn but is not, over the intact area; 0 and up.
        fit: intersection over union with the shape it is most like, 0 to 1.
        edge_gap: whole pixels between it and the nearest edge of the picture.
    """

    colour: str
    shape: str
    x: float
    y: float
    area: float
    damage: float
    fit: float
    edge_gap: int


@dataclass(frozen=True)
class Sight:
    """What a picture shows.

    Attributes:
        background: white, grey or black.
        objects: from left to right.
        mark: whether the forbidden mark is there, or a faint or partial one.
        middle: common centre of mass of what the objects' colours cover, x and y in pixels; the picture's without any.
        object_gap: smallest distance between two objects, pixels; infinite if there are fewer than two.
    """

    background: str
    objects: tuple[Seen, ...]
    mark: MarkSeen
    middle: tuple[float, float]
    object_gap: float


def look(image: Image.Image) -> Sight:
    """Say what a picture of 64 × 64 pixels shows; one of another size is scaled."""
    image = image.convert("RGB")
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    pixels_HWC, ground, background = _calmed(np.asarray(image, dtype=np.float32))
    kinds, opacity = explained(pixels_HWC - ground, (PALETTE - ground).astype(np.float32))
    mark, pink = _mark(kinds, opacity)
    kinds, opacity = np.where(pink, -1, kinds), np.where(pink, 0, opacity)
    opacity[np.linalg.norm(pixels_HWC - ground, axis=2) < PALE] = 0
    view = View(pixels_HWC, ground, ndimage.binary_dilation(pink))
    parts = parts_of(kinds, opacity, view)
    seen = sorted((_seen(part, view) for part in parts), key=lambda one: one.x)
    drawn = sum((part.own for part in parts), start=np.full((SIZE, SIZE), 1e-9))
    mass = float(drawn.sum())
    middle = float((drawn * X).sum()) / mass, float((drawn * Y).sum()) / mass
    return Sight(background, tuple(seen), mark, middle, _object_gap(parts))


def _calmed(pixels_HWC: Floats) -> tuple[Floats, Floats, str]:
    """The picture, smoothed if it is noisy, the colour of its background, and that colour's name."""
    red, green, blue = np.moveaxis(pixels_HWC, 2, 0)
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    neutral, grey = spread < NEUTRAL, (red + green + blue) / 3
    names = list(GROUNDS)
    nearest = np.abs(grey[..., None] - [*GROUNDS.values()]).argmin(axis=2)
    votes = [np.count_nonzero(neutral & (nearest == index)) for index in range(len(names))]
    chosen = int(np.argmax(votes))
    of_ground = neutral & (nearest == chosen)
    if not of_ground.any():
        of_ground = np.ones_like(of_ground)
    ground = np.median(pixels_HWC[of_ground], axis=0)
    # the noise: what sets background pixels apart from their neighbours to the right
    pairs = of_ground[:, 1:] & of_ground[:, :-1]
    steps = np.diff(pixels_HWC, axis=1)[pairs]
    noise = 1.05 * float(np.median(np.abs(steps))) if len(steps) else 0.0
    if noise > NOISY:
        sigma = 0.6 if noise < 8 else 0.8 if noise < 16 else 1.1
        pixels_HWC = ndimage.gaussian_filter(pixels_HWC, (sigma, sigma, 0), mode="nearest", truncate=3)
    return pixels_HWC, ground, names[chosen]


def _mark(kinds: NDArray[np.intp], opacity: Floats) -> tuple[MarkSeen, Mask]:
    """Whether the forbidden mark is there, and the pixels that belong to it."""
    strokes = label((kinds == len(COLOURS)) & (opacity > FAINT), connectivity=2)
    weights = np.bincount(strokes.ravel(), opacity.ravel())
    found: set[MarkSeen] = set()
    marked = np.zeros((SIZE, SIZE), dtype=bool)
    for index in np.flatnonzero(weights >= TRACE):
        mask = strokes == index
        seen = _strokes(mask, opacity) if index else "none"
        if seen != "none":
            found.add(seen)
            marked |= mask
    return "whole" if "whole" in found else "trace" if found else "none", marked


def _strokes(mask: Mask, opacity: Floats) -> MarkSeen:
    """What connected pixels of pink are of the mark."""
    if np.count_nonzero(inner_pixels(mask.astype(np.intp))) < 3:
        return "none"
    soft = np.where(mask, opacity, 0)
    weight = soft.sum()
    bold = float(np.quantile(opacity[mask], 0.7))
    faint = bold < BOLD
    part = Part(mask, PALETTE[-1], soft=np.minimum(soft / bold if faint else soft, 1))
    saltire = fitted(part, (SALTIRE,), surroundings(mask))
    other = fitted(part, tuple(INTACT.values()), surroundings(mask))
    share = 1.0 if weight > LARGEST else CLEARLY if faint else 0.0
    if other.error < share * saltire.error:
        return "none"  # an object in a colour that came out pinkish
    if saltire.fit < MARK_FITS:
        beside = ndimage.binary_dilation(mask) & ~mask
        fringe = np.count_nonzero(beside & (opacity > OPAQUE)) > FRINGED * np.count_nonzero(beside)
        return "none" if faint or fringe else "trace"  # a stain, or where red runs into purple
    return "trace" if faint or weight < WHOLE else "whole"


def _object_gap(parts: list[Part]) -> float:
    """Pixels between the two nearest parts."""
    masks = [part.mask for part in parts]
    gaps = (ndimage.distance_transform_edt(~a)[b].min() - 1 for a, b in itertools.combinations(masks, 2))
    return float(min(gaps, default=np.inf))


def _seen(part: Part, view: View) -> Seen:
    window = surroundings(part.mask)
    soft, own, x, y = part.soft[window], part.own[window], X[window], Y[window]
    intact = part if part.kind in INTACT.values() else fitted(part, (INTACT[part.kind.shape],), window)
    pose = np.minimum(intact.pose, [np.inf, np.inf, np.inf, np.inf, SOFTEST])
    ideal = template(intact.kind, pose[None], x.ravel(), y.ravel()).reshape(soft.shape)
    wrong = np.maximum(np.abs(own - ideal) - UNNOTICED, 0) / (1 - UNNOTICED) * ~view.hidden[window]
    rows, columns = np.nonzero(part.mask)
    edges = (rows.min(), columns.min(), SIZE - 1 - rows.max(), SIZE - 1 - columns.max())
    area = float(soft.sum())
    centre = part.pose[:2] if part.fit > SHAPED else (X[part.mask].mean(), Y[part.mask].mean())
    return Seen(
        colour=colour_name(part.rgb, view.ground),
        shape=part.kind.shape,
        x=float(centre[0]),
        y=float(centre[1]),
        area=area,
        damage=float(wrong.sum() / max(1.0, ideal.sum())),
        fit=part.fit,
        edge_gap=int(min(edges)),
    )
