"""PPO against TRL's DDPOTrainer, and against the same loop in one process: images a second end to end, as ratios.

    python tests/benchmarks/ppo.py [--trl .venv-trl] [--rollouts 4] [--images 64] [--turns 3]

The folder is that of TRL 0.23.1 with transformers 4.56.2 and diffusers 0.39.0; it is made if it is not there.

All three draw as many images of `blocks-sd-small` in batches as large and in as many steps, have them scored by a
VP-Score with the built-in backbone, and take as many updates of LoRA weights of rank 4 from as many of those steps.
`visionprefer ppo` and TRL ask the same endpoint, through the same client; the loop in one process calls the model. They
take turns, each beginning anew. A rollout counts from its first image to its last update; the first of each training
does not. On the CPU ours has as many learners of one thread as the others have threads, and as many who draw; TRL and
the one process use the threads together.

2026-11-25, 2 cores of an AMD EPYC on which much else ran, unevenly, one thread each, a single turn of 3 rollouts:
visionprefer ppo 11.2 images/s, TRL 6.64 (a ratio of 1.69), one process 5.81; the rewards of the latter and ours were
the same. In CPU time, which what else ran does not change, 64 images took TRL 5.8 s without their scores and the one
process 5.9 s with them: what is gained is gained by doing things side by side, not by computing less. To be measured
again where nothing else runs.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from visionprefer.align.advantages import Advantages
from visionprefer.align.encoding import encode_empty, encode_prompts
from visionprefer.align.ppo_fit import Experience, PPOFit
from visionprefer.align.ppo_recipe import PPORecipe
from visionprefer.align.rollout import Guided, Rollout, decode, exact, roll_out, sampler
from visionprefer.models import BUILTIN_MODELS, find_model
from visionprefer.prompts.files import BUILTIN_PROMPTS
from visionprefer.reward.vpscore import VPScore
from visionprefer_pipelines.commands import serving
from visionprefer_pipelines.policies import policy_of
from visionprefer_pipelines.ppo import train_ppo
from visionprefer_pipelines.ppo_worker import requests
from visionprefer_pipelines.progress import Progress

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
VERSIONS = ["trl==0.23.1", "transformers==4.56.2", "diffusers==0.39.0", "torch==2.13.*", "peft>=0.18"]
HERE = Path(__file__).parent


def environment(folder: Path) -> Path:
    """The Python of TRL's environment, which is made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *VERSIONS, "-e", HERE.parents[1]], check=True)
    return python


def for_transformers_4(model: Path, folder: Path) -> Path:
    """The same pipeline with tokenizer and text encoder as transformers 4 reads them."""
    shutil.copytree(model, folder)
    encoder = folder / "text_encoder" / "model.safetensors"
    save_file({f"text_model.{name}": weight for name, weight in load_file(encoder).items()}, encoder, {"format": "pt"})
    bpe = json.loads((folder / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in bpe["merges"]]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(bpe["vocab"]), encoding="utf-8")
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return folder


def on_ray(recipe: PPORecipe, url: str, out: Path) -> tuple[float, list[float]]:
    """Images a second of `visionprefer ppo`, and the mean reward of each rollout."""
    with Progress(Console(file=io.StringIO())) as progress:
        train_ppo(recipe, url, out, progress)
    history = json.loads((out / "training.json").read_text(encoding="utf-8"))["history"]
    assert not any(row["failed"] for row in history)
    seconds = history[-1]["seconds"] - history[0]["seconds"]
    return recipe.images * (len(history) - 1) / seconds, [row["reward"] for row in history]


def in_one_process(recipe: PPORecipe, prompts: list[tuple[str, str]], vpscore: Path) -> tuple[float, list[float]]:
    """Images a second of the same loop without Ray and endpoint, and the mean reward of each rollout."""
    exact()
    policy, dtype = policy_of(recipe, find_model(recipe.model, "diffusers"), DEVICE, with_reference=False)
    pipeline, scheduler = policy.pipeline.to(DEVICE), sampler(policy.pipeline, recipe.num_inference_steps)
    fit, advantages = PPOFit(policy, recipe, scheduler, dtype), Advantages(recipe.buffer_size, recipe.min_count)
    model, unet = VPScore.from_pretrained(vpscore, DEVICE.type), pipeline.unet.config
    pixels = unet.sample_size * pipeline.vae_scale_factor
    seconds, means = [], []
    for number in range(recipe.rollouts):
        began, wanted = time.perf_counter(), requests(prompts, recipe, number)
        parts: list[tuple[Rollout, Guided]] = []
        rewards: list[float] = []
        for start in range(0, len(wanted), recipe.rollout_batch_size):
            part = wanted[start : start + recipe.rollout_batch_size]
            texts = [one.prompt for one in part]
            condition = encode_prompts(pipeline, texts, pixels, pixels)
            guided = Guided(condition, encode_empty(pipeline, len(part), pixels, pixels), recipe.guidance_scale)
            generators = [torch.Generator().manual_seed(one.seed) for one in part]
            shape = (unet.in_channels, unet.sample_size, unet.sample_size)
            parts.append((roll_out(policy.predict, scheduler, guided, shape, generators), guided))
            rewards += [one.score for one in model.score(texts, decode(pipeline, parts[-1][0].latents_BTCHW[:, -1]))]
        drawn, guided = parts[0]
        for further, told in parts[1:]:
            drawn, guided = drawn.beside(further), guided.beside(told)
        advantage_B = torch.from_numpy(advantages.of([one.prompt_id for one in wanted], rewards))
        fit.learn(Experience(Rollout._make(part.cpu() for part in drawn), guided, advantage_B), number)
        seconds.append(time.perf_counter() - began)
        means.append(sum(rewards) / len(rewards))
    return recipe.images * (len(seconds) - 1) / sum(seconds[1:]), means


