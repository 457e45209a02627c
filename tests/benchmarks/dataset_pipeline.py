"""How much of a bare loop's speed the dataset pipeline keeps, and what ten times the prompts cost.

    python tests/benchmarks/dataset_pipeline.py [--size tiny|sd15|sdxl] [--prompts 32] [--device auto]

Models have random weights, which does not matter for speed. The bare loop calls the same diffusers pipeline and the
same judge, batch by batch, in one process. Ratios are of one run on one machine.

2026-11-21, 2 cores of an AMD EPYC, no GPU, size tiny, 32 prompts: the warm chain made 15.6 images/s, 1.14 of the loop's
13.7 (it generates and judges at once, on a core each); first image after 19.5 s; ten times the prompts took 3.5 times
as long (31 s, then 108 s), and the driver's peak memory stayed at 479 MiB.
"""

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

STEPS = {"tiny": 20, "sd15": 25, "sdxl": 25}
BATCH = {"tiny": 8, "sd15": 8, "sdxl": 4}


def write_recipe(folder: Path, size: str, device: str, prompts: int) -> Path:
    """Models with random weights, prompts, and the recipe that uses them."""
    from visionprefer import random_models

    models = folder / "models"
    if not models.exists():
        writer = random_models.stable_diffusion_xl if size == "sdxl" else random_models.stable_diffusion
        writer(models / "image", size="tiny-sd" if size == "tiny" else size)
        random_models.llava(models / "judge")
    (folder / f"{prompts}.txt").write_text("\n".join(f"a photo of thing number {i}" for i in range(prompts)))
    recipe = {
        "name": "benchmark",
        "prompts": {"path": f"{prompts}.txt", "near_duplicate": None},
        "images": {
            "models": [{"model": "models/image", "num_inference_steps": STEPS[size]}],
            "images_per_prompt": 4,
            "batch_size": BATCH[size],
            "device": device,
            "workers": {"num_gpus": 0.5 if device == "cuda" else 0},
        },
        "judge": {
            "model": "models/judge",
            "temperature": 1.0,
            "rationale_length": 20,
            "max_new_tokens": 300,
            "batch_size": 16,
            "device": device,
            "workers": {"num_gpus": 0.5 if device == "cuda" else 0},
        },
    }
    path = folder / f"{prompts}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def chain(recipe_path: str, out: str) -> dict[str, float]:
    """One run of the pipeline in this process. Warm is when the first images of each stage are there."""
    from rich.console import Console

    from visionprefer.recipe_file import load_recipe
    from visionprefer.shards import Counts
    from visionprefer_pipelines.progress import Progress
    from visionprefer_pipelines.run import run

    class Watch(Progress):
        """Remembers when how much was done."""

        seen: list[tuple[float, int, int]]

        def update(self, images: Counts, replies: Counts, waits: str = "") -> None:
            self.seen.append((time.monotonic(), images.done, replies.done))

    started = time.monotonic()
    with Progress(Console(quiet=True)) as progress:
        progress.__class__ = Watch
        progress.seen = []  # type: ignore[attr-defined]
        run(load_recipe(Path(recipe_path)), out, progress)
    ended = time.monotonic()
    seen: list[tuple[float, int, int]] = progress.seen  # type: ignore[attr-defined]
    first_image = next(moment for moment, images, _ in seen if images)
    warm, _, judged = next(entry for entry in seen if entry[2])
    last, _, total = next(entry for entry in seen if entry[2] == seen[-1][2])
    return {
        "seconds": ended - started,
        "cold_start": first_image - started,
        "images_per_second": (total - judged) / (last - warm),
        "driver_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def bare(recipe_path: str) -> float:
    """Images per second of a plain loop over the same batches: diffusers, PNG, the judge's model."""
    import torch

    from visionprefer.images import load_pipeline
    from visionprefer.judging.engine import Request
    from visionprefer.judging.rubric import question, reply_schema
    from visionprefer.judging.transformers_engine import TransformersEngine
    from visionprefer.models import find_model
    from visionprefer.recipe_file import load_recipe

    recipe = load_recipe(Path(recipe_path))
    engine = TransformersEngine(recipe.judge, find_model(recipe.judge.model, "transformers"))
    settings = recipe.images.models[0]
    dtype = torch.float32 if engine.device.type == "cpu" else torch.float16
    pipeline = load_pipeline(find_model(settings.model, "diffusers"), engine.device, dtype)
    prompts = Path(str(recipe.prompts.path)).read_text().splitlines() * recipe.images.images_per_prompt
    schema = reply_schema(recipe.judge.rationale_length)

    def images_of(batch: list[str]) -> list[Any]:
        made = pipeline(
            batch, guidance_scale=settings.guidance_scale, num_inference_steps=settings.num_inference_steps
        ).images
        for image in made:
            image.save(io.BytesIO(), "png")
        return list(made)

    def both(texts: list[str]) -> None:
        size = recipe.images.batch_size
        made = [image for start in range(0, len(texts), size) for image in images_of(texts[start : start + size])]
        engine.ask([Request([image], question(text), 0, 1.0, schema) for image, text in zip(made, texts, strict=True)])

    size = recipe.judge.batch_size
    both(prompts[:size])  # warm
    started = time.monotonic()
    for start in range(0, len(prompts), size):
        both(prompts[start : start + size])
    return len(prompts) / (time.monotonic() - started)


def apart(*arguments: str) -> Any:
    """The result of a part of this script in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure, and print."""
    if sys.argv[1:2] == ["chain"]:
        print(json.dumps(chain(*sys.argv[2:])))
        return
    if sys.argv[1:2] == ["bare"]:
        print(json.dumps(bare(sys.argv[2])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(STEPS), default="tiny")
    parser.add_argument("--prompts", type=int, default=32, help="four images each")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        few = str(write_recipe(folder, settings.size, settings.device, settings.prompts))
        many = str(write_recipe(folder, settings.size, settings.device, settings.prompts * 10))
        loop = apart("bare", few)
        small = apart("chain", few, f"{folder}/small")
        large = apart("chain", many, f"{folder}/large")
    kept = large["images_per_second"] / loop
    longer = large["seconds"] / small["seconds"]
    grown = large["driver_peak_mib"] / small["driver_peak_mib"] - 1
    print(f"size {settings.size}, {settings.prompts} and {settings.prompts * 10} prompts, 4 images each")
    print(f"bare loop      {loop:6.2f} images/s")
    print(f"chain, warm    {large['images_per_second']:6.2f} images/s = {kept:.2f} of the loop")
    print(f"cold start     {small['cold_start']:6.1f} s to the first image")
    print(f"10 × prompts   {longer:6.1f} × time ({small['seconds']:.0f} s, then {large['seconds']:.0f} s)")
    print(f"driver's peak  {large['driver_peak_mib']:6.0f} MiB, {grown:+.0%} with 10 × prompts")


if __name__ == "__main__":
    main()
