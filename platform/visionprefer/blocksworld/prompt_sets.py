"""Prompts of the blocks world, as recipes name them: builtin:blocks-training and builtin:blocks-held-out.

    python -m visionprefer.blocksworld.prompt_sets

writes the files again.
"""

import random

from visionprefer.blocksworld.scenes import Description, Split, sample
from visionprefer.blocksworld.wording import understand, word
from visionprefer.prompts.files import BUILTIN_PROMPTS

SIZES: dict[Split, int] = {"training": 2_000, "held-out": 1_000}
OBJECTS: dict[Split, tuple[int, ...]] = {"training": (1, 2, 3), "held-out": (2, 3)}


def prompt_set(split: Split) -> list[str]:
    """Prompts of one split, each of another description, in the plainest words and in others."""
    chance = random.Random(split)
    found: dict[Description | None, str] = {}
    while len(found) < SIZES[split]:
        prompt = word(sample(split, chance, OBJECTS[split]), chance)
        found.setdefault(understand(prompt), prompt)
    return list(found.values())


if __name__ == "__main__":
    for split in SIZES:
        file = BUILTIN_PROMPTS / f"blocks-{split}.txt"
        file.write_text("".join(f"{prompt}\n" for prompt in prompt_set(split)))
        print(file)
