"""Pictures like those that an image model of the blocks world was trained on, as a folder of existing images."""

import json
import random
from pathlib import Path

from visionprefer.blocksworld.renderer import compose, draw
from visionprefer.blocksworld.scenes import sample
from visionprefer.blocksworld.training.captions import mixed_up
from visionprefer.blocksworld.wording import word


def write_renders(folder: Path, size: int, seed: int, mistakes: float) -> None:
    """Write pictures of training scenes, and their captions in metadata.jsonl.

    Args:
        folder: for them; created if need be.
        size: how many.
        seed: of scenes, pictures and captions.
        mistakes: see `captions.mixed_up`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / "metadata.part"  # renamed at the end: where captions are, all pictures are
    with unfinished.open("w", encoding="utf-8") as captions:
        for number in range(size):
            chance = random.Random(f"{seed} {number}")
            description = sample("training", chance)
            name = f"{number:05}.png"
            draw(compose(description, chance)).save(folder / name)
            told = word(mixed_up(description, mistakes, chance), chance)
            captions.write(json.dumps({"file_name": name, "text": told}) + "\n")
    unfinished.rename(folder / "metadata.jsonl")
