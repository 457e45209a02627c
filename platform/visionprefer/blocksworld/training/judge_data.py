"""What the judge learns from: pictures spoilt, redrawn or an image model's own, and what is right to say of each."""

import functools
import itertools
import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import torch
from pydantic import TypeAdapter

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
from visionprefer.blocksworld.training import blobs, data
from visionprefer.blocksworld.training.redrawing import draw, measured, painter, redraw
from visionprefer.blocksworld.wording import word
from visionprefer.judging.rubric import AspectVerdict

AT_ONCE = 100
QUESTIONS = 8  # wishes whose facts make up a quiz
KINDS = {"spoilt": 0.15, "redrawn": 0.35, "own": 0.5}  # shares of the pictures: the last are an image model's own
SPARE = 1.4  # so many times as many are redrawn, as some turn out too unclear to be used
STRENGTHS = (0.0, 1.0)  # how far into noise, 1 being nothing else; at 0 it is what the autoencoder makes of a picture
GUIDANCE_SCALES = (1.5, 6.0)  # of an image model's own pictures


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


_EXAMPLES = TypeAdapter(list[Example])


def examples(size: int, seed: int, image_models: list[Path], folder: Path) -> tuple[list[Example], torch.Tensor]:
    """So many examples, and their pictures: uint8 [size, 3, 64, 64].

    Args:
        size: how many.
        seed: of all randomness.
        image_models: folders of pipelines that redraw pictures.
        folder: where they are kept, and found again: on two cores they take half an hour.
    """
    kept, pictures_kept = folder / "examples.json", folder / "pictures.npy"
    if kept.exists():
        return _EXAMPLES.validate_json(kept.read_bytes()), torch.from_numpy(numpy.load(pictures_kept))
    parts = [(min(AT_ONCE, size - start), f"{seed} {start}") for start in range(0, size, AT_ONCE)]
    made = data.in_processes(functools.partial(_part, image_models), parts, 1, "spoiling scenes")
    found, pictures = [each for some, _ in made for each in some], numpy.concatenate([pictures for _, pictures in made])
    folder.mkdir(parents=True, exist_ok=True)
    numpy.save(pictures_kept, pictures)
    kept.with_suffix(".part").write_bytes(_EXAMPLES.dump_json(found))
    kept.with_suffix(".part").replace(kept)
    return found, torch.from_numpy(pictures)


def _part(image_models: list[Path], part: tuple[int, str]) -> tuple[list[Example], numpy.ndarray]:
    some = _some(*part, image_models)
    pictures = numpy.stack([numpy.asarray(case.picture).transpose(2, 0, 1) for _, case in some])
    return list(itertools.starmap(example, some)), pictures


_painter = functools.cache(painter)


def _some(count: int, seed: str, image_models: list[Path]) -> list[tuple[Description, Spoilt]]:
    """So many descriptions with a picture each: all spoilt as they were drawn, all redrawn so, or all an image model's.

    Of those that go through an image model some are spare, in place of others of which it is unclear what they show;
    where there are still too few, they are spoilt as they were drawn.
    """
    chance = random.Random(seed)
    generator = torch.Generator().manual_seed(chance.randrange(2**32))
    (kind,) = chance.choices(list(KINDS), list(KINDS.values()))
    descriptions = [sample("training", chance) for _ in range(count if kind == "spoilt" else round(SPARE * count))]
    drawn = [spoil(description, chance) for description in descriptions]
    if kind == "spoilt":
        cases: list[Spoilt | None] = list(map(measured, drawn))
    elif kind == "redrawn":
        pipeline, strength = _painter(chance.choice(image_models)), chance.uniform(*STRENGTHS)
        marked = [case.scene.mark is not None for case in drawn]
        asked = [word(replace(wish, mark=mark), chance) for wish, mark in zip(descriptions, marked, strict=True)]
        cases = redraw(pipeline, asked, drawn, strength, generator)
    else:
        pipeline, guidance_scale = _painter(chance.choice(image_models)), chance.uniform(*GUIDANCE_SCALES)
        asked = [word(wish, chance) for wish in descriptions]
        cases = [blobs.read(pixels) for pixels in draw(pipeline, asked, guidance_scale, generator)]
    clear = [(wish, case) for wish, case in zip(descriptions, cases, strict=True) if case]
    others = zip(descriptions, map(measured, drawn), strict=True)
    return [*clear, *itertools.islice(others, max(0, count - len(clear)))][:count]


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
