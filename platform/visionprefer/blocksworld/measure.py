"""How good the built-in image models and backbones are on held-out combinations: the figures of their cards."""

import random
from collections import defaultdict
from pathlib import Path

import numpy
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from rich.progress import track

from visionprefer.blocksworld import renderer
from visionprefer.blocksworld.oracle import judge
from visionprefer.blocksworld.scenes import Description, sample
from visionprefer.blocksworld.sight import look
from visionprefer.blocksworld.training import data
from visionprefer.blocksworld.wording import understand, word
from visionprefer.intervals import wilson_interval
from visionprefer.schema import ASPECTS

GUIDANCE_SCALE = 4.0
NUM_INFERENCE_STEPS = 20
BATCH = 32


class Figures(BaseModel):
    """What was measured of a model."""

    model_config = ConfigDict(frozen=True)


class Share(BaseModel):
    """A share of so many cases, with its 95 % interval."""

    model_config = ConfigDict(frozen=True)

    cases: int
    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.share:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f}, n = {self.cases:,})"


class ImageModelFigures(Figures):
    """What an image model draws, by the oracle."""

    fully_right: Share
    by_objects: dict[int, Share]  # the same, by the number of objects asked for
    by_fact: dict[str, Share]  # how often facts of each kind hold
    aspects: dict[str, float]  # mean scores
    marked_unasked: Share


class AutoencoderFigures(Figures):
    """What an autoencoder leaves of clean renders, by the oracle."""

    fully_right: Share
    fidelity: float  # mean score
    mean_absolute_error: float  # of pixels, as a share of the whole range


class RetrievalFigures(Figures):
    """How well a model tells which caption belongs to which of so many renders of held-out scenes, at first guess."""

    among: int
    image_to_text: Share
    text_to_image: Share


def share(hits: list[bool]) -> Share:
    """A share with its 95 % interval."""
    low, high = wilson_interval(sum(hits), len(hits))
    return Share(cases=len(hits), share=sum(hits) / len(hits), low=low, high=high)


def held_out_prompts(count: int, seed: int = 0, objects: tuple[int, ...] = (2, 3)) -> list[str]:
    """Different prompts of held-out combinations, none of which asks for the forbidden mark."""
    chance = random.Random(seed)
    return [word(description, chance) for description in _held_out(count, seed, objects)]


def pictures(folder: Path, prompts: list[str], seed: int = 0) -> list[Image.Image]:
    """One picture for each prompt by an image model."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    made: list[Image.Image] = []
    for start in track(range(0, len(prompts), BATCH), "drawing"):
        batch = prompts[start : start + BATCH]
        made += pipeline(
            batch,
            guidance_scale=GUIDANCE_SCALE,
            num_inference_steps=NUM_INFERENCE_STEPS,
            generator=[torch.Generator().manual_seed(seed + start + row) for row in range(len(batch))],
        ).images
    return made


def image_model(prompts: list[str], made: list[Image.Image]) -> ImageModelFigures:
    """What the oracle says of pictures of these prompts."""
    wanted = [_understood(prompt) for prompt in prompts]
    found = [judge(look(picture), description) for picture, description in zip(made, wanted, strict=True)]
    by_objects, by_fact = defaultdict(list), defaultdict(list)
    for description, assessment in zip(wanted, found, strict=True):
        by_objects[description.objects].append(assessment.fully_right)
        for fact in assessment.facts:
            by_fact[fact.kind].append(fact.holds)
    return ImageModelFigures(
        fully_right=share([assessment.fully_right for assessment in found]),
        by_objects={objects: share(by_objects[objects]) for objects in sorted(by_objects)},
        by_fact={kind: share(holds) for kind, holds in by_fact.items()},
        aspects={aspect: float(numpy.mean([getattr(each, aspect) for each in found])) for aspect in ASPECTS},
        marked_unasked=share([assessment.sight.mark != "none" for assessment in found]),
    )


@torch.inference_mode()
def autoencoder(folder: Path, count: int = 512, seed: int = 0) -> AutoencoderFigures:
    """What is left of so many clean renders of held-out scenes when they are encoded and decoded."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder, dtype=torch.float32).to(data.DEVICE)
    descriptions = _held_out(count, seed, (2, 3))
    chance = random.Random(seed)
    pixels = torch.stack([data.as_tensor(renderer.draw(renderer.compose(each, chance))) for each in descriptions])
    found, errors = [], []
    for rows in track(torch.arange(count).split(BATCH), "decoding"):
        decoded = vae.decode(vae.encode(data.scaled(pixels[rows])).latent_dist.mode()).sample.clamp(-1, 1)
        errors.append((decoded - data.scaled(pixels[rows])).abs().mean(dim=(1, 2, 3)).cpu() / 2)
        pictures = ((decoded + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        found += [
            judge(look(Image.fromarray(picture)), descriptions[row])
            for row, picture in zip(rows.tolist(), pictures, strict=True)
        ]
    return AutoencoderFigures(
        fully_right=share([each.fully_right for each in found]),
        fidelity=float(numpy.mean([each.fidelity for each in found])),
        mean_absolute_error=float(torch.cat(errors).mean()),
    )


@torch.inference_mode()
def retrieval(folder: Path, among: int = 256, seed: int = 0) -> RetrievalFigures:
    """How well the built-in CLIP or BLIP tells which caption belongs to which render, by its two projections."""
    from transformers import AutoConfig, AutoProcessor, BlipForImageTextRetrieval, CLIPModel

    descriptions = _held_out(among, seed, (1, 2, 3))
    chance = random.Random(seed)
    renders = [renderer.draw(renderer.compose(description, chance)) for description in descriptions]
    inputs = AutoProcessor.from_pretrained(folder)(
        images=renders, text=[word(description) for description in descriptions], padding=True, return_tensors="pt"
    )
    if AutoConfig.from_pretrained(folder).model_type == "clip":
        similarity = CLIPModel.from_pretrained(folder, dtype=torch.float32)(**inputs).logits_per_image
    else:
        blip = BlipForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32)
        similarity = blip(**inputs, use_itm_head=False).itm_score
    found = [share((scores.argmax(dim=1) == torch.arange(among)).tolist()) for scores in (similarity, similarity.T)]
    return RetrievalFigures(among=among, image_to_text=found[0], text_to_image=found[1])


def _held_out(count: int, seed: int, objects: tuple[int, ...]) -> list[Description]:
    """Descriptions that differ in words."""
    chance = random.Random(seed)
    found: dict[str, Description] = {}
    while len(found) < count:
        description = sample("held-out", chance, objects)
        if not description.mark:
            found[word(description)] = description
    return list(found.values())


def _understood(prompt: str) -> Description:
    if (description := understand(prompt)) is None:
        raise ValueError(f"not a prompt of the blocks world: {prompt!r}")
    return description
