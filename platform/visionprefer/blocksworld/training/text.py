"""What a prompt asks for, learnt before any drawing: a text encoder that knows it conditions a UNet from step one.

Learnt with the UNet alone, colours come soon, shapes late and relations not at all: they are decided at high noise,
where they change the loss little. Like that of Stable Diffusion, the text encoder stays as it is while the UNet learns.
"""

import random
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy, mse_loss

from visionprefer.blocksworld.scenes import (
    BACKGROUNDS,
    COLOURS,
    MOST_OBJECTS,
    RELATIONS,
    SHAPES,
    Description,
    Group,
)
from visionprefer.blocksworld.training import layout, loop
from visionprefer.blocksworld.training.data import DEVICE, Pool, batch
from visionprefer.blocksworld.wording import OPPOSITE, understand, word

STEPS = 2_000
BATCH = 64
EMPTY_PROMPTS = 0.1  # share trained without a prompt, for classifier-free guidance
CELLS = 4  # across the picture: the last CELLS² tokens, mere padding, learn what has to stand in each of its parts
_PLACES_WEIGHT = 300.0  # brings the error of the layout to the size of the answers'

# What is asked of a prompt, and how many answers there are: colour, shape and count of each group, the relation,
# the background and the mark, then colour and shape of what has to be on each side.
_OF_A_GROUP = (1 + len(COLOURS), 1 + len(SHAPES), 1 + MOST_OBJECTS)
_OF_A_SIDE = _OF_A_GROUP[:2]
ANSWERS = (
    *_OF_A_GROUP * MOST_OBJECTS,
    *(1 + len(RELATIONS), 1 + len(BACKGROUNDS), 2),
    *_OF_A_SIDE * len(RELATIONS),
)


class Reader(torch.nn.Module):
    """A text encoder, and what reads off its tokens what the prompt asks for, and where in the picture."""

    def __init__(self, text_encoder: Any) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.answers = torch.nn.Linear(text_encoder.config.hidden_size, sum(ANSWERS))
        self.places = torch.nn.Linear(text_encoder.config.hidden_size, layout.KINDS)

    def asked(self, hidden: torch.Tensor) -> torch.Tensor:
        """The coverage that prompts let expect [B, KINDS, CELLS, CELLS], given their tokens' states [B, tokens, D]."""
        return self.places(hidden[:, -(CELLS**2) :]).mT.unflatten(2, (CELLS, CELLS))


def train(text_encoder: Any, tokenizer: Any, pool: Pool, folder: Path, seed: int) -> Reader:
    """Train a text encoder on the words and layouts of scenes; the folder gets the checkpoint and the journal."""
    reader = Reader(text_encoder)
    covered = layout.coverage(pool.scenes, CELLS).to(DEVICE)

    def loss(step: int) -> torch.Tensor:
        rows = batch(BATCH, len(pool.scenes), step, seed)
        prompts = worded([pool.descriptions[row] for row in rows], random.Random(f"{seed} text {step}"))
        wanted = torch.tensor([asked_for(prompt) for prompt in prompts]).to(DEVICE)
        ids = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        read = reader.text_encoder(ids.to(DEVICE))
        total = _PLACES_WEIGHT * mse_loss(reader.asked(read.last_hidden_state), covered[rows])
        # The tokens that stand for places have to know what is asked for before they can learn where it goes.
        somewhere = read.last_hidden_state[range(BATCH), [-1 - step % CELLS**2] * BATCH]
        for state in (read.pooler_output, somewhere):
            found = reader.answers(state).split(ANSWERS, dim=1)
            total = total + sum(cross_entropy(*pair) for pair in zip(found, wanted.unbind(dim=1), strict=True))
        return total

    loop.train(reader, loss, folder=folder, steps=STEPS, learning_rate=2e-3, average=0.99)
    return reader.requires_grad_(False)


def worded(descriptions: list[Description], chance: random.Random) -> list[str]:
    """Prompts of these, in words drawn by chance; some are empty."""
    return ["" if chance.random() < EMPTY_PROMPTS else word(description, chance) for description in descriptions]


def asked_for(prompt: str) -> list[int]:
    """The right answer to each of ANSWERS: groups in the order in which they are named, 0 for what is not asked for."""
    description = understand(prompt) or Description(())
    groups = description.groups
    answers = []
    for index in range(MOST_OBJECTS):
        answers += [*_kind(groups[index]), groups[index].count] if index < len(groups) else [0, 0, 0]
    answers.append(1 + RELATIONS.index(description.relation) if description.relation else 0)
    answers.append(1 + BACKGROUNDS.index(description.background) if description.background else 0)
    answers.append(int(description.mark))
    sides = {}
    if description.relation:
        sides = {description.relation: groups[0], OPPOSITE[description.relation]: groups[1]}
    for side in RELATIONS:
        answers += _kind(sides[side]) if side in sides else [0, 0]
    return answers


def _kind(group: Group) -> list[int]:
    return [1 + COLOURS.index(group.colour), 1 + SHAPES.index(group.shape)]
