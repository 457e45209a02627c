"""What a rollout draws is what the pipeline draws by DDIM with noise, and does not depend on who shares the batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline

from visionprefer.align.encoding import encode_empty, encode_prompts
from visionprefer.align.policy import Policy
from visionprefer.align.rollout import Guided, decode, roll_out, sampler, shuffled

PROMPTS = ["a red circle", "two blue rings", ""]
STEPS = 5


@pytest.fixture(params=["tiny_sd", "tiny_sdxl"])
def pipeline(request: pytest.FixtureRequest) -> Any:
    found = DiffusionPipeline.from_pretrained(request.getfixturevalue(request.param))
    config = found.scheduler.config
    found.scheduler = DDIMScheduler.from_config(config, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    found.set_progress_bar_config(disable=True)
    return found


def guided(pipeline: Any, prompts: list[str], guidance_scale: float = 3.0) -> Guided:
    condition, negative = encode_prompts(pipeline, prompts, 64, 64), encode_empty(pipeline, len(prompts), 64, 64)
    return Guided(condition, negative, guidance_scale)


def generators(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + number) for number in range(count)]


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_its_images_are_the_pipelines(pipeline: Any, guidance_scale: float) -> None:
    size = (pipeline.unet.config.in_channels, 64 // pipeline.vae_scale_factor, 64 // pipeline.vae_scale_factor)
    policy = Policy(pipeline, lora_rank=4)
    told = guided(pipeline, PROMPTS, guidance_scale)
    rollout = roll_out(policy.predict, sampler(pipeline, STEPS), told, size, generators(3))
    assert rollout.latents_BTCHW.shape == (3, STEPS + 1, *size)
    assert rollout.log_prob_BT.shape == (3, STEPS)
    assert rollout.chosen_T.tolist() == [True] * STEPS
    known = pipeline(
        PROMPTS,
        guidance_scale=guidance_scale,
        num_inference_steps=STEPS,
        height=64,
        width=64,
        eta=1.0,
        generator=generators(3),
    ).images
    drawn = decode(pipeline, rollout.latents_BTCHW[:, -1])
    assert all(np.abs(np.int16(one) - np.int16(other)).max() <= 1 for one, other in zip(drawn, known, strict=True))


def test_a_sample_does_not_depend_on_who_shares_its_batch(tiny_sd: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(tiny_sd)
    scheduler = sampler(pipeline, STEPS)
    policy = Policy(pipeline, lora_rank=4)
    together = roll_out(policy.predict, scheduler, guided(pipeline, PROMPTS), (4, 8, 8), generators(3))
    alone = roll_out(policy.predict, scheduler, guided(pipeline, PROMPTS[1:2]), (4, 8, 8), generators(1, 1))
    assert torch.allclose(together.latents_BTCHW[1], alone.latents_BTCHW[0], atol=1e-4)


def test_each_image_has_an_order_of_its_own() -> None:
    orders = shuffled(20, 3, (0, 1))
    assert orders.sort(dim=1).values.tolist() == [list(range(20))] * 3
    assert len({tuple(order) for order in orders.tolist()}) == 3
    assert torch.equal(orders, shuffled(20, 3, (0, 1)))
    assert not torch.equal(orders, shuffled(20, 3, (0, 2)))
