"""Spoilt pictures redrawn by an image model: given a picture half in noise, it makes of it one with the faults of its
own pictures, which still shows the scene that was drawn.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image
from scipy import ndimage

from visionprefer.blocksworld import renderer
from visionprefer.blocksworld.renderer import Mark
from visionprefer.blocksworld.spoiler import Flaw, Spoilt
from visionprefer.blocksworld.training import data, intact

NUM_INFERENCE_STEPS = 12  # from nothing but noise
GUIDANCE_SCALE = 4.0
SEEN = 60.0  # levels of 255 by which a pixel differs from the ground
PINKISH = 110.0  # levels of 255 by which a pixel of the mark may differ from its colour
LEAST_MARK = 0.2  # share of it that has to be left
LEAST_SEEN = 0.35  # share of an object of which something has to be left
MOST_STRAY = 40  # pixels that may lie about in a redrawn picture
MOST_DAMAGE = 0.7  # that an object may have


def painter(folder: Path) -> Any:
    """The image-to-image pipeline of an image model's folder."""
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(folder, dtype=torch.float32).to(data.DEVICE)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def redraw(
    pipeline: Any, prompts: list[str], cases: list[Spoilt], strength: float, generator: torch.Generator
) -> list[Spoilt]:
    """The cases as an image model redraws them; those of which it is no longer clear what they show, as they were.

    Args:
        pipeline: the image model.
        prompts: one for each case.
        cases: pictures, and all that is known of them.
        strength: how far into noise, 0 to 1; at 0 pictures are what the autoencoder makes of them.
        generator: of the noise.
    """
    redrawn = _redrawn(pipeline, prompts, cases, strength, generator)
    return [after(case, pixels) or measured(case) for case, pixels in zip(cases, redrawn, strict=True)]


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


def after(case: Spoilt, pixels: numpy.ndarray) -> Spoilt | None:
    """The case redrawn, with the damage that it has now; None if it may no longer show what it showed."""
    ground = numpy.array(case.scene.ground, dtype=numpy.float32)
    before, now = numpy.asarray(case.picture, dtype=numpy.float32), pixels.astype(numpy.float32)
    stray = numpy.linalg.norm(now - ground, axis=2) > SEEN
    scene, flaws = case.scene, []
    around = [ndimage.binary_dilation(covered > 0.05, iterations=3) for covered in case.coverages]
    for index, (thing, covered, flaw) in enumerate(zip(scene.things, case.coverages, case.flaws, strict=True)):
        stray &= ~around[index]
        core = covered > 0.7
        colour = _colour(now, core, ground)
        if colour is None or colour != _colour(before, core, ground):
            return None
        others = case.coverages[:index] + case.coverages[index + 1 :]
        crowd = ndimage.binary_dilation(sum(others, start=numpy.zeros_like(covered)) > 0.05)
        near = around[index] & ~crowd | core
        seen = intact.covered(now - ground, numpy.array(thing.rgb, dtype=numpy.float32) - ground)
        damage = intact.damage(thing, seen, near)
        if damage > MOST_DAMAGE or intact.seems_other(thing, seen, near, damage):
            return None
        kind = flaw.kind if flaw and damage < 2 * flaw.damage else "unclean"
        flaws.append(Flaw(kind, damage))
    if scene.mark:
        place = renderer.coverage(renderer.outline_of_mark(scene.mark)) > 0.5
        stray &= ~ndimage.binary_dilation(place, iterations=3)
        left = _mark_left(scene.mark, before, now, place)
        if left < LEAST_MARK:
            return None
        scene = replace(scene, mark=replace(scene.mark, opacity=scene.mark.opacity * left))
    if stray.sum() > MOST_STRAY:
        return None
    return replace(case, scene=scene, flaws=tuple(flaws), picture=Image.fromarray(pixels))


def _mark_left(mark: Mark, before: numpy.ndarray, now: numpy.ndarray, place: numpy.ndarray) -> float:
    """How much of the mark is still there, 0 to 1; of a faint one nothing if it changed, as it may have any way."""
    if mark.opacity < 1:
        return float(numpy.linalg.norm(now - before, axis=2)[place].mean() < SEEN / 2)
    pink = ndimage.binary_dilation(numpy.linalg.norm(now - renderer.PINK, axis=2) < PINKISH)
    return float(pink[place].mean())


def _colour(pixels: numpy.ndarray, core: numpy.ndarray, ground: numpy.ndarray) -> int | None:
    """Which colour of the world is nearest to what is still seen of an object; None if that is too little."""
    found = pixels[core]
    seen = found[numpy.linalg.norm(found - ground, axis=1) > SEEN]
    if len(seen) <= LEAST_SEEN * len(found):
        return None
    palette = numpy.array([*renderer.RGB.values()], dtype=numpy.float32)
    return int(numpy.linalg.norm(palette - seen.mean(axis=0), axis=1).argmin())
