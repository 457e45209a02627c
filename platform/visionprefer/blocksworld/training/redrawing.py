"""Spoilt pictures redrawn by an image model: given a picture half in noise, it makes of it one with the faults of its
own pictures, which still shows the scene that was drawn.
"""

from pathlib import Path
from typing import Any

import numpy
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline

from visionprefer.blocksworld.spoiler import Spoilt
from visionprefer.blocksworld.training import data
from visionprefer.blocksworld.training.outcome import after

NUM_INFERENCE_STEPS = 12  # from nothing but noise
GUIDANCE_SCALE = 4.0
STEPS_OF_ITS_OWN = 20  # where there is no picture to begin with


def painter(folder: Path) -> Any:
    """The image-to-image pipeline of an image model's folder."""
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(folder, dtype=torch.float32).to(data.DEVICE)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def redraw(
    pipeline: Any, prompts: list[str], cases: list[Spoilt], strength: float, generator: torch.Generator
) -> list[Spoilt | None]:
    """The cases as an image model redraws them; None for those of which it is no longer clear what they show.

    Args:
        pipeline: the image model.
        prompts: one for each case.
        cases: pictures, and all that is known of them.
        strength: how far into noise, 0 to 1; at 0 pictures are what the autoencoder makes of them.
        generator: of the noise.
    """
    redrawn = _redrawn(pipeline, prompts, cases, strength, generator)
    return [after(case, pixels) for case, pixels in zip(cases, redrawn, strict=True)]


def draw(pipeline: Any, prompts: list[str], guidance_scale: float, generator: torch.Generator) -> numpy.ndarray:
    """What an image model makes of prompts alone: uint8 [prompts, 64, 64, 3].

    Args:
        pipeline: as `painter` gives it.
        prompts: what is asked for.
        guidance_scale: how strictly it follows them.
        generator: of the noise.
    """
    own = StableDiffusionPipeline(**pipeline.components, requires_safety_checker=False)
    own.set_progress_bar_config(disable=True)
    images = own(
        prompts,
        num_inference_steps=STEPS_OF_ITS_OWN,
        guidance_scale=guidance_scale,
        generator=generator,
        output_type="np",
    ).images
    return (images * 255).round().astype(numpy.uint8)


def measured(case: Spoilt) -> Spoilt:
    """The case with its damage measured as that of redrawn ones is: from the intact object that fits best."""
    return after(case, numpy.asarray(case.picture)) or case


def _redrawn(
    pipeline: Any, prompts: list[str], cases: list[Spoilt], strength: float, generator: torch.Generator
) -> numpy.ndarray:
    """What an image model makes of pictures that are so far in noise: uint8 [cases, 64, 64, 3]."""
    images = [case.picture for case in cases]
    if strength * NUM_INFERENCE_STEPS < 1:
        with torch.inference_mode():
            pixels = data.scaled(torch.stack([data.as_tensor(image) for image in images]))
            decoded = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mean).sample
        decoded = ((decoded + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    else:
        decoded = pipeline(
            prompts,
            images,
            strength=strength,
            num_inference_steps=NUM_INFERENCE_STEPS,
            guidance_scale=GUIDANCE_SCALE,
            generator=generator,
            output_type="np",
        ).images
    return (decoded * 255).round().astype(numpy.uint8)
