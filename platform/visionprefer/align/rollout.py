"""Images drawn by a policy, with everything that scoring their making again needs.

Shapes: B samples, T steps of the denoising chain; C channels, H rows, W columns of latents.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import DDIMScheduler

from visionprefer.align.denoising import step
from visionprefer.align.encoding import Condition

Ask = Callable[[torch.Tensor, torch.Tensor, Condition], torch.Tensor]  # noisy latents, timesteps [B], condition


@dataclass(frozen=True)
class Guided:
    """What a policy is told of prompts, and what guidance leads away from.

    Attributes:
        condition: of B prompts.
        negative: of as many empty or negative prompts.
        guidance_scale: 1 or less: the negative prompts are not asked about.
    """

    condition: Condition
    negative: Condition
    guidance_scale: float

    def beside(self, other: "Guided") -> "Guided":
        """These prompts, then others of the same guidance."""
        condition, negative = self.condition.beside(other.condition), self.negative.beside(other.negative)
        return Guided(condition, negative, self.guidance_scale)

    def to(self, device: torch.device) -> "Guided":
        """The same on a device."""
        return Guided(self.condition.to(device), self.negative.to(device), self.guidance_scale)

    def part(self, rows: slice) -> "Guided":
        """Some of the prompts."""
        return Guided(self.condition.part(rows), self.negative.part(rows), self.guidance_scale)

    def answer(self, ask: Ask, latents_BCHW: torch.Tensor, timesteps_B: torch.Tensor) -> torch.Tensor:
        """The model's answer with classifier-free guidance, in one forward pass: [B, C, H, W]."""
        if self.guidance_scale <= 1:
            return ask(latents_BCHW, timesteps_B, self.condition)
        both = self.negative.beside(self.condition)
        negative, positive = ask(torch.cat([latents_BCHW] * 2), timesteps_B.repeat(2), both).chunk(2)
        return negative + self.guidance_scale * (positive - negative)


class Rollout(NamedTuple):
    """Denoising chains, from noise to images.

    Attributes:
        latents_BTCHW: before each step and after the last, [B, T + 1, C, H, W], float32.
        timesteps_T: int64, falling.
        log_prob_BT: of each step when it was drawn, the mean over latent dimensions.
        chosen_T: bool; False where a step adds no noise, and so was no choice.
    """

    latents_BTCHW: torch.Tensor
    timesteps_T: torch.Tensor
    log_prob_BT: torch.Tensor
    chosen_T: torch.Tensor

    def beside(self, other: "Rollout") -> "Rollout":
        """These chains, then others of the same steps."""
        return self._replace(
            latents_BTCHW=torch.cat([self.latents_BTCHW, other.latents_BTCHW]),
            log_prob_BT=torch.cat([self.log_prob_BT, other.log_prob_BT]),
        )

    def without_steps(self) -> "Rollout":
        """The images alone, for those who do not ask how they were drawn: a sixth of 5 steps, a 51st of 50."""
        return Rollout(self.latents_BTCHW[:, -1:], self.timesteps_T[:0], self.log_prob_BT[:, :0], self.chosen_T[:0])


def exact() -> None:
    """Let float32 be float32 on GPUs too: with TF32 rollout and learner differ by more than a clip range allows."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def sampler(pipeline: Any, num_inference_steps: int) -> Any:
    """The DDIMScheduler, with its timesteps set, by which a pipeline's model is rolled out and scored."""
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False, thresholding=False)
    scheduler.set_timesteps(num_inference_steps)
    return scheduler


@torch.no_grad()
def roll_out(
    ask: Ask,
    scheduler: Any,
    guided: Guided,
    shape: tuple[int, int, int],
    generators: Sequence[torch.Generator],
    eta: float = 1.0,
) -> Rollout:
    """Draw images' latents, and keep how.

    Args:
        ask: the policy.
        scheduler: see `sampler`; it has T timesteps.
        guided: B prompts.
        shape: of a sample's latents: C, H, W.
        generators: one for each sample, for its first noise and that of all its steps: then a sample does not depend on
            who shares the batch.
        eta: see `denoising.step`; 0 is DDIM without noise, as the pipeline itself draws.
    """
    device = guided.condition.hidden_BTD.device
    noise = [torch.randn(shape, generator=generator) for generator in generators]
    latents = torch.stack(noise).to(device) * scheduler.init_noise_sigma
    chain, log_probs, chosen = [latents], [], []
    for timestep in scheduler.timesteps:
        timesteps_B = timestep.to(device).repeat(len(latents))
        taken = step(
            scheduler, guided.answer(ask, latents, timesteps_B), timesteps_B, latents, None, list(generators), eta
        )
        latents = taken.sample_BCHW
        chain.append(latents)
        log_probs.append(taken.log_prob_B)
        chosen.append(bool((taken.sigma_B > 0).all()))
    return Rollout(
        torch.stack(chain, dim=1), scheduler.timesteps.clone(), torch.stack(log_probs, dim=1), torch.tensor(chosen)
    )


@torch.no_grad()
def decode(pipeline: Any, latents_BCHW: torch.Tensor) -> list[Any]:
    """Latents as images: a list of B PIL images, as the pipeline itself makes them."""
    vae = pipeline.vae
    pixels = vae.decode((latents_BCHW / vae.config.scaling_factor).to(vae.dtype), return_dict=False)[0]
    images: list[Any] = pipeline.image_processor.postprocess(pixels.float(), output_type="pil")
    return images


def shuffled(steps: int, samples: int, seed: Sequence[int]) -> torch.Tensor:
    """For each sample an order of its steps: int64 [samples, steps]. The same for the same seed."""
    chance = np.random.default_rng(list(seed))
    return torch.from_numpy(np.stack([chance.permutation(steps) for _ in range(samples)]))
