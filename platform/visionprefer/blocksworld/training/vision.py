"""What the judge's eyes learn before any words: what lies in each patch of a picture, how it is formed, and how it all
stands together. A language model that learns from their answers alone learns to see a hundred times more slowly.
"""

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy
import torch
from torch.nn.functional import cross_entropy

from visionprefer.blocksworld import labels
from visionprefer.blocksworld.renderer import SIZE
from visionprefer.blocksworld.scenes import BACKGROUNDS, COLOURS, SHAPES
from visionprefer.blocksworld.spoiler import MOST_THINGS
from visionprefer.blocksworld.training import layout, loop
from visionprefer.blocksworld.training.data import DEVICE, batch, in_processes, scaled
from visionprefer.blocksworld.training.judge_data import Example

STEPS = 13_000
STEPS_AGAIN = 6_000  # of a tower that sees already, at half the rate
BATCH = 32
_COVERED = 0.2  # share of a patch that an object has to cover to be what lies there
_PLACES = int(SIZE // labels.APART)  # along each axis, of those that are told

# Numbers of answers: of each patch, 0 standing for nothing there, the colour and shape of the object, which it is from
# the left, among all and among those of its kind, its place, and the mark; of the whole picture the background, the
# number of objects, and the score of its worst form.
OF_A_PATCH = (
    *(1 + len(COLOURS), 1 + len(SHAPES), 1 + MOST_THINGS, 1 + MOST_THINGS),
    *(1 + _PLACES, 1 + _PLACES, 2),
)
OF_A_PICTURE = (len(BACKGROUNDS), 1 + MOST_THINGS, 5)


class Eyes(torch.nn.Module):
    """A vision tower, and what reads the answers off its patches and off their mean."""

    def __init__(self, tower: Any, of_a_patch: tuple[int, ...], of_a_picture: tuple[int, ...]) -> None:
        super().__init__()
        self.tower = tower
        self.counts = of_a_patch, of_a_picture
        width = tower.config.hidden_size
        self.of_a_patch, self.of_a_picture = (
            torch.nn.Sequential(torch.nn.LayerNorm(width), torch.nn.Linear(width, sum(counts)))
            for counts in self.counts
        )

    def forward(self, pixels: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Logits of pictures [B, 3, 64, 64]: for each answer of a patch [B, patches, n], of a picture [B, n]."""
        seen = self.tower(pixel_values=pixels).last_hidden_state[:, 1:]
        of_a_patch, of_a_picture = self.counts
        return (
            self.of_a_patch(seen).split(of_a_patch, dim=-1),
            self.of_a_picture(seen.mean(dim=1)).split(of_a_picture, dim=-1),
        )


def train(
    tower: Any, examples: list[Example], pictures: torch.Tensor, folder: Path, seed: int, again: bool = False
) -> None:
    """Train a vision tower, or one that sees already, on examples; the folder gets the checkpoint and the journal."""
    patches = SIZE // tower.config.patch_size
    forms = _numbered(form for example in examples for form in example.forms)
    answers = functools.partial(_of_patches, patches=patches, forms=forms)
    sentences = [_numbered(sentence) for sentence in zip(*(_sentences(example) for example in examples), strict=True)]
    of_patches = torch.from_numpy(numpy.stack(in_processes(answers, examples, 500, "finding what to see"))).to(DEVICE)
    of_pictures = torch.tensor([_of_a_picture(example, sentences) for example in examples], device=DEVICE)
    eyes = Eyes(tower, (*OF_A_PATCH, 1 + len(forms)), (*OF_A_PICTURE, *map(len, sentences)))

    def loss(step: int) -> torch.Tensor:
        rows = batch(BATCH, len(examples), step, seed)
        found_of_patches, found_of_picture = eyes(scaled(pictures[rows]))
        wanted, of_picture = of_patches[rows].long(), of_pictures[rows]
        objects = (wanted[..., 0] > 0).sum().clamp(min=1)
        total = torch.zeros((), device=DEVICE)
        for found, right in zip(found_of_patches, wanted.unbind(dim=-1), strict=True):
            total = total + cross_entropy(found.flatten(0, 1), right.flatten(), reduction="sum") / objects
        for found, right in zip(found_of_picture, of_picture.unbind(dim=-1), strict=True):
            total = total + cross_entropy(found, right)
        return total

    steps, learning_rate = (STEPS_AGAIN, 5e-4) if again else (STEPS, 1e-3)
    loop.train(eyes, loss, folder=folder, steps=steps, learning_rate=learning_rate)
    tower.requires_grad_(False)


def _numbered(texts: Any) -> dict[str, int]:
    return {text: number for number, text in enumerate(sorted(set(texts)))}


def _sentences(example: Example) -> tuple[str, str]:
    return example.aesthetic.rationale, example.harmlessness.rationale


def _of_a_picture(example: Example, sentences: list[dict[str, int]]) -> list[int]:
    scene = example.scene
    said = [numbers[sentence] for numbers, sentence in zip(sentences, _sentences(example), strict=True)]
    return [BACKGROUNDS.index(scene.background), len(scene.things), example.fidelity.score - 1, *said]


def _of_patches(example: Example, patches: int, forms: dict[str, int]) -> numpy.ndarray:
    """The right answers of the patches: int8 [patches², answers]."""
    scene = example.scene
    answers = torch.zeros((patches, patches, len(OF_A_PATCH) + 1), dtype=torch.int8)
    most = torch.full((patches, patches), _COVERED)
    of_kind: Counter[str] = Counter()
    for place, index in enumerate(labels.lettered(scene.things).values(), 1):
        thing = scene.things[index]
        of_kind[labels.kind(thing)] += 1
        covered = layout.disc(thing, patches)
        kind = [1 + COLOURS.index(thing.colour), 1 + SHAPES.index(thing.shape)]
        where = [1 + int(labels.grid(at) // labels.APART) for at in (thing.x, thing.y)]
        right = [*kind, place, of_kind[labels.kind(thing)], *where, 0, 1 + forms[example.forms[index]]]
        answers[covered > most] = torch.tensor(right, dtype=torch.int8)
        most = torch.maximum(most, covered)
    if scene.mark:
        answers[..., 6] = (layout.disc(scene.mark, patches) > _COVERED).to(torch.int8)
    return answers.flatten(0, 1).numpy()
