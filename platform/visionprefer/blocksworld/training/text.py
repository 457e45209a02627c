"""What a prompt asks for, learnt from words alone: a text encoder that knows it conditions a UNet from the first step.

Learnt with the UNet alone, colours come soon, but shapes and relations late: at high noise, where they are decided,
they change the loss little.
"""

import random
from pathlib import Path
from typing import Any

import torch

from visionprefer.blocksworld.scenes import (
    BACKGROUNDS,
    COLOURS,
    MOST_OBJECTS,
    RELATIONS,
    SHAPES,
    Description,
    sample,
)
from visionprefer.blocksworld.training import loop
from visionprefer.blocksworld.training.data import DEVICE
from visionprefer.blocksworld.wording import understand, word

STEPS = 1_000
BATCH = 64

# What is asked of a prompt, and how many answers there are: of each group its colour, shape and count, then the rest.
_OF_A_GROUP = (1 + len(COLOURS), 1 + len(SHAPES), 1 + MOST_OBJECTS)
ANSWERS = (*_OF_A_GROUP * MOST_OBJECTS, 1 + len(RELATIONS), 1 + len(BACKGROUNDS), 2)


class Reader(torch.nn.Module):
    """A text encoder, and what reads off its last token what the prompt asks for."""

    def __init__(self, text_encoder: Any) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.answers = torch.nn.Linear(text_encoder.config.hidden_size, sum(ANSWERS))

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """For each of ANSWERS the logits [B, answers], given prompts [B, tokens]."""
        return self.answers(self.text_encoder(input_ids).pooler_output).split(ANSWERS, dim=1)


def train(text_encoder: Any, tokenizer: Any, folder: Path, seed: int) -> None:
    """Train a text encoder; the folder gets the checkpoint and the journal."""
    reader = Reader(text_encoder)

    def loss(step: int) -> torch.Tensor:
        chance = random.Random(f"{seed} text {step}")
        prompts = [word(sample("training", chance), chance) for _ in range(BATCH)]
        ids = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        wanted = torch.tensor([asked_for(prompt) for prompt in prompts]).to(DEVICE)
        found = zip(reader(ids.to(DEVICE)), wanted.unbind(dim=1), strict=True)
        return sum((torch.nn.functional.cross_entropy(*pair) for pair in found), start=torch.zeros((), device=DEVICE))

    loop.train(reader, loss, folder=folder, steps=STEPS, learning_rate=2e-3, average=0.99)


def asked_for(prompt: str) -> list[int]:
    """The right answer to each of ANSWERS: groups in the order in which they are named, 0 for what is not asked for."""
    description = understand(prompt) or Description(())
    answers = []
    for index in range(MOST_OBJECTS):
        if index < len(description.groups):
            group = description.groups[index]
            answers += [1 + COLOURS.index(group.colour), 1 + SHAPES.index(group.shape), group.count]
        else:
            answers += [0, 0, 0]
    relation = 1 + RELATIONS.index(description.relation) if description.relation else 0
    background = 1 + BACKGROUNDS.index(description.background) if description.background else 0
    return [*answers, relation, background, int(description.mark)]
