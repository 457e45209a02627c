"""What a diffusion model predicts: noisy latents, the right answer, and one step back that samples or scores.

One function does both, so that what a rollout drew and what a learner scores cannot drift apart.

Shapes: B samples, C channels, H rows, W columns of latents.
"""

from typing import Any, NamedTuple

import torch


class Step(NamedTuple):
    """A step of the denoising chain.

    Attributes:
        sample_BCHW: the latents of the timestep before.
        log_prob_B: how likely they were, the mean over their dimensions; 0 where sigma is.
        sigma_B: standard deviation of what was added. Where it is 0 the step is no choice: leave it out of a loss.
    """

    sample_BCHW: torch.Tensor
    log_prob_B: torch.Tensor
    sigma_B: torch.Tensor


def noised(
    scheduler: Any, latents_BCHW: torch.Tensor, noise_BCHW: torch.Tensor, timesteps_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents with noise, and what the model should answer to them: the noise, or the velocity of Salimans and Ho.

    Args:
        scheduler: the pipeline's, any of diffusers' that has `add_noise` and `get_velocity`.
        latents_BCHW: of images, scaled as the UNet wants them.
        noise_BCHW: standard normal.
        timesteps_B: int64, 0 to 999.

    Raises:
        ValueError: if the model predicts neither noise nor velocity.
    """
    noisy_BCHW = scheduler.add_noise(latents_BCHW, noise_BCHW, timesteps_B)
    match scheduler.config.prediction_type:
        case "epsilon":
            return noisy_BCHW, noise_BCHW
        case "v_prediction":
            return noisy_BCHW, scheduler.get_velocity(latents_BCHW, noise_BCHW, timesteps_B)
        case other:
            raise ValueError(f"prediction_type is {other!r}: give a model with 'epsilon' or 'v_prediction'")


def step(
    scheduler: Any,
    prediction_BCHW: torch.Tensor,
    timesteps_B: torch.Tensor,
    latents_BCHW: torch.Tensor,
    previous_BCHW: torch.Tensor | None = None,
    generator: torch.Generator | list[torch.Generator] | None = None,
    eta: float = 1.0,
) -> Step:
    """One step of DDIM with noise (arXiv 2010.02502, equations 12 and 16): drawn, or scored where it is known.

    σ_t = η √((1−ᾱ_p)/(1−ᾱ_t) · (1−ᾱ_t/ᾱ_p)), and μ = √ᾱ_p x̂₀ + √(1−ᾱ_p−σ²) ε̂, where p is the timestep before t. The
    log-probability is the mean over the latents' dimensions, as in DDPO (arXiv 2305.13301), whose clip range of 1e-4
    wants it so. In float32, whatever the prediction's dtype.

    Args:
        scheduler: a DDIMScheduler whose timesteps are set. It is not changed.
        prediction_BCHW: the model's answer at these timesteps, guidance applied.
        timesteps_B: int64; they may differ.
        latents_BCHW: at these timesteps.
        previous_BCHW: the latents that were drawn. None: they are drawn now.
        generator: of the noise; a list has one for each sample.
        eta: 1 is as much noise as DDPM's.

    Raises:
        ValueError: if the scheduler clips its samples, since then what is drawn is not normal about μ, or predicts
            neither noise nor velocity.
    """
    config = scheduler.config
    if config.clip_sample or config.thresholding:
        raise ValueError("clip_sample or thresholding is true: set both to false in scheduler_config.json")
    before_B = timesteps_B - config.num_train_timesteps // scheduler.num_inference_steps
    alphas = scheduler.alphas_cumprod.to(latents_BCHW.device)
    final = scheduler.final_alpha_cumprod.to(latents_BCHW.device)
    alpha = _as_latents(alphas[timesteps_B])
    alpha_before = _as_latents(torch.where(before_B >= 0, alphas[before_B.clamp(min=0)], final))
    latents, prediction = latents_BCHW.float(), prediction_BCHW.float()
    match config.prediction_type:
        case "epsilon":
            noise = prediction
        case "v_prediction":
            noise = alpha.sqrt() * prediction + (1 - alpha).sqrt() * latents
        case other:
            raise ValueError(f"prediction_type is {other!r}: give a model with 'epsilon' or 'v_prediction'")
    clean = (latents - (1 - alpha).sqrt() * noise) / alpha.sqrt()
    variance = ((1 - alpha_before) / (1 - alpha) * (1 - alpha / alpha_before)).clamp(min=0)
    sigma = eta * variance.sqrt()
    mean = alpha_before.sqrt() * clean + (1 - alpha_before - sigma**2).clamp(min=0).sqrt() * noise
    if previous_BCHW is None:
        previous_BCHW = mean + sigma * _drawn(mean, generator)
    drawn = previous_BCHW.float().detach()
    chosen = sigma > 0
    normal = torch.distributions.Normal(mean, torch.where(chosen, sigma, 1.0))
    log_prob_B = torch.where(chosen, normal.log_prob(drawn), 0.0).flatten(1).mean(dim=1)
    return Step(previous_BCHW.detach(), log_prob_B, sigma.flatten())


def _as_latents(values_B: torch.Tensor) -> torch.Tensor:
    return values_B.float().reshape(-1, 1, 1, 1)


def _drawn(like: torch.Tensor, generator: torch.Generator | list[torch.Generator] | None) -> torch.Tensor:
    """Standard normal noise, drawn where the generator is, so that it is the same on every device."""
    from diffusers.utils.torch_utils import randn_tensor

    return randn_tensor(like.shape, generator=generator, device=like.device, dtype=like.dtype)
