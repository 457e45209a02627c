"""Seconds an image: the stage that draws against its diffusers pipeline alone, the same batches in turn.

    python tests/benchmarks/drawing.py [--size blocks-sd|sd15|sdxl] [--batches 2]

Weights are random but for blocks-sd's, which does not matter for speed. What the stage does beside the pipeline is to
seed each image apart, to look for NaN and black pictures, and to write PNGs.

2026-11-27, one NVIDIA H200, float16, sd15 at 512 px, batches of 8: the pipeline alone took 0.385 s an image, the stage
0.433, while it compressed one PNG after the other. Since then it compresses those of a batch beside each other.
"""

import argparse
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import torch

from visionprefer.images import GenerateImages
from visionprefer.models import BUILTIN_MODELS, find_model
from visionprefer.plan import plan_generation
from visionprefer.random_models import stable_diffusion, stable_diffusion_xl
from visionprefer.recipe import ImageModel, ImageSettings
from visionprefer.schema import PROMPTS

STEPS, GUIDANCE = 50, 7.5
BATCH = {"blocks-sd": 32, "sd15": 8, "sdxl": 4}


def main() -> None:
    """Print the rates and their ratio."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--size", default="blocks-sd", choices=list(BATCH))
    arguments.add_argument("--batches", type=int, default=2)
    given = arguments.parse_args()
    size, device = BATCH[given.size], "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / given.size
        with torch.device(device):
            if given.size == "blocks-sd":
                folder = BUILTIN_MODELS / given.size
            elif given.size == "sd15":
                stable_diffusion(folder, given.size, dtype="float16")
            else:
                stable_diffusion_xl(folder, given.size, dtype="float16")
        model = find_model(str(folder), "diffusers")
        image_model = ImageModel(model=str(folder), num_inference_steps=STEPS, guidance_scale=GUIDANCE)
        settings = ImageSettings(models=[image_model], images_per_prompt=1, batch_size=size, block_size=size)
        texts = [f"a photo of thing number {n}" for n in range(size * (given.batches + 1))]
        rows = [{"prompt_id": text, "prompt": text, "split": "train", "source": ""} for text in texts]
        prompts = pa.Table.from_pylist(rows, schema=PROMPTS)
        plan = plan_generation(prompts, settings, [model], 0).rows
        stage = GenerateImages(settings, [model])
        _, failed = stage(plan.slice(0, size))  # the first, which loads
        pipeline = stage._pipeline(model.digest)
        seconds = {"the stage": 0.0, "the pipeline alone": 0.0}
        for start in range(size, plan.num_rows, size):
            batch = plan.slice(start, size)
            began = time.perf_counter()
            pipeline(batch["prompt"].to_pylist(), num_inference_steps=STEPS, guidance_scale=GUIDANCE)
            between = time.perf_counter()
            stage(batch)
            seconds["the pipeline alone"] += between - began
            seconds["the stage"] += time.perf_counter() - between
    images = size * given.batches
    print(f"{given.size} on {device}, {STEPS} steps, batches of {size}; {failed.num_rows} of {size} failed at first")
    for name, took in seconds.items():
        print(f"{name:<20} {took / images:8.4f} s an image, {images / took:8.3f} images/s")
    print(f"the stage is {seconds['the pipeline alone'] / seconds['the stage']:.2f} as fast as the pipeline alone")


if __name__ == "__main__":
    main()
