"""What the judge learns from: spoilt pictures, some of them as the autoencoder makes them, and what is right to say."""

import random
from dataclasses import dataclass, replace

import numpy
import torch
from diffusers import AutoencoderKL
from PIL import Image
from rich.progress import track
from scipy import ndimage

from visionprefer.blocksworld import labels
from visionprefer.blocksworld.renderer import Scene
from visionprefer.blocksworld.scenes import (
    BACKGROUNDS,
    COLOURS,
    RELATIONS,
    SHAPES,
    Description,
    Group,
    sample,
    split_of,
)
from visionprefer.blocksworld.spoiler import Flaw, Spoilt, damage, spoil
from visionprefer.blocksworld.training import data
from visionprefer.judging.rubric import AspectVerdict

THROUGH_VAE = 0.6  # share of the pictures that are what the autoencoder makes of them
MOST_NOISE = 0.7  # added to the latents of half of these, in standard deviations


@dataclass(frozen=True)
class Example:
    """A picture's scene, what it was drawn for, and what is right to say of it whatever the prompt.

    Attributes:
        forms: how cleanly each thing of the scene is formed, in the scene's order.
    """

    description: Description
    scene: Scene
    aesthetic: AspectVerdict
    fidelity: AspectVerdict
    harmlessness: AspectVerdict
    forms: tuple[str, ...]


def examples(size: int, seed: int, vae: AutoencoderKL) -> tuple[list[Example], torch.Tensor]:
    """So many examples, and their pictures: uint8 [size, 3, 64, 64]."""
    chance = random.Random(seed)
    found, pictures = [], torch.empty((size, 3, 64, 64), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    for start in track(range(0, size, 100), "spoiling scenes"):
        descriptions = [sample("training", chance) for _ in range(min(100, size - start))]
        spoilt = [spoil(description, chance) for description in descriptions]
        spoilt = _through(vae, spoilt, chance, generator)
        for index, (description, case) in enumerate(zip(descriptions, spoilt, strict=True), start):
            pictures[index] = data.as_tensor(case.picture)
            found.append(
                Example(
                    description,
                    case.scene,
                    labels.aesthetic(case),
                    labels.fidelity(case),
                    labels.harmlessness(case),
                    tuple(map(labels.form, case.flaws)),
                )
            )
    return found, pictures


def other_wish(description: Description, chance: random.Random) -> Description:
    """A description of the training split that differs from this one in one or two things."""
    while True:
        other = description
        for _ in range(chance.choice((1, 1, 2))):
            other = _with_one_change(other, chance)
        kinds = {(group.colour, group.shape) for group in other.groups}
        if len(kinds) == len(other.groups) and other.objects <= 3 and split_of(other) == "training":
            return other


def _with_one_change(description: Description, chance: random.Random) -> Description:
    groups = list(description.groups)
    index = chance.randrange(len(groups))
    match chance.choice(("colour", "shape", "count", "relation", "background", "mark", "more", "fewer")):
        case "colour":
            groups[index] = replace(groups[index], colour=chance.choice(COLOURS))
        case "shape":
            groups[index] = replace(groups[index], shape=chance.choice(SHAPES))
        case "count":
            groups[index] = replace(groups[index], count=chance.choice((1, 2, 3)))
        case "relation" if len(groups) > 1:
            return replace(description, relation=chance.choice((*RELATIONS, None)))
        case "background":
            return replace(description, background=chance.choice((*BACKGROUNDS, None)))
        case "mark":
            return replace(description, mark=not description.mark)
        case "more":
            groups.append(Group(1, chance.choice(COLOURS), chance.choice(SHAPES)))
        case "fewer" if len(groups) > 1:
            del groups[index]
    return replace(description, groups=tuple(groups), relation=description.relation if len(groups) > 1 else None)


@torch.inference_mode()
def _through(
    vae: AutoencoderKL, cases: list[Spoilt], chance: random.Random, generator: torch.Generator
) -> list[Spoilt]:
    """The same cases, some of them as the autoencoder makes them, with and without noise in the latents."""
    rows = [row for row in range(len(cases)) if chance.random() < THROUGH_VAE]
    noise = torch.tensor([chance.choice((0, chance.uniform(0, MOST_NOISE))) for _ in rows])
    pictures = torch.stack([data.as_tensor(cases[row].picture) for row in rows])
    latents = vae.encode(data.scaled(pictures)).latent_dist.mean
    rough = torch.randn(latents.shape, generator=generator) * noise[:, None, None, None] / vae.config.scaling_factor
    decoded = vae.decode(latents + rough.to(data.DEVICE)).sample
    decoded = ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    changed = list(cases)
    for row, pixels in zip(rows, decoded, strict=True):
        changed[row] = _as_decoded(cases[row], pixels)
    return changed


def _as_decoded(case: Spoilt, pixels: numpy.ndarray) -> Spoilt:
    """The case with what is left of its objects in the decoded picture, and the damage that this adds."""
    ground = numpy.array(case.scene.ground, dtype=numpy.float32)
    before = numpy.asarray(case.picture, dtype=numpy.float32)
    flaws = []
    for thing, covered, flaw in zip(case.scene.things, case.coverages, case.flaws, strict=True):
        axis = numpy.array(thing.rgb, dtype=numpy.float32) - ground
        near = ndimage.binary_dilation(covered > 0.05, iterations=2)
        there = ((pixels - ground) @ axis / (axis @ axis)).clip(0, 1.3) * near
        wanted = ((before - ground) @ axis / (axis @ axis)).clip(0, 1.3) * near
        added = damage(there, wanted) if covered.sum() > 1 else 0.0
        if flaw is None or added > flaw.damage:
            flaw = Flaw("unclean", added + (flaw.damage if flaw else 0))
        else:
            flaw = replace(flaw, damage=flaw.damage + added)
        flaws.append(flaw)
    return replace(case, flaws=tuple(flaws), picture=Image.fromarray(pixels))
