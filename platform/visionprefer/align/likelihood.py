"""How likely a policy makes images: by the steps that drew them, as in DDPO, or by their denoising error, as in AWM.

Shapes: B images, T places where an image can be asked about: steps of its chain, or noise levels; C channels, H rows, W
columns of latents.
"""

from typing import Any, NamedTuple

import torch

from visionprefer.align.denoising import noised, step
from visionprefer.align.dpo import denoising_error
from visionprefer.align.encoding import Condition
from visionprefer.align.rollout import Ask, Guided, Rollout


class Scored(NamedTuple):
    """Some images, each at one of its places.

    Attributes:
        answer_BCHW: the model's.
        log_prob_B: the mean over latent dimensions.
    """

    answer_BCHW: torch.Tensor
    log_prob_B: torch.Tensor


class OfSteps:
    """How likely the steps were that drew the images, noise and guidance and all (DDPO, arXiv 2305.13301).

    Attributes:
        places: steps that are learnt from: those in a range in which noise was added.
        old_BT: the log-probabilities of all steps when they were drawn.

    Args:
        scheduler: the rollout's own.
        rollout: how they were drawn.
        guided: their prompts.
        allowed: steps that may be learnt from.
    """

    def __init__(self, scheduler: Any, rollout: Rollout, guided: Guided, allowed: range) -> None:
        self.scheduler, self.rollout, self.guided = scheduler, rollout, guided
        chosen = rollout.chosen_T.nonzero().flatten()
        self.places = chosen[(chosen >= allowed.start) & (chosen < allowed.stop)]
        self.old_BT: torch.Tensor | None = rollout.log_prob_BT

    def score(self, rows: slice, place_B: torch.Tensor, ask: Ask, device: torch.device) -> Scored:
        """The steps at these places, of these images, by a model."""
        row_B = torch.arange(rows.start, rows.stop)
        latents, drawn = (self.rollout.latents_BTCHW[row_B, place].to(device) for place in (place_B, place_B + 1))
        timesteps_B = self.rollout.timesteps_T[place_B].to(device)
        answer = self.guided.part(rows).to(device).answer(ask, latents, timesteps_B)
        return Scored(answer, step(self.scheduler, answer, timesteps_B, latents, drawn).log_prob_B)


class OfImages:
    """How likely the images are, however they were drawn: minus their denoising error (AWM, arXiv 2509.25050).

    Up to weights of the timesteps that is the bound of the log-likelihood by which the model was pretrained. DDPO asks
    for the same, with what a step happened to draw in place of the image, and so with more variance.

    Attributes:
        places: noise levels, all of them.
        old_BT: None: what the policy made of the images before it learnt from them has to be asked.

    Args:
        scheduler: see `noised`.
        latents_BCHW: of the images.
        condition: their prompts. Guidance is not applied: it makes no likelihood, and the model learns what it does.
        timesteps_BT: int64: of each noise level.
        noise_BTCHW: standard normal.
    """

    def __init__(
        self,
        scheduler: Any,
        latents_BCHW: torch.Tensor,
        condition: Condition,
        timesteps_BT: torch.Tensor,
        noise_BTCHW: torch.Tensor,
    ) -> None:
        self.scheduler, self.latents_BCHW, self.condition = scheduler, latents_BCHW, condition
        self.timesteps_BT, self.noise_BTCHW = timesteps_BT, noise_BTCHW
        self.places = torch.arange(timesteps_BT.shape[1])
        self.old_BT: torch.Tensor | None = None

    def score(self, rows: slice, place_B: torch.Tensor, ask: Ask, device: torch.device) -> Scored:
        """These images at these noise levels, by a model."""
        row_B = torch.arange(rows.start, rows.stop)
        timesteps_B = self.timesteps_BT[row_B, place_B].to(device)
        noise = self.noise_BTCHW[row_B, place_B].to(device)
        noisy, target = noised(self.scheduler, self.latents_BCHW[rows].to(device), noise, timesteps_B)
        answer = ask(noisy, timesteps_B, self.condition.part(rows).to(device))
        return Scored(answer, -denoising_error(answer, target))


def noise_levels(
    images: int, levels: int, between: tuple[float, float], train_timesteps: int, generator: torch.Generator
) -> torch.Tensor:
    """Timesteps for each image, one by lot from each of so many equal parts of a range: int64 [images, levels].

    Args:
        between: shares of the way from noise, 0, to image, 1.
        train_timesteps: the scheduler's.
    """
    low, high = (train_timesteps * (1 - share) for share in reversed(between))
    parts = (torch.arange(levels) + torch.rand(images, levels, generator=generator)) / levels
    return (low + parts * (high - low)).long().clamp(max=train_timesteps - 1)
