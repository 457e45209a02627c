"""The losses of PPO: the clipped policy loss, and the distance of the model's answers from another's.

Shapes: B samples, C channels, H rows, W columns of latents.
"""

from typing import NamedTuple

import torch


class PolicyLoss(NamedTuple):
    """What a batch of steps gives.

    Attributes:
        loss: the mean over the samples that count; 0, with a gradient of 0, if none does.
        ratio_B: ρ, how much likelier each step is now than when it was drawn.
        clipped: share of the samples that count whose ratio lies outside the clip range.
    """

    loss: torch.Tensor
    ratio_B: torch.Tensor
    clipped: torch.Tensor


def policy_loss(
    log_prob_B: torch.Tensor,
    old_log_prob_B: torch.Tensor,
    advantage_B: torch.Tensor,
    counts_B: torch.Tensor,
    clip_range: float = 1e-4,
    most_advantage: float = 5.0,
) -> PolicyLoss:
    """max(−A ρ, −A clip(ρ, 1 ± clip_range)), the mean over the samples that count (DDPO, arXiv 2305.13301).

    Args:
        log_prob_B: of the steps under the policy as it is, the mean over latent dimensions.
        old_log_prob_B: of the same steps when they were drawn.
        advantage_B: of the images that they led to; cut to ± most_advantage. Where nothing counts it may be NaN.
        counts_B: bool; False where the reward is missing, or the step was no choice.
        clip_range: 1e-4 goes with log-probabilities that are means over 4 × 64 × 64 latents; in their sum it is 1.64.
        most_advantage: see advantage_B.

    Raises:
        FloatingPointError: if a ratio or an advantage that counts is not a number; it names which.
    """
    zero_B = torch.zeros_like(log_prob_B)
    ratio_B = torch.where(counts_B, log_prob_B - old_log_prob_B.detach(), zero_B).exp()
    advantage_B = torch.where(counts_B, advantage_B, zero_B).clamp(-most_advantage, most_advantage)
    for name, values_B in (("the ratio of probabilities", ratio_B), ("the advantage", advantage_B)):
        if not values_B.isfinite().all():
            rows = (~values_B.isfinite()).nonzero().flatten().tolist()
            raise FloatingPointError(f"{name} of samples {rows} is not finite: {values_B[rows].tolist()}")
    near_B = ratio_B.clamp(1 - clip_range, 1 + clip_range)
    losses_B = torch.maximum(-advantage_B * ratio_B, -advantage_B * near_B)
    number = counts_B.sum().clamp(min=1)
    outside = ((ratio_B.detach() - 1).abs() > clip_range) & counts_B
    return PolicyLoss((losses_B * counts_B).sum() / number, ratio_B.detach(), outside.sum() / number)


def mean_distance(answer_BCHW: torch.Tensor, other_BCHW: torch.Tensor, counts_B: torch.Tensor) -> torch.Tensor:
    """(ε_θ − ε_ref)², the mean over latents and over the samples that count (DPOK, arXiv 2305.16381).

    Up to a factor of the timestep it is the KL divergence of a step. The reference is the model that training began
    with, and the weight about 1e-3 of the reward's; or it is the policy that drew the images, as in PPO with a penalty
    (arXiv 1707.06347, section 4).
    """
    squared_B = (answer_BCHW.float() - other_BCHW.detach().float()).square().flatten(1).mean(dim=1)
    return (squared_B * counts_B).sum() / counts_B.sum().clamp(min=1)
