"""Which shape a part of a picture is most like: templates moved, scaled, turned and softened by least squares.

Coordinates are those of the picture: pixels from its upper left corner, the centre of the first pixel at (0.5, 0.5).
Shapes in names: P poses, N pixels.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

SIZE = 64  # width and height of a picture, pixels


class Kind(NamedTuple):
    """A shape with one of its proportions: the hole's over the outer radius, the arm's width over its length."""

    shape: str
    proportion: float = 0.0


INTACT = {
    "circle": Kind("circle"),
    "square": Kind("square"),
    "triangle": Kind("triangle"),
    "cross": Kind("cross", 0.337),
    "ring": Kind("ring", 0.54),
}
# With other proportions a shape is damaged, but the eye still knows it.
KINDS = (
    *INTACT.values(),
    *(Kind("cross", width) for width in (0.22, 0.46)),
    *(Kind("ring", hole) for hole in (0.3, 0.42, 0.68)),
)
SALTIRE = Kind("saltire", 0.25)
_ANGLES = np.radians([-10.0, 0.0, 10.0])
_STEPS = np.diag([0.3, 0.3, 0.3, 0.05, 0.3])  # of x, y, radius, angle, softness, for numerical derivatives
_LEAST = np.array([-8.0, -8.0, 2.0, np.radians(-14), 1.0])
_MOST = np.array([SIZE + 8.0, SIZE + 8.0, 40.0, np.radians(14), 3.5])  # 3.5: blurred by a sigma of one pixel
Y, X = (axis + 0.5 for axis in np.mgrid[:SIZE, :SIZE])


@dataclass
class Part:
    """Pixels that may be an object, and the template that comes closest to them.

    Attributes:
        mask: the pixels, those at the edge by halves or more.
        rgb: its colour, levels of 255.
        mixed: whether it was joined from pieces that are not of one colour.
        own: how much of each pixel that colour covers.
        soft: how much of each pixel the part covers; what is fitted.
        kind, pose: the template.
        error: sum of squared differences from the template.
        fit: intersection over union with it.
    """

    mask: Mask
    rgb: Floats
    mixed: bool = False
    own: Floats = field(default_factory=lambda: np.zeros((SIZE, SIZE)))
    soft: Floats = field(default_factory=lambda: np.zeros((SIZE, SIZE)))
    kind: Kind = INTACT["circle"]
    pose: Floats = field(default_factory=lambda: np.zeros(5))
    error: float = np.inf
    fit: float = 0.0


def surroundings(mask: Mask, margin: int = 4) -> tuple[slice, slice]:
    """The rectangle around a part, and a margin in pixels."""
    spans = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    rows, columns = (slice(max(0, int(span[0]) - margin), int(span[-1]) + margin + 1) for span in spans)
    return rows, columns


def fitted(part: Part, kinds: tuple[Kind, ...], window: tuple[slice, slice], valid: Mask | None = None) -> Part:
    """The part with the template that fits it best: all kinds roughly, then the best few by least squares."""
    soft = part.soft[window].ravel()
    x, y = X[window].ravel(), Y[window].ravel()
    weight = np.ones_like(soft) if valid is None else valid[window].ravel().astype(float)
    mass = max(1.0, float(soft.sum()))
    centre = (soft @ x / mass, soft @ y / mass)
    rough = []
    few = slice(None, None, 2)  # every second pixel
    for kind in kinds:
        angles = [0.0] if kind.shape in ("circle", "ring") else _ANGLES
        poses = np.array([(*centre, np.sqrt(mass / _unit_area(kind)), angle, 1.5) for angle in angles])
        errors = ((template(kind, poses, x[few], y[few]) - soft[few]) ** 2) @ weight[few]
        rough.append((2 * float(errors.min()), kind, poses[errors.argmin()]))
    rough.sort(key=lambda one: one[0])
    close = [one for one in rough[:3] if one[0] < 2.5 * rough[0][0] + 2]
    tuned = [(*_tuned(kind, pose, x, y, soft, weight), kind) for _, kind, pose in close]
    error, pose, kind = min(tuned, key=lambda one: one[0])
    drawn = template(kind, pose[None], x, y)[0]
    fit = float((weight * np.minimum(drawn, soft)).sum() / max(1.0, (weight * np.maximum(drawn, soft)).sum()))
    return replace(part, kind=kind, pose=pose, error=error, fit=fit)


def _tuned(
    kind: Kind, pose: Floats, x: Floats, y: Floats, soft: Floats, weight: Floats, rounds: int = 5
) -> tuple[float, Floats]:
    """The squared error of a template and its pose, after rounds of damped Gauss-Newton."""
    best = (np.inf, pose)
    for _ in range(rounds):
        drawn_PN = template(kind, np.vstack([pose, pose + _STEPS]), x, y)
        left = (soft - drawn_PN[0]) * weight
        error = float(left @ left)
        improved = best[0] - error
        if error < best[0]:
            best = (error, pose)
        if improved < 0.01 * error + 0.01:
            break
        slope_PN = (drawn_PN[1:] - drawn_PN[0]) / np.diag(_STEPS)[:, None] * weight
        normal = slope_PN @ slope_PN.T
        normal[np.diag_indices(5)] = normal.diagonal() * 1.02 + 0.05
        pose = np.clip(pose + np.linalg.solve(normal, slope_PN @ left), _LEAST, _MOST)
    return best


def _unit_area(kind: Kind) -> float:
    part = kind.proportion
    if kind.shape in ("circle", "ring"):
        return np.pi * (1 - part**2)
    return {"square": 4.0, "triangle": 1.299}.get(kind.shape, 8 * part - 4 * part**2)


def template(kind: Kind, poses_P5: Floats, x: Floats, y: Floats) -> Floats:
    """How much of each pixel a template covers [P, N]: the distance to its edge, inside positive, made a ramp.

    A pose is x, y, radius (a square's half side, a triangle's to its corners), angle in radians, and the ramp's width.
    """
    left, top, radius, angle, softness = poses_P5.T[..., None]
    u, v = x - left, y - top
    if kind.shape in ("circle", "ring"):
        from_centre = np.hypot(u, v)
        inside = radius - from_centre
        if kind.shape == "ring":
            inside = np.minimum(inside, from_centre - kind.proportion * radius)
        return np.minimum(np.maximum(0.5 + inside / softness, 0), 1)
    if kind.shape == "saltire":
        angle = angle + np.pi / 4
    cos, sin = np.cos(angle), np.sin(angle)
    u, v = np.abs(u * cos + v * sin), v * cos - u * sin  # all are symmetric about their axis
    if kind.shape == "triangle":
        inside = radius / 2 - np.maximum(v, 0.866 * u - 0.5 * v)
    elif kind.shape == "square":
        inside = radius - np.maximum(u, np.abs(v))
    else:
        v = np.abs(v)
        inside = np.minimum(radius - np.maximum(u, v), kind.proportion * radius - np.minimum(u, v))
    return np.minimum(np.maximum(0.5 + inside / softness, 0), 1)
