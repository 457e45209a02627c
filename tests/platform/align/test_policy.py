"""The policy learns by Diffusion-DPO, the reference stays, and stock diffusers loads what was learnt: same pixels."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DiffusionPipeline

from visionprefer.align.dpo import diffusion_dpo_loss
from visionprefer.align.encoding import encode_prompts
from visionprefer.align.policy import Policy
from visionprefer.images import load_pipeline
from visionprefer.models import find_model

PROMPTS = ["a red circle", "two blue rings"]
LORA, FULL = 4, None


def normal(seed: int, number: int) -> torch.Tensor:
    return torch.randn(number, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def scheduler_of(pipeline: Any, prediction_type: str) -> DDPMScheduler:
    return DDPMScheduler.from_config(pipeline.scheduler.config, prediction_type=prediction_type)


def image_of(pipeline: Any) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    size = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "np"}
    return pipeline(PROMPTS, generator=torch.Generator().manual_seed(0), **size).images


@pytest.fixture(params=["tiny_sd", "tiny_sdxl"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("lora_rank", [LORA, FULL])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_it_learns_what_was_chosen_and_the_reference_stays(
    folder: Path, lora_rank: int | None, prediction_type: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    pipeline = DiffusionPipeline.from_pretrained(folder)
    before = image_of(pipeline)
    policy = Policy(pipeline, lora_rank)
    scheduler, condition = scheduler_of(pipeline, prediction_type), encode_prompts(pipeline, PROMPTS, 64, 64)
    latents, noise, timesteps = normal(0, 4), normal(1, 2), torch.tensor([100, 700])
    optimizer = torch.optim.AdamW(policy.learnt, lr=1e-3)
    losses, references = [], []
    for _ in range(6):
        errors, of_reference = policy.errors(scheduler, latents, condition, noise, timesteps)
        found = diffusion_dpo_loss(*errors.chunk(2), *of_reference.chunk(2), beta=100)
        losses.append(found.loss.item())
        references.append(of_reference)
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(math.log(2), rel=1e-6)
    assert losses[-1] < losses[0] - 0.01
    assert all(torch.equal(one, references[0]) for one in references)

    policy.save_pretrained(tmp_path)
    stock = DiffusionPipeline.from_pretrained(folder if lora_rank else tmp_path)
    if lora_rank:
        stock.load_lora_weights(tmp_path)
    learnt = image_of(pipeline)
    assert np.array_equal(image_of(stock), learnt)
    assert not np.array_equal(learnt, before)


def test_both_images_of_a_pair_have_the_same_noise_and_timestep(tiny_sd: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(tiny_sd)
    policy, scheduler = Policy(pipeline, LORA), scheduler_of(pipeline, "epsilon")
    same = normal(0, 2).repeat(2, 1, 1, 1)
    condition = encode_prompts(pipeline, PROMPTS, 64, 64)
    errors, of_reference = policy.errors(scheduler, same, condition, normal(1, 2), torch.tensor([100, 700]))
    assert torch.allclose(errors[:2], errors[2:], rtol=1e-5)
    assert torch.equal(errors, of_reference)


def test_lora_learns_few_weights_and_full_fine_tuning_all(tiny_sd: Path) -> None:
    few, every = (
        sum(weight.numel() for weight in Policy(DiffusionPipeline.from_pretrained(tiny_sd), rank).learnt)
        for rank in (LORA, FULL)
    )
    assert 0 < few < every / 10
    assert every == sum(weight.numel() for weight in DiffusionPipeline.from_pretrained(tiny_sd).unet.parameters())


def test_weights_in_half_precision_learn_in_float32(tiny_sd: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(tiny_sd, dtype=torch.bfloat16)
    assert {weight.dtype for weight in Policy(pipeline, LORA).learnt} == {torch.float32}


def test_a_folder_of_lora_weights_draws_as_stock_diffusers_does_with_them(folder: Path, tmp_path: Path) -> None:
    """Here they are added to the base's weights, there computed beside them: alike but for rounding."""
    torch.manual_seed(0)
    policy = Policy(DiffusionPipeline.from_pretrained(folder), LORA)
    for weight in policy.learnt:
        torch.nn.init.normal_(weight, std=0.1)
    policy.save_pretrained(tmp_path)
    about = {"model_digest": find_model(str(folder), "diffusers").digest, "model_revision": None}
    recipe = {"model": str(folder), "revision": None, "variant": None}
    (tmp_path / "training.json").write_text(json.dumps({"trained_on": about | {"recipe": recipe}}))
    stock = DiffusionPipeline.from_pretrained(folder)
    before = image_of(stock)
    stock.load_lora_weights(tmp_path)
    loaded = load_pipeline(find_model(str(tmp_path), "diffusers"), torch.device("cpu"), torch.float32)
    assert np.abs(image_of(loaded) - image_of(stock)).max() < 1e-3
    assert np.abs(image_of(stock) - before).max() > 1e-2
