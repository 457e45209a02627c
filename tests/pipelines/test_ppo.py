"""An image model learns from what a real endpoint says of its images; what fails has no part in it."""

import io
import json
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from typer.testing import CliRunner

from visionprefer.align.ppo_recipe import PPORecipe
from visionprefer.align.rollout import sampler
from visionprefer.align.watch import Spread
from visionprefer.errors import InputError
from visionprefer.models import find_model
from visionprefer_pipelines import ppo
from visionprefer_pipelines.cli import app
from visionprefer_pipelines.ppo_worker import has_fallen, requests
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.rollouts import RolloutWorker
from visionprefer_pipelines.training_worker import Course
from visionprefer_serve.settings import EndpointSettings, ServedModel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("one_ray")]
LORA = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def url(start: Callable[..., Any], vpscores: dict[str, Path]) -> str:
    models = {name: ServedModel(path=str(folder)) for name, folder in vpscores.items()}
    running: str = start(EndpointSettings(models=models)).url
    return running


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(f"a picture of thing {number}" for number in range(12)))
    return file


def recipe(model: Path, prompts: Path, **changes: Any) -> PPORecipe:
    settings = {
        "prompts": {"path": str(prompts), "near_duplicate": None, "held_out": 0.5},
        "watch": {"every": 2, "images": 3},
        "rewards": [{"model": "blip"}, {"model": "clip", "score": "fidelity", "weight": 0.5}],
        "rollouts": 3,
        "images": 8,
        "images_per_prompt": 2,
        "rollout_batch_size": 4,
        "num_inference_steps": 3,
        "kl_weight": 1e-3,
        "value_learning_rate": 1e-4,
        "retry_for": 0.5,
    }
    return PPORecipe.model_validate({"name": "r", "model": str(model), **settings, **changes})


def go(recipe: PPORecipe, url: str, out: Path) -> tuple[dict[str, Any], str]:
    console = Console(file=io.StringIO(), width=300)
    with Progress(console) as progress:
        ppo.train_ppo(recipe, url, out, progress)
    return json.loads((out / "training.json").read_text()), console.file.getvalue()  # type: ignore[attr-defined]


def has_learnt(folder: Path) -> bool:
    """Whether LoRA's second matrices, which begin at 0, are something else now."""
    return any(
        weight.any() for name, weight in load_file(folder / LORA).items() if "lora.up" in name or "lora_B" in name
    )


def test_one_worker_and_two_learn_the_same_from_the_endpoint(
    tiny_sd: Path, prompts: Path, url: str, tmp_path: Path
) -> None:
    """Two learners and two actors that draw: the same images, rewards and advantages."""
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe(tiny_sd, prompts).model_dump_json())
    command = ["ppo", str(file), "--endpoint", url, "--out", str(tmp_path / "one")]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 0, answer.output
    assert "rollout 3 of 3: reward" in answer.output
    assert "The LoRA weights for tiny-sd are in" in answer.output
    assert "is trained already" in CliRunner().invoke(app, command).output
    history = json.loads((tmp_path / "one" / "training.json").read_text())["history"]
    assert [row["failed"] for row in history] == [0, 0, 0]
    assert set(history[0]["rewards"]) == {"blip: overall", "clip: fidelity"}
    weighed = history[0]["rewards"]["blip: overall"] + 0.5 * history[0]["rewards"]["clip: fidelity"]
    assert history[0]["reward"] == pytest.approx(weighed)
    assert all(row["gap"] < 1e-4 and row["value_error"] > 0 for row in history)
    assert 0 < history[0]["seconds"] < history[1]["seconds"] < history[2]["seconds"]

    # Other scores are watched, on held-out prompts, before the first rollout, after two and at the end.
    others = {"blip: prompt_following", "clip: overall"}
    assert others <= set(history[0]["watched"]) and not {"blip: overall", "clip: fidelity"} & set(history[0]["watched"])
    assert history[1]["watched"] is None and history[2]["watched"] and history[2]["watched_after"]
    assert history[0]["watched"] != history[2]["watched_after"]
    assert "after 2 rollouts, on held-out prompts: " in answer.output
    grids = sorted(path.name for path in (tmp_path / "one" / "grids").iterdir())
    assert grids == ["after-0000.png", "after-0002.png", "after-0003.png"]
    assert Image.open(tmp_path / "one" / "grids" / grids[0]).size == (8 * 64, 64)
    assert Image.open(tmp_path / "one" / "rewards.png").width > 400

    two = {"workers": {"actors": 2}, "rollout_workers": {"actors": 2}, "updates": 2}
    shared, _ = go(recipe(tiny_sd, prompts, **two), url, tmp_path / "two")
    assert [row["reward"] for row in shared["history"]] == pytest.approx([row["reward"] for row in history], abs=0.02)

    # What is kept is what stock diffusers loads, and a model in recipes.
    StableDiffusionPipeline.from_pretrained(tiny_sd).load_lora_weights(tmp_path / "one")
    assert has_learnt(tmp_path / "one")
    assert find_model(str(tmp_path / "one"), "diffusers").base == find_model(str(tiny_sd), "diffusers")
    assert "PPO (as DDPO, arXiv 2305.13301)" in (tmp_path / "one" / "README.md").read_text()


