"""The loss of preferences.

Shapes: N images, S scores, P pairs of one score.
"""

import torch
from torch.nn.functional import logsigmoid

from visionprefer.reward.vpscore import Scores

Pairs = dict[int, torch.Tensor]  # by the place of the score: int64 [P, 2], rows of the chosen and the rejected image


def pairwise_loss(
    chosen_P: torch.Tensor, rejected_P: torch.Tensor, variance_P: torch.Tensor | None = None
) -> torch.Tensor:
    """−log σ((s_w − s_l) / √(1 + π/8 · (σ²_w + σ²_l))) of each pair: [P].

    Without variance it is ImageReward's loss (arXiv 2304.05977, equation 1), the cross-entropy of the two scores. With
    it, scores carry a Gaussian noise: the square root, which makes the logit smaller the more noise there is, is
    MacKay's approximation of the expected sigmoid (Neural Computation 4 (1992), 720-736).

    Args:
        chosen_P, rejected_P: raw scores.
        variance_P: π/8 · (σ²_w + σ²_l), which is what the model tells: see `Scores`.
    """
    difference_P = chosen_P - rejected_P
    return -logsigmoid(difference_P if variance_P is None else difference_P / (1 + variance_P).sqrt())


def summed_losses(scores: Scores, pairs: Pairs) -> dict[int, torch.Tensor]:
    """The loss of each score, summed over its pairs; the overall score's takes its variance into account.

    Each image of a batch is encoded once, however many pairs it is in.
    """
    losses = {}
    for place, pairs_P2 in pairs.items():
        chosen_P, rejected_P = scores.values_NS[:, place][pairs_P2].unbind(dim=1)
        variance_P = scores.variance_N[pairs_P2].sum(dim=1) if place == 0 else None
        losses[place] = pairwise_loss(chosen_P, rejected_P, variance_P).sum()
    return losses
