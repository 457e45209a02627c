"""What a reward model owes to its backbone, its data and its labels: variants of one recipe, tested alike.

Reference: VisionPrefer (arXiv 2404.15100), its tables of backbones, of training-set sizes and of VP-Score+.
"""

import io
import statistics

from pydantic import BaseModel, ConfigDict

from visionprefer.schema import OVERALL
from visionprefer.statistics.tables import Table, share

JUDGE = "the judge itself"


class Trained(BaseModel):
    """One model of an ablation, and the share of pairs that it orders as is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str
    seed: int
    prompts: int  # trained on
    right: dict[str, float]  # by score


class AblationFigures(BaseModel):
    """What an ablation found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    against: str
    judge: dict[str, float]  # its agreement, by aspect
    models: list[Trained]

    def of(self, variant: str, score: str) -> list[float]:
        """What the models of a variant have, one value a seed; none where they lack the score."""
        return [model.right[score] for model in self.models if model.variant == variant and score in model.right]

    @property
    def variants(self) -> list[str]:
        """In the order of the recipe."""
        return list(dict.fromkeys(model.variant for model in self.models))


def table(figures: AblationFigures) -> Table:
    """Mean over the seeds and, of the overall score, their standard deviation."""
    names = list(dict.fromkeys(name for model in figures.models for name in model.right))
    rows = []
    for variant in figures.variants:
        prompts = {model.prompts for model in figures.models if model.variant == variant}
        cells = [_mean(figures.of(variant, name), spread=name == OVERALL) for name in names]
        rows.append([variant, f"{max(prompts):,}", *cells])
    rows.append([JUDGE, "", *(share(figures.judge[name]) if name in figures.judge else "" for name in names)])
    return Table(f"Agreement with {figures.against}", ["variant", "prompts", *names], rows)


def _mean(values: list[float], spread: bool) -> str:
    if not values:
        return ""
    told = share(statistics.fmean(values))
    return f"{told} ± {100 * statistics.stdev(values):.1f}" if spread and len(values) > 1 else told


def plot(figures: AblationFigures) -> bytes:
    """A PNG: a row for each variant, a point for each seed, a tick at their mean, and a line where the judge is."""
    from matplotlib.figure import Figure

    variants = figures.variants[::-1]
    figure = Figure(figsize=(7, 1.2 + 0.45 * len(variants)), layout="constrained")
    axes = figure.add_subplot()
    for place, variant in enumerate(variants):
        values = [100 * value for value in figures.of(variant, OVERALL)]
        if not values:  # trained without an overall score
            continue
        axes.plot(values, [place] * len(values), "o", color="#3366aa", alpha=0.6)
        axes.plot([statistics.fmean(values)], [place], "|", color="black", markersize=16)
    if OVERALL in figures.judge:
        axes.axvline(100 * figures.judge[OVERALL], color="#aa3333", linestyle="--", label=JUDGE)
        figure.legend(loc="outside upper right", frameon=False)
    axes.set_yticks(range(len(variants)), variants)
    axes.set_ylim(-0.5, len(variants) - 0.5)
    axes.set_xlabel(f"agreement with {figures.against}, overall, %")
    axes.grid(axis="x", alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