def test_a_step_sees_many_prompts(tiny_sd: Path, prompts: Path) -> None:
    """Images of a prompt do not stand side by side, and are asked for alike again."""
    asked = recipe(tiny_sd, prompts, images=64, images_per_prompt=8)
    texts = [(str(number), f"thing {number}") for number in range(20)]
    wanted = requests(texts, asked, 3)
    assert wanted == requests(texts, asked, 3) != requests(texts, asked, 4)
    assert sorted(Counter(one.prompt_id for one in wanted).values()) == [8] * 8
    assert len({one.seed for one in wanted}) == 64
    assert len({one.prompt_id for one in wanted[:16]}) > 4


def test_a_training_stops_when_another_score_falls(tiny_sd: Path, prompts: Path) -> None:
    asked = recipe(tiny_sd, prompts, watch={"stop_drop": 0.5})
    course = Course(None, 3)
    course.history = [{"watched": {"fidelity": [2.0, 1.0]}}, {"watched": None}]
    assert not has_fallen(course, {"fidelity": Spread(1.6, 1.0)}, asked)
    assert has_fallen(course, {"fidelity": Spread(1.4, 1.0)}, asked)
    assert course.history[-1]["watched_after"] == {"fidelity": [1.4, 1.0]}
    assert not has_fallen(course, {"fidelity": Spread(1.4, 1.0)}, recipe(tiny_sd, prompts))


def test_an_endpoint_that_dies_leaves_rewards_missing(tiny_sd: Path, prompts: Path, url: str) -> None:
    asked = recipe(tiny_sd, prompts, rewards=[{}])
    wanted = requests([("p", "a thing"), ("q", "a thing more")] * 4, asked, 0)
    worker = RolloutWorker(asked, find_model(str(tiny_sd), "diffusers"), url)
    weights = [torch.zeros_like(weight) for weight in worker.policy.learnt]
    assert all(one.error is None for one in worker.draw(0, weights, wanted).values)
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    lost = RolloutWorker(asked, find_model(str(tiny_sd), "diffusers"), nobody).draw(1, weights, wanted)
    assert lost.version == 1
    assert [one.rewards for one in lost.values] == [None] * 8
    assert all("did not answer" in str(one.error) for one in lost.values)


def test_images_that_are_learnt_from_themselves_bring_no_chains(tiny_sd: Path, prompts: Path, url: str) -> None:
    """They are what the pipeline draws; and what was looked at with other weights leaves none behind."""
    asked = recipe(tiny_sd, prompts, objective="awm", value_learning_rate=None, rewards=[{}])
    wanted = requests([("p", "a thing"), ("q", "a thing more")] * 4, asked, 0)
    worker = RolloutWorker(asked, find_model(str(tiny_sd), "diffusers"), url)
    weights = worker.policy.learnt_state()
    drawn = worker.draw(0, weights, wanted)
    assert drawn.rollout.latents_BTCHW.shape == (8, 1, 4, 8, 8)
    worker.look(0, [weight + 1 for weight in weights], wanted[:2], [])
    assert torch.equal(worker.draw(0, weights, wanted).rollout.latents_BTCHW, drawn.rollout.latents_BTCHW)
    generators = [torch.Generator().manual_seed(one.seed) for one in wanted[:2]]
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd)
    pipeline.scheduler = sampler(pipeline, 3)
    settings = {"num_inference_steps": 3, "guidance_scale": asked.guidance_scale, "height": 64, "width": 64}
    known = pipeline([one.prompt for one in wanted[:2]], generator=generators, output_type="latent", **settings).images
    assert torch.allclose(drawn.rollout.latents_BTCHW[:2, -1], known, atol=1e-3)


def test_what_cannot_be_trained_is_told(
    tiny_sd: Path, prompts: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"the endpoint has no model 'vqa'\. Write one of .*'blip', 'clip'"):
        go(recipe(tiny_sd, prompts, rewards=[{"model": "vqa"}]), url, tmp_path / "out")
    with pytest.raises(InputError, match=r"'blip' gives no score 'beauty'\. Write one of .*'fidelity'"):
        go(recipe(tiny_sd, prompts, rewards=[{"model": "blip", "score": "beauty"}]), url, tmp_path / "out")
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(ppo, "SECONDS_TO_START", 1.5)
    with pytest.raises(InputError, match=r"(?s)did not answer within 1\.5 seconds \(ConnectError.*visionprefer serve"):
        go(recipe(tiny_sd, prompts), nobody, tmp_path / "out")
