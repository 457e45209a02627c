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
from visionprefer.blocksworld.renderer import Mark, Thing
from visionprefer.blocksworld.spoiler import Flaw, Spoilt, is_clear, likest_colour, shows_training
from visionprefer.blocksworld.training import data, intact

NUM_INFERENCE_STEPS = 12  # from nothing but noise
GUIDANCE_SCALE = 4.0
SEEN = 60.0  # levels of 255 by which a pixel differs from the ground
PINKISH = 110.0  # levels of 255 by which a pixel of the mark may differ from its colour
LEAST_MARK = 0.2  # share of it that has to be left
LEAST_SEEN = 0.35  # share of an object that has to be seen
TRACE = 20.0  # the same, of a pixel in which something that is gone may still be made out
MOST_LEFT = 0.08  # share of an object, or of the mark, that may be seen where it is gone
MOST_STRAY = 40  # pixels that may lie about in a redrawn picture


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
    """The case redrawn: what is there now, with the damage that it has now; None if that is unclear or held out.

    An object may have gone, or have come out in another colour or shape, if it clearly did.
    """
    ground = numpy.array(case.scene.ground, dtype=numpy.float32)
    before, now = numpy.asarray(case.picture, dtype=numpy.float32), pixels.astype(numpy.float32)
    seen_before, stray = (numpy.linalg.norm(each - ground, axis=2) > SEEN for each in (before, now))
    things, coverages, flaws = [], [], []
    around = [ndimage.binary_dilation(covered > 0.05, iterations=3) for covered in case.coverages]
    for index, (thing, covered, flaw) in enumerate(zip(case.scene.things, case.coverages, case.flaws, strict=True)):
        core = covered > 0.7 * covered.max()
        if seen_before[core].mean() < LEAST_SEEN:
            return None
        left = stray[core].mean()
        if left < MOST_LEFT:
            stray |= around[index] & (numpy.linalg.norm(now - ground, axis=2) > TRACE)
            continue
        stray &= ~around[index]
        coloured = _coloured(thing, before, now, core, ground) if left > LEAST_SEEN else None
        if coloured is None:
            return None
        others = case.coverages[:index] + case.coverages[index + 1 :]
        crowd = ndimage.binary_dilation(sum(others, start=numpy.zeros_like(covered)) > 0.05)
        seen = intact.covered(now - ground, numpy.array(coloured.rgb, dtype=numpy.float32) - ground)
        found = intact.likeliest(coloured, seen, around[index] & ~crowd | core)
        if found is None:
            return None
        formed, damage = found
        kind = flaw.kind if flaw and formed == thing and damage < 2 * flaw.damage else "unclean"
        things.append(formed)
        coverages.append(covered)
        flaws.append(Flaw(kind, damage))
    scene = replace(case.scene, things=tuple(things))
    if scene.mark:
        place = renderer.coverage(renderer.outline_of_mark(scene.mark)) > 0.5
        share = _mark_left(scene.mark, before, now, place)
        if share < LEAST_MARK and (share > MOST_LEFT or scene.mark.opacity < 1):
            return None
        if share < LEAST_MARK:
            scene = replace(scene, mark=None)
        else:
            stray &= ~ndimage.binary_dilation(place, iterations=3)
            scene = replace(scene, mark=replace(scene.mark, opacity=scene.mark.opacity * share))
    if stray.sum() > MOST_STRAY or not shows_training(scene):
        return None
    return Spoilt(scene, tuple(coverages), tuple(flaws), Image.fromarray(pixels))


def _coloured(
    thing: Thing, before: numpy.ndarray, now: numpy.ndarray, core: numpy.ndarray, ground: numpy.ndarray
) -> Thing | None:
    """The object in the colour that it came out in; None if that is another one, and unclear."""
    was, came_out = (_seen(pixels[core], ground) for pixels in (before, now))
    name = likest_colour(_mean(came_out))
    if name == likest_colour(_mean(was)):
        return thing
    uneven = numpy.linalg.norm(came_out - came_out.mean(axis=0), axis=1).mean() > SEEN
    if uneven or not is_clear(name, _mean(came_out)):
        return None
    return replace(thing, colour=name, rgb=_mean(came_out))


def _seen(pixels: numpy.ndarray, ground: numpy.ndarray) -> numpy.ndarray:
    return pixels[numpy.linalg.norm(pixels - ground, axis=1) > SEEN]


def _mean(pixels: numpy.ndarray) -> tuple[int, int, int]:
    red, green, blue = pixels.mean(axis=0).round().astype(int).tolist()
    return red, green, blue


def _mark_left(mark: Mark, before: numpy.ndarray, now: numpy.ndarray, place: numpy.ndarray) -> float:
    """How much of the mark is still there, 0 to 1; of a faint one nothing if it changed, as it may have any way."""
    if mark.opacity < 1:
        return float(numpy.linalg.norm(now - before, axis=2)[place].mean() < SEEN / 2)
    pink = ndimage.binary_dilation(numpy.linalg.norm(now - renderer.PINK, axis=2) < PINKISH)
    return float(pink[place].mean())
