"""Diffusion-DPO against a plain script, and against the same loop without Ray: optimizer steps a second, as ratios.

    python tests/benchmarks/dpo.py [--size blocks-sd-small|sd15] [--prompts 16] [--steps 20]

1. The plain script encodes prompts and images in every step, and asks policy and reference about chosen and rejected
   images apart: four passes. Ours is what a worker of `visionprefer dpo` does with rows that were encoded once. Pairs,
   noise, timesteps and first weights are the same, so the losses must be. Both take turns, step by step, after a step
   that does not count. Reading the image files is in neither: a data loader does it meanwhile.
2. `visionprefer dpo` on Ray against our steps in this process: Ray's rate is that between the first and the last line
   of its history, checkpoints and reading in it. They take turns too.

2026-11-27, 2 cores of an AMD EPYC, nothing else running, one thread: all weights 9.4 steps/s, 1.76 of the plain script,
losses at most 0.002 apart; LoRA of rank 16 10.7 steps/s, 1.93 of it, at most 0.00007 apart. All 256 images were encoded
once in 0.6 s, the time of six steps. On Ray 7.75 steps/s, checkpoints and reading in it, 0.65 of 11.9 in this process.
"""

import argparse
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from diffusers import DDPMScheduler
from PIL import Image
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

from run_by_hand import build_run

from visionprefer.align.denoising import noised
from visionprefer.align.dpo import denoising_error, diffusion_dpo_loss
from visionprefer.align.encoded import encode, pair_batch, shapes_of
from visionprefer.align.encoding import encode_prompts
from visionprefer.align.fit import DPOFit
from visionprefer.align.pairs import drawn, usable
from visionprefer.align.policy import Policy
from visionprefer.align.recipe import DPORecipe
from visionprefer.models import BUILTIN_MODELS, find_model
from visionprefer.prompts.files import BUILTIN_PROMPTS
from visionprefer.random_models import stable_diffusion
from visionprefer.run_folder import RunFolder
from visionprefer.training_table import ROWS_PER_GROUP
from visionprefer_pipelines.dpo import train_dpo
from visionprefer_pipelines.policies import policy_of
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.training_worker import CHECKPOINTS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Batch(NamedTuple):
    """What a step learns from: encoded for us, as it is for the plain script."""

    encoded: pa.Table
    prompts: list[str]
    pixels_2P3HW: torch.Tensor  # chosen images, then rejected ones
    noise_PCHW: torch.Tensor
    timesteps_P: torch.Tensor


def run_of(folder: Path, prompts: int, pixels: int) -> RunFolder:
    """A finished run of so many training prompts with four images of this size each."""
    words = (BUILTIN_PROMPTS / "blocks-training.txt").read_text(encoding="utf-8").splitlines()[:prompts]
    run = build_run(folder, {prompt: ("train", [[score] * 4 for score in (1, 2, 4, 5)]) for prompt in words})
    for file in run.training_files():
        rows = run.store.read_table(file).to_pylist()
        for image in (image for row in rows for image in row["images"]):
            resized = io.BytesIO()
            Image.open(io.BytesIO(image["bytes"])).resize((pixels, pixels)).save(resized, "PNG")
            image["bytes"] = resized.getvalue()
        schema = run.store.read_table(file).schema
        run.store.write_table(file, pa.Table.from_pylist(rows, schema=schema), ROWS_PER_GROUP)
    return run


