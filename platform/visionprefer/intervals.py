"""Intervals of 95 % around shares."""

import math

import numpy as np

Z_95 = 1.959964  # the standard normal's 97.5 % quantile
RESAMPLES = 2000


def wilson_interval(wins: float, comparisons: int) -> tuple[float, float]:
    """The 95 % score interval of a share, (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n) with p = wins/n.

    With ties as half wins it is wider than need be. It takes comparisons for independent; those of one prompt share
    images, so that it is too narrow.

    Args:
        wins: 0 … comparisons.
        comparisons: n, at least 1.

    References: E. B. Wilson, Probable inference, the law of succession, and statistical inference, Journal of the
    American Statistical Association 22 (1927), 209-212.
    """
    p, z2_n = wins / comparisons, Z_95**2 / comparisons
    middle = p + z2_n / 2
    half = math.sqrt(z2_n * (p * (1 - p) + z2_n / 4))
    return max(0.0, (middle - half) / (1 + z2_n)), min(1.0, (middle + half) / (1 + z2_n))


def interval_over_prompts(wins_P: np.ndarray, comparisons_P: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of Σ wins / Σ comparisons where only prompts are independent: the percentile bootstrap.

    Whole prompts are drawn with replacement, the same ones in every call. If all prompts have one share, drawing says
    nothing, and the interval is Wilson's, each prompt taken for a single comparison.

    Args:
        wins_P: of each prompt, 0 … its comparisons; or any sums whose mean is asked for, if their means differ.
        comparisons_P: of each prompt, at least 1; at least one prompt.

    References: B. Efron, Bootstrap methods: another look at the jackknife, Annals of Statistics 7 (1979), 1-26.
    """
    prompts = len(wins_P)
    share_P = wins_P / comparisons_P
    if np.ptp(share_P) == 0:
        return wilson_interval(float(share_P[0]) * prompts, prompts)
    chance = np.random.default_rng(0)
    drawn = (chance.integers(prompts, size=prompts) for _ in range(RESAMPLES))
    shares = [wins_P[places].sum() / comparisons_P[places].sum() for places in drawn]
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


def interval_of_pairs(wins_P: np.ndarray, prompt_P: np.ndarray) -> tuple[float, float]:
    """`interval_over_prompts` of pairs that stand one by one.

    Shapes: P pairs, at least one.

    Args:
        wins_P: 1 for a pair that is won, 0.5 for a tie, 0 for one that is lost.
        prompt_P: number of its prompt; any.
    """
    place_P = np.unique(prompt_P, return_inverse=True)[1]
    return interval_over_prompts(np.bincount(place_P, wins_P), np.bincount(place_P))
