"""Whether pixels are what is left of a ring: an arc of it, or several, around a hole.

A ring that is open on one side is no template moved and scaled, and comes closer to a triangle or a cross than to an
intact ring. The eye sees a ring as long as what there is runs around a common centre.

Shapes in names: N pixels.
"""

from typing import NamedTuple

import numpy as np

from visionprefer.blocksworld.fitting import Floats, Mask, X, Y

SECTORS = 24
AROUND = 0.65  # share of the sectors in which something of a ring has to lie
HOLES = (0.3, 0.8)  # inner over outer radius
RADII = (5.0, 20.0)  # outer, pixels
FILLED = 0.66  # of the annulus, in the sectors where something of it lies
EMPTY = 0.13  # the most of the hole's inner part that may be covered


class Arc(NamedTuple):
    """A ring of which a part may be missing.

    Attributes:
        x, y, radius: centre and outer radius, pixels.
        filled: share of the annulus that is covered, missing sectors left out, 0 to 1.
    """

    x: float
    y: float
    radius: float
    filled: float


def arc_of(mask: Mask) -> Arc | None:
    """The ring that a part is left of, or None if it is none."""
    x, y = _centre(X[mask], Y[mask])
    away = np.hypot(X - x, Y - y)
    inner, outer = np.quantile(away[mask], (0.08, 0.95))
    inner, outer = inner - 0.5, outer + 0.5
    if not (RADII[0] <= outer <= RADII[1] and HOLES[0] <= inner / outer <= HOLES[1]):
        return None
    sector = ((np.arctan2(Y - y, X - x) / (2 * np.pi) % 1) * SECTORS).astype(int)
    ring = (away >= inner) & (away <= outer)
    there = np.bincount(sector[ring & mask], minlength=SECTORS) > 0.3 * np.bincount(sector[ring], minlength=SECTORS)
    filled = float(mask[ring & there[sector]].mean()) if there.any() else 0.0
    hole = mask[away < 0.7 * inner]
    if there.mean() < AROUND or filled < FILLED or (hole.size and hole.mean() > EMPTY):
        return None
    return Arc(x, y, float(outer), filled)


def _centre(x_N: Floats, y_N: Floats) -> tuple[float, float]:
    """Of the circle that pixels lie on, by algebraic least squares (Kåsa 1976)."""
    system = np.column_stack([x_N, y_N, np.ones_like(x_N)])
    (twice_x, twice_y, _), *_ = np.linalg.lstsq(system, x_N**2 + y_N**2, rcond=None)
    return float(twice_x) / 2, float(twice_y) / 2
