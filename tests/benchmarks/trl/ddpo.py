"""TRL's DDPOTrainer in its own environment, with an endpoint's rewards: prints the seconds of each rollout, as JSON.

    python ddpo.py '{"model": …, "prompts": […], "endpoint": …, "rollouts": …, "config": {…}}'

`tests/benchmarks/ppo.py` runs it. Besides TRL it needs the base install of visionprefer alone.
"""

import io
import itertools
import json
import sys
import time

import torch
from accelerate import PartialState
from PIL import Image
from trl import DDPOConfig, DDPOTrainer, DefaultDDPOStableDiffusionPipeline

from visionprefer_serve.client import RewardClient


def png(image: torch.Tensor) -> bytes:
    """A file of an image of 0 to 1: [3, H, W]."""
    pixels = (image.float() * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def main() -> None:
    """Train."""
    asked = json.loads(sys.argv[1])
    PartialState()  # TRL logs before it is set up
    client, prompts = RewardClient(asked["endpoint"]), itertools.cycle(asked["prompts"])

    def rewards(images: torch.Tensor, texts: tuple[str, ...], _: object) -> tuple[torch.Tensor, dict[str, str]]:
        answers = client.score(texts, list(map(png, images)))
        return torch.tensor([answer.score for answer in answers]), {}

    trainer = DDPOTrainer(
        DDPOConfig(**asked["config"]),
        rewards,
        lambda: (next(prompts), {}),
        DefaultDDPOStableDiffusionPipeline(asked["model"], use_lora=True),
    )
    trainer.sd_pipeline.set_progress_bar_config(disable=True)
    seconds, updates = [], 0
    for rollout in range(asked["rollouts"]):
        began = time.perf_counter()
        updates = trainer.step(rollout, updates)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": seconds, "updates": updates}))


if __name__ == "__main__":
    main()