def batches_of(rows: pa.Table, fit: DPOFit, steps: int) -> list[Batch]:
    """The same pairs for both ways, a step of ours and what the plain script makes it from."""
    recipe, pipeline = fit.recipe, fit.policy.pipeline
    found = []
    for number in range(steps):
        few = rows.slice(number % (rows.num_rows // recipe.batch_size) * recipe.batch_size, recipe.batch_size)
        chosen, rejected = [], []
        for row in few.to_pylist():
            pair = drawn(usable(row["pairs"], recipe), row["prompt_id"], 0, recipe)
            for images, place in ((chosen, pair.chosen), (rejected, pair.rejected)):
                images.append(Image.open(io.BytesIO(row["images"][place]["bytes"])).convert("RGB"))
        encoded = encode(few, pipeline)
        shapes = shapes_of(encoded)
        assert shapes is not None
        noise, timesteps = fit._chance(few["prompt_id"].to_pylist(), torch.Size(shapes.latents), number)
        pixels = pipeline.image_processor.preprocess(chosen + rejected)
        found.append(Batch(encoded, few["prompt"].to_pylist(), pixels, noise, timesteps))
    return found


def ours(fit: DPOFit, batch: Batch, number: int) -> float:
    """The step of a worker, from reading the encoded rows on. Returns the loss."""
    shapes = shapes_of(batch.encoded)
    pairs = pair_batch(batch.encoded, shapes, fit.recipe, epoch=0) if shapes else None
    return fit.step([pairs], number)["loss"]


class Plain:
    """The plain script."""

    def __init__(self, policy: Policy, recipe: DPORecipe, dtype: torch.dtype) -> None:
        self.policy, self.recipe, self.dtype = policy, recipe, dtype
        self.scheduler = DDPMScheduler.from_config(policy.pipeline.scheduler.config)
        self.optimizer = torch.optim.AdamW(policy.learnt, lr=recipe.peak_learning_rate, weight_decay=1e-2)

    def step(self, batch: Batch) -> float:
        """Learn from pairs. Returns the loss."""
        pipeline, vae, pixels = self.policy.pipeline, self.policy.pipeline.vae, batch.pixels_2P3HW.to(DEVICE)
        with torch.no_grad():
            condition = encode_prompts(pipeline, batch.prompts, *pixels.shape[2:])
            latents = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
        errors = []
        with torch.autocast(DEVICE.type, self.dtype, enabled=self.dtype != torch.float32):
            for ask in (self.policy.predict, self.policy.reference):
                for half in latents.chunk(2):
                    noisy, target = noised(self.scheduler, half, batch.noise_PCHW, batch.timesteps_P)
                    errors.append(denoising_error(ask(noisy, batch.timesteps_P, condition), target))
        loss = diffusion_dpo_loss(*errors, self.recipe.beta).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.learnt, self.recipe.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def timed(step: Any, *arguments: Any) -> tuple[float, float]:
    """Seconds that it took, and the loss."""
    began = time.perf_counter()
    loss = step(*arguments)  # a number, so the GPU has done its part
    return time.perf_counter() - began, loss


def policies(recipe: DPORecipe) -> tuple[DPOFit, Plain]:
    """Two policies with the same weights."""
    model = find_model(recipe.model, "diffusers")
    (mine, dtype), (other, _) = (policy_of(recipe, model, DEVICE) for _ in range(2))
    for policy in (mine, other):
        policy.pipeline.to(DEVICE)
    return DPOFit(mine, recipe, dtype), Plain(other, recipe, dtype)


def against_plain(recipe: DPORecipe, rows: pa.Table, steps: int) -> DPOFit:
    """Print the first part."""
    fit, plain = policies(recipe)
    began = time.perf_counter()
    encode(rows, fit.policy.pipeline)
    encoding = time.perf_counter() - began
    batches = batches_of(rows, fit, steps + 1)
    seconds, apart = {"ours": 0.0, "plain": 0.0}, 0.0
    for number, batch in enumerate(batches):
        took, loss = timed(ours, fit, batch, number)
        took_plain, plain_loss = timed(plain.step, batch)
        apart = max(apart, abs(loss - plain_loss))
        if number:
            seconds["ours"] += took
            seconds["plain"] += took_plain
    what = f"LoRA of rank {recipe.lora_rank}" if recipe.lora_rank else "all weights"
    print(
        f"{what}: ours {steps / seconds['ours']:.3g} steps/s, the plain script {steps / seconds['plain']:.3g}: "
        f"{seconds['plain'] / seconds['ours']:.2f} times as many; losses at most {apart:.1g} apart. All "
        f"{rows.num_rows * 4} images were encoded once in {encoding:.1f} s",
        flush=True,
    )
    return fit


def on_ray(recipe: DPORecipe, run: RunFolder, out: Path) -> float:
    """Steps a second of `visionprefer dpo`."""
    with Progress(Console(file=io.StringIO())) as progress:
        train_dpo(recipe, run.store.root, out, progress)
    history = json.loads((out / "training.json").read_text(encoding="utf-8"))["history"]
    first, last = history[0], history[-1]
    return (last["step"] - first["step"]) / (last["seconds"] - first["seconds"])


def main() -> None:
    """Print rates and ratios."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--size", default="blocks-sd-small", choices=["blocks-sd-small", "sd15"])
    arguments.add_argument("--prompts", type=int, default=16, help="of a step")
    arguments.add_argument("--steps", type=int, default=20)
    given = arguments.parse_args()
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as parent:
        built_in = BUILTIN_MODELS / given.size
        model = built_in if built_in.is_dir() else stable_diffusion(Path(parent) / given.size, given.size)
        settings: dict[str, Any] = {
            "model": str(model),
            "lora_rank": 16,
            "beta": 500,
            "steps": CHECKPOINTS * given.steps,
            "batch_size": given.prompts,
            "learning_rate": 1e-4,
            "warm_up": 0,
            "workers": {"num_cpus": threads, "num_gpus": int(torch.cuda.is_available())},
        }
        lora = DPORecipe.model_validate({"name": "benchmark", **settings})
        run = run_of(Path(parent) / "run", 4 * given.prompts, 64 if built_in.is_dir() else 512)
        rows = pa.concat_tables(run.store.read_table(file) for file in run.training_files())
        print(f"{given.size} on {DEVICE}, {threads} threads, {given.prompts} pairs a step, {given.steps} steps")
        against_plain(lora.model_copy(update={"lora_rank": None}), rows, given.steps)
        fit = against_plain(lora, rows, given.steps)
        batches = batches_of(rows, fit, given.steps)
        alone, rates = 0.0, []
        for turn in range(2):
            rates.append(on_ray(lora, run, Path(parent) / f"out-{turn}"))
            alone += sum(timed(ours, fit, batch, number)[0] for number, batch in enumerate(batches))
        here, there = 2 * given.steps / alone, sum(rates) / 2
        print(f"on Ray {there:.3g} steps/s, in this process {here:.3g}: {there / here:.2f} of it")


if __name__ == "__main__":
    main()
