"""What the judge's language model learns before it sees anything: which facts of a prompt hold in a scene that it is
told in words. Beside pictures, where what it is told is often wrong at first, it does not learn that for hours.
"""

import json
import random
from pathlib import Path
from typing import Any

from visionprefer.blocksworld import labels
from visionprefer.blocksworld.renderer import Scene
from visionprefer.blocksworld.scenes import MOST_OBJECTS, RELATIONS, Description, sample
from visionprefer.blocksworld.spoiler import groups_in, spoil
from visionprefer.blocksworld.training import exchange, loop
from visionprefer.blocksworld.training.judge_data import other_wish
from visionprefer.blocksworld.wording import understand, word
from visionprefer.judging.rubric import question

STEPS = 4_500
BATCH = 16
CHANGED = 0.4  # share of the replies to another prompt than the scene was drawn and spoilt for
QUESTIONS = 8  # wishes whose facts make up a quiz


def train(model: Any, processor: Any, folder: Path, seed: int) -> None:
    """Train a judge's language model on quizzes and on replies; the folder gets the checkpoint and the journal."""

    def loss(step: int) -> Any:
        chance = random.Random(f"{seed} {step}")
        make = reply if step % 2 else quiz
        return model(**exchange.inputs(processor, [make(chance) for _ in range(BATCH)])).loss

    loop.train(model, loss, folder=folder, steps=STEPS, learning_rate=1.5e-3, warm_up=300)


def quiz(chance: random.Random) -> tuple[str, ...]:
    """What is in a scene, then facts that hold there or do not, about as many of each, as `exchange.inputs` wants it:
    every second piece follows from the others.
    """
    wish = sample("training", chance)
    scene = spoil(wish, chance).scene
    found: dict[str, str] = {}
    for _ in range(QUESTIONS // 2):
        found |= labels.answers(other_wish(wish, chance), scene)
        found |= labels.answers(_wish_for(scene, chance), scene)
    facts = list(found.items())
    chance.shuffle(facts)
    pieces = [labels.seen(scene)]
    for fact, answer in facts:
        pieces[-1] += f" {fact}"
        pieces += [answer, ","]
    return "", *pieces[:-1]


def reply(chance: random.Random) -> tuple[str, ...]:
    """The rubric's question, and a reply of which is learnt what follows from the prompt and what is there."""
    wish = sample("training", chance)
    spoilt = spoil(wish, chance)
    prompt = word(other_wish(wish, chance) if chance.random() < CHANGED else wish, chance)
    text = json.dumps(labels.label(understand(prompt) or wish, spoilt).model_dump())
    told = text.index(labels.seen(spoilt.scene)) + len(labels.seen(spoilt.scene))
    end = text.index("}")
    return question(prompt), text[:told], text[told:end], text[end:], ""


def _wish_for(scene: Scene, chance: random.Random) -> Description:
    """A description of objects of a scene, in any relation."""
    groups = groups_in(scene)
    groups = chance.sample(groups, min(len(groups), MOST_OBJECTS))
    return Description(tuple(groups), relation=chance.choice(RELATIONS) if len(groups) > 1 else None)
