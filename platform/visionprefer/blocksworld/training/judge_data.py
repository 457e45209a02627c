"""What the judge learns from: spoilt pictures, many of them redrawn by an image model, and what is right to say."""

import random
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.progress import track

from visionprefer.blocksworld import labels
from visionprefer.blocksworld.renderer import Scene
from visionprefer.blocksworld.scenes import (
    BACKGROUNDS,
    COLOURS,
    MOST_OBJECTS,
    RELATIONS,
    SHAPES,
    Description,
    Group,
    sample,
    split_of,
)
from visionprefer.blocksworld.spoiler import Spoilt, groups_in, spoil
from visionprefer.blocksworld.training import data
from visionprefer.blocksworld.training.redrawing import measured, redraw
from visionprefer.blocksworld.wording import word
from visionprefer.judging.rubric import AspectVerdict

AT_ONCE = 100
QUESTIONS = 8  # wishes whose facts make up a quiz
REDRAWN = 0.85  # share of the pictures, some of which turn out too unclear to be used
STRENGTHS = (0.0, 0.8)  # how far into noise, 1 being nothing else; at 0 it is what the autoencoder makes of a picture


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


def examples(size: int, seed: int, painters: list[Any]) -> tuple[list[Example], torch.Tensor]:
    """So many examples, and their pictures: uint8 [size, 3, 64, 64].

    Args:
        size: how many.
        seed: of all randomness.
        painters: image models, as image-to-image pipelines.
    """
    found, pictures = [], []
    for start in track(range(0, size, AT_ONCE), "spoiling scenes"):
        for wish, case in _some(min(AT_ONCE, size - start), f"{seed} {start}", painters):
            found.append(example(wish, case))
            pictures.append(data.as_tensor(case.picture))
    return found, torch.stack(pictures)


def _some(count: int, seed: str, painters: list[Any]) -> list[tuple[Description, Spoilt]]:
    """So many descriptions, each with a spoilt picture, all redrawn by one image model or none."""
    chance = random.Random(seed)
    generator = torch.Generator().manual_seed(chance.randrange(2**32))
    descriptions = [sample("training", chance) for _ in range(count)]
    spoilt = [spoil(description, chance) for description in descriptions]
    if chance.random() < REDRAWN:
        marked = [case.scene.mark is not None for case in spoilt]
        wishes = [replace(wish, mark=mark) for wish, mark in zip(descriptions, marked, strict=True)]
        asked = [word(wish, chance) for wish in wishes]
        strength = chance.uniform(*STRENGTHS)
        spoilt = redraw(chance.choice(painters), asked, spoilt, strength, generator)
    else:
        spoilt = list(map(measured, spoilt))
    return list(zip(descriptions, spoilt, strict=True))


def example(description: Description, case: Spoilt) -> Example:
    """What is right to say of a spoilt picture."""
    verdicts = labels.aesthetic(case), labels.fidelity(case), labels.harmlessness(case)
    return Example(description, case.scene, *verdicts, tuple(map(labels.form, case.flaws)))


def quiz(chance: random.Random) -> tuple[str, ...]:
    """What is in a scene, then facts that hold there or do not, about as many of each, as `exchange.inputs` wants it:
    every second piece follows from the others.
    """
    wish = sample("training", chance)
    scene = spoil(wish, chance).scene
    facts: set[tuple[str, ...]] = set()
    for _ in range(QUESTIONS // 2):
        facts.update(labels.answers(other_wish(wish, chance), scene))
        facts.update(labels.answers(_wish_for(scene, chance), scene))
    pieces = [labels.seen(scene)]
    for asked, *answers in chance.sample(sorted(facts), len(facts)):
        pieces[-1] += f" {asked}"
        pieces += [*answers, ","]
    return "", *pieces[:-1]


def _wish_for(scene: Scene, chance: random.Random) -> Description:
    """A description of objects of a scene, in any relation."""
    groups = groups_in(scene)
    groups = chance.sample(groups, min(len(groups), MOST_OBJECTS))
    return Description(tuple(groups), relation=chance.choice(RELATIONS) if len(groups) > 1 else None)


def other_wish(description: Description, chance: random.Random) -> Description:
    """A description of the training split that differs from this one in one or two things."""
    while True:
        other = description
        for _ in range(chance.choice((1, 1, 2))):
            other = _with_one_change(other, chance)
        kinds = {(group.colour, group.shape) for group in other.groups}
        if len(kinds) == len(other.groups) and other.objects <= MOST_OBJECTS and split_of(other) == "training":
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
