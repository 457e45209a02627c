"""The likelihoods of PPO are those of their papers, by numbers worked out apart."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, DiffusionPipeline

from visionprefer.align.encoding import encode_empty, encode_prompts
from visionprefer.align.likelihood import OfImages, OfSteps, noise_levels
from visionprefer.align.policy import Policy
from visionprefer.align.rollout import Guided, roll_out, sampler

PROMPTS = ["a red circle", "two blue rings"]
CPU = torch.device("cpu")


def drawn(folder: Path, eta: float) -> tuple[Policy, Any, Any, Guided]:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    policy, scheduler = Policy(pipeline, lora_rank=4), sampler(pipeline, 4)
    guided = Guided(encode_prompts(pipeline, PROMPTS, 64, 64), encode_empty(pipeline, 2, 64, 64), 2.0)
    seeds = [torch.Generator().manual_seed(number) for number in range(2)]
    return policy, scheduler, roll_out(policy.predict, scheduler, guided, (4, 8, 8), seeds, eta), guided


def test_steps_are_as_likely_as_when_they_were_drawn(tiny_sd: Path) -> None:
    policy, scheduler, rollout, guided = drawn(tiny_sd, eta=1.0)
    likelihood = OfSteps(scheduler, rollout, guided, range(1, 3))
    assert likelihood.places.tolist() == [1, 2]
    with torch.no_grad():
        scored = likelihood.score(slice(0, 2), torch.tensor([2, 1]), policy.predict, CPU)
    assert torch.allclose(scored.log_prob_B, rollout.log_prob_BT[[0, 1], [2, 1]], atol=1e-5)


def test_an_image_is_the_likelier_the_smaller_its_denoising_error(tiny_sd: Path) -> None:
    """By the forward process in its own words: √ᾱ x₀ + √(1−ᾱ) ε goes in, and the mean of (ε_θ − ε)² comes out."""
    policy, _, rollout, guided = drawn(tiny_sd, eta=0.0)
    scheduler = DDPMScheduler.from_config(policy.pipeline.scheduler.config)
    images = rollout.without_steps().latents_BTCHW[:, -1]
    assert torch.equal(images, rollout.latents_BTCHW[:, -1])
    timesteps, noise = (
        torch.tensor([[100, 600], [200, 900]]),
        torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
    )
    likelihood = OfImages(scheduler, images, guided.condition, timesteps, noise)
    with torch.no_grad():
        scored = likelihood.score(slice(0, 2), torch.tensor([1, 0]), policy.predict, CPU)
        for row, place in enumerate([1, 0]):
            kept = float(scheduler.alphas_cumprod[timesteps[row, place]])
            noisy = math.sqrt(kept) * images[row] + math.sqrt(1 - kept) * noise[row, place]
            told = guided.condition.part(slice(row, row + 1))
            answer = policy.predict(noisy[None], timesteps[row, place][None], told)[0]
            by_hand = -float((answer - noise[row, place]).square().mean())
            assert scored.log_prob_B[row].item() == pytest.approx(by_hand, rel=1e-4)
            assert torch.allclose(scored.answer_BCHW[row], answer, atol=1e-5)


def test_noise_levels_are_spread_over_their_range() -> None:
    timesteps = noise_levels(500, 4, (0.0, 0.6), 1000, torch.Generator().manual_seed(0))
    assert timesteps.shape == (500, 4)
    for place, (low, high) in enumerate([(400, 550), (550, 700), (700, 850), (850, 1000)]):
        assert timesteps[:, place].min() >= low
        assert timesteps[:, place].max() < high
        assert timesteps[:, place].float().mean() == pytest.approx((low + high) / 2, abs=10)
