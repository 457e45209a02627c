"""What becomes of images by other scores while one is maximised: what is lost is seen, and can end the training.

A reward model is right only near what it learnt from; driven far, images win by its word and lose by every other
(VisionPrefer, arXiv 2404.15100, the figure of PPO's course).
"""

import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

ACROSS = 8  # images in a row of a grid
MOST_SHOWN = 32  # images of a grid


class Spread(NamedTuple):
    """The scores of the images of one look."""

    mean: float
    deviation: float


Looked = Mapping[str, Spread]  # by the score's name


def spreads(values: Mapping[str, Sequence[float | None]]) -> dict[str, Spread]:
    """Of each score; those that no image has are left out."""
    known = {name: [value for value in of_one if value is not None] for name, of_one in values.items()}
    return {name: Spread(statistics.fmean(of), statistics.pstdev(of)) for name, of in known.items() if of}


def fallen(first: Looked, now: Looked, by: float) -> list[str]:
    """Names of the scores whose mean has fallen by more than so many of the first look's standard deviations."""
    both = [(name, first[name], now[name]) for name in first if name in now]
    return [name for name, before, after in both if before.mean - after.mean > by * before.deviation]


def grid(images: Sequence[Image.Image]) -> bytes:
    """A PNG of the first images side by side."""
    shown = images[:MOST_SHOWN]
    width, height = shown[0].size
    sheet = Image.new("RGB", (ACROSS * width, -(-len(shown) // ACROSS) * height), "white")
    for place, image in enumerate(shown):
        sheet.paste(image, (place % ACROSS * width, place // ACROSS * height))
    buffer = io.BytesIO()
    sheet.save(buffer, "png")
    return buffer.getvalue()


def plot(history: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG: the mean reward of each rollout, and below it each watched score, in deviations from the first look.

    Args:
        history: of a training by PPO: rollout, reward, and watched where was looked.
    """
    from matplotlib.figure import Figure

    looks = [(row["rollout"] - 1, row["watched"]) for row in history if row.get("watched")]
    looks += [(row["rollout"], row["watched_after"]) for row in history if row.get("watched_after")]
    figure = Figure(figsize=(7, 5 if looks else 2.8), layout="constrained")
    axes = figure.subplots(2 if looks else 1, sharex=True, squeeze=False)[:, 0]
    known = [(row["rollout"] - 1, row["reward"]) for row in history if row["reward"] is not None]
    axes[0].plot(*zip(*known, strict=True), color="black", linewidth=1)
    axes[0].set_ylabel("reward")
    if looks:
        (_, first), *_ = looks
        for name, (mean, deviation) in first.items():
            there = [(at, (seen[name][0] - mean) / (deviation or 1.0)) for at, seen in looks if name in seen]
            axes[1].plot(*zip(*there, strict=True), marker="o", markersize=3, linewidth=1, label=name)
        axes[1].axhline(0, color="grey", linewidth=0.5)
        axes[1].set_ylabel("change of other scores,\nstandard deviations")
        axes[1].legend(fontsize="small")
    axes[-1].set_xlabel("rollouts learnt from")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
