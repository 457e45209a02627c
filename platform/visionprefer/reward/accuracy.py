"""How often scores order pairs as people or judges do: three published protocols, which are not to be mixed up."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

THRESHOLDS = tuple(step / 10 for step in range(11))  # that Pick-a-Pic's protocol chooses from


class Comparison(NamedTuple):
    """Two images of one prompt: what is known and what a model says."""

    label: float  # 1 where image 0 is better, 0 where image 1 is, 0.5 a tie
    score_0: float
    score_1: float


def imagereward_accuracy(comparisons: Sequence[Comparison]) -> float | None:
    """Share of all pairs that are not known as a tie, pooled, whose better image has the higher score; None: no pair.

    Equal scores are wrong.

    References: ImageReward (arXiv 2304.05977) section 4.1 and its released test.
    """
    right = [(one.score_0 - one.score_1) * (one.label - 0.5) > 0 for one in comparisons if one.label != 0.5]
    return _mean(right)


def hpd_accuracy(prompts: Iterable[Sequence[Comparison]]) -> float | None:
    """The mean over prompts of 1 − discordant pairs / all pairs; None: no prompt. A known tie is never discordant.

    References: HPS v2 (arXiv 2306.09341) and its released evaluation.
    """
    return _mean([float(np.mean([_is_not_discordant(one) for one in prompt])) for prompt in prompts])


def _is_not_discordant(one: Comparison) -> bool:
    return (one.score_0 - one.score_1) * (one.label - 0.5) > 0 or one.label == 0.5


def pickapic_accuracy(comparisons: Sequence[Comparison], threshold: float) -> float | None:
    """The mean over pairs of 1 where label and prediction agree, 0.5 where one alone is a tie, 0 else; None: no pair.

    The prediction is a tie where the probability of image 0, σ(score_0 − score_1), is so near to that of image 1.

    Args:
        comparisons: labelled, ties among them.
        threshold: most difference between the two probabilities of a tie; see `pickapic_threshold`.

    References: Pick-a-Pic (arXiv 2305.01569) section 5.
    """
    return _mean([_points(one, threshold) for one in comparisons])


def _points(one: Comparison, threshold: float) -> float:
    said = _prediction(one, threshold)
    return 1.0 if said == one.label else 0.5 if 0.5 in (said, one.label) else 0.0


def _prediction(one: Comparison, threshold: float) -> float:
    # The difference of the two probabilities of a softmax over two scores.
    difference = float(np.tanh((one.score_0 - one.score_1) / 2))
    return 0.5 if abs(difference) <= threshold else float(difference > 0)


def pickapic_threshold(validation: Sequence[Comparison]) -> float:
    """The threshold of THRESHOLDS that is best on other pairs, the smallest of equals."""

    def points(threshold: float) -> float:
        return sum(_points(one, threshold) for one in validation)

    return max(THRESHOLDS, key=lambda threshold: (points(threshold), -threshold))


def _mean(points: Sequence[float]) -> float | None:
    return float(np.mean(points)) if points else None