def in_trl(recipe: PPORecipe, python: Path, model: Path, prompts: list[str], url: str) -> float:
    """Images a second of TRL's DDPOTrainer."""
    config = {
        "log_with": None,
        "mixed_precision": "no",
        "allow_tf32": False,
        "save_freq": 1_000_000,
        "sample_num_steps": recipe.num_inference_steps,
        "sample_guidance_scale": recipe.guidance_scale,
        "sample_batch_size": recipe.rollout_batch_size,
        "sample_num_batches_per_epoch": recipe.images // recipe.rollout_batch_size,
        "train_batch_size": recipe.batch_size,
        "train_gradient_accumulation_steps": recipe.images // recipe.updates // recipe.batch_size,
        "train_learning_rate": recipe.learning_rate,
        "train_timestep_fraction": recipe.timestep_fraction,
        "per_prompt_stat_tracking": True,
        "per_prompt_stat_tracking_buffer_size": recipe.buffer_size,
        "per_prompt_stat_tracking_min_count": recipe.min_count,
    }
    asked = {"model": str(model), "prompts": prompts, "endpoint": url, "rollouts": recipe.rollouts, "config": config}
    threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [python, HERE / "trl" / "ddpo.py", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=threads)
    if done.returncode:
        raise RuntimeError(done.stderr)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["updates"] == recipe.rollouts * recipe.updates
    return recipe.images * (recipe.rollouts - 1) / sum(told["seconds"][1:])


def recipe_of(given: argparse.Namespace, prompts: Path) -> PPORecipe:
    """What all three do; who does it is as good as the machine allows."""
    workers = {"actors": given.workers, "num_gpus": 0.4 if torch.cuda.is_available() else 0}
    settings = {
        "model": str(BUILTIN_MODELS / "blocks-sd-small"),
        "prompts": {"path": str(prompts), "near_duplicate": None, "held_out": 0},
        "lora_rank": 4,
        "rollouts": given.rollouts,
        "images": given.images,
        "batch_size": 16,
        "rollout_batch_size": 16,
        "num_inference_steps": 20,
        "timestep_fraction": 0.5,
        "dtype": "float32",
        "watch": None,
        "workers": workers,
        "rollout_workers": workers,
    }
    return PPORecipe.model_validate({"name": "benchmark", **settings})


def main() -> None:
    """Print rates and ratios."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--trl", type=Path, default=Path(".venv-trl"), help="folder of TRL's environment")
    arguments.add_argument("--rollouts", type=int, default=4)
    arguments.add_argument("--images", type=int, default=64, help="of a rollout")
    arguments.add_argument("--turns", type=int, default=3)
    many = 1 if torch.cuda.is_available() else torch.get_num_threads()
    arguments.add_argument("--workers", type=int, default=many, help="learners, and as many who draw")
    given = arguments.parse_args()
    python = environment(given.trl)
    with tempfile.TemporaryDirectory() as temporary:
        parent = Path(temporary)
        words = (BUILTIN_PROMPTS / "blocks-training.txt").read_text(encoding="utf-8").splitlines()[:512]
        (parent / "prompts.txt").write_text("\n".join(words), encoding="utf-8")
        recipe = recipe_of(given, parent / "prompts.txt")
        old = for_transformers_4(Path(recipe.model), parent / "blocks-sd-small")
        VPScore.from_backbone(str(BUILTIN_MODELS / "blocks-blip")).save_pretrained(parent / "vpscore")
        numbered = [(str(number), prompt) for number, prompt in enumerate(words)]
        rates: dict[str, list[float]] = {"TRL": [], "visionprefer ppo": [], "one process": []}
        apart, share = 0.0, ["--num-gpus", "0.2"] if torch.cuda.is_available() else []
        for turn in range(given.turns):
            with serving(parent / "vpscore", *share) as url:
                rates["TRL"].append(in_trl(recipe, python, old, words, url))
                rate, rewards = on_ray(recipe, url, parent / f"out-{turn}")
            rates["visionprefer ppo"].append(rate)
            rate, same = in_one_process(recipe, numbered, parent / "vpscore")
            rates["one process"].append(rate)
            apart = max(apart, *(abs(one - other) for one, other in zip(rewards, same, strict=True)))
            told = "  ".join(f"{name} {found[-1]:.3g} images/s" for name, found in rates.items())
            print(f"turn {turn + 1}: {told}", flush=True)
    mean = {name: sum(found) / len(found) for name, found in rates.items()}
    ours = mean["visionprefer ppo"]
    print(f"{DEVICE}, {torch.get_num_threads()} threads, {given.workers} learners, {given.workers} who draw")
    print(f"visionprefer ppo / TRL {ours / mean['TRL']:.2f}, / one process {ours / mean['one process']:.2f}")
    print(f"the rewards of the latter two are at most {apart:.2g} apart")


if __name__ == "__main__":
    main()
