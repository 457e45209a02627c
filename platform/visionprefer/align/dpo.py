"""The loss of Diffusion-DPO.

Shapes: P pairs, B samples, C channels, H rows, W columns of latents.
"""

from typing import NamedTuple

import torch
from torch.nn.functional import logsigmoid


class PairLoss(NamedTuple):
    """What a batch of pairs gives.

    Attributes:
        loss: the mean over the pairs.
        margin_P: what is inside the sigmoid: how much more the policy prefers the chosen image than the reference does.
    """

    loss: torch.Tensor
    margin_P: torch.Tensor


def denoising_error(prediction_BCHW: torch.Tensor, target_BCHW: torch.Tensor) -> torch.Tensor:
    """Squared error, the mean over channels, rows and columns, in float32: [B]."""
    return (prediction_BCHW.float() - target_BCHW.float()).square().flatten(1).mean(dim=1)


def diffusion_dpo_loss(
    chosen_P: torch.Tensor,
    rejected_P: torch.Tensor,
    reference_chosen_P: torch.Tensor,
    reference_rejected_P: torch.Tensor,
    beta: float,
) -> PairLoss:
    """−log σ(−β/2 · [(e_w − e_l)_θ − (e_w − e_l)_ref]), the mean over pairs (arXiv 2311.12908, equation 14).

    T·ω(λ_t) of the paper is a constant in β, as in its released code, whose factor ½ is here too: β = 5000 for SD1.5
    and SDXL means 5000. Where a script writes it without the ½, its β is half as large.

    Args:
        chosen_P, rejected_P: denoising errors of the policy. Both images of a pair must have got the same timestep and
            the same noise.
        reference_chosen_P, reference_rejected_P: of the reference, at those too.
        beta: how closely the policy is held to the reference: the larger, the closer.
    """
    policy_P = chosen_P - rejected_P
    reference_P = (reference_chosen_P - reference_rejected_P).detach()
    margin_P = -0.5 * beta * (policy_P - reference_P)
    return PairLoss(-logsigmoid(margin_P).mean(), margin_P.detach())
