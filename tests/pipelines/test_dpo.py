"""An image model learns from preferences on Ray Train: alike with one worker and two, and on through a death."""

import io
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from processes import kill
from rich.console import Console
from typer.testing import CliRunner

from visionprefer.align.recipe import DPORecipe
from visionprefer.errors import InputError
from visionprefer.run_folder import RunFolder
from visionprefer_pipelines.cli import app
from visionprefer_pipelines.dpo import train_dpo
from visionprefer_pipelines.progress import Progress

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("one_ray")]
SCORES = {
    f"prompt {n}": ("held_out" if n % 6 == 0 else "train", [[score] * 4 for score in (1, 2, 4, 5)]) for n in range(24)
}


@pytest.fixture
def run(make_run: Callable[..., RunFolder]) -> RunFolder:
    return make_run(SCORES)


def recipe(model: Path, **changes: Any) -> DPORecipe:
    settings = {"lora_rank": 4, "beta": 500, "steps": 20, "batch_size": 8, "learning_rate": 1e-3, "warm_up": 0}
    return DPORecipe.model_validate({"name": "r", "model": str(model), **settings, **changes})


def go(recipe: DPORecipe, run: RunFolder, out: Path) -> tuple[list[dict[str, float]], str]:
    console = Console(file=io.StringIO(), width=200)
    with Progress(console) as progress:
        train_dpo(recipe, run.store.root, out, progress)
    told = console.file.getvalue()  # type: ignore[attr-defined]
    return json.loads((out / "training.json").read_text())["history"], told


def test_one_worker_and_two_that_are_killed_learn_the_same_from_what_was_encoded_once(
    tiny_sd: Path, run: RunFolder, tmp_path: Path
) -> None:
    """In float32 the losses of all steps agree to a thousandth, while the policy moves towards what was preferred."""
    settings = {"ema": 0.9}
    alone, told = go(recipe(tiny_sd, **settings), run, tmp_path / "one")
    assert "encoded 1 of 1 files" in told
    assert "20 training prompts have a pair" in told
    assert alone[0]["loss"] == pytest.approx(np.log(2), abs=1e-3)
    late = {name: np.mean([row[name] for row in alone[-10:]]) for name in alone[0]}
    assert late["loss"] < alone[0]["loss"] - 0.01
    assert late["margin"] > 0

    killed: list[int] = []

    def kill_both() -> None:
        while not (tmp_path / "two" / "checkpoints" / "dpo" / "checkpoint_manager_snapshot.json").exists():
            time.sleep(0.02)  # from then on Ray knows of a checkpoint
        killed.extend(kill("RayTrainWorker"))

    killer = threading.Thread(target=kill_both)
    killer.start()
    shared, told = go(recipe(tiny_sd, **settings, workers={"actors": 2}, accumulation=2), run, tmp_path / "two")
    killer.join()
    assert len(killed) == 2
    assert "latents and text embeddings are there already" in told
    assert "going on at step" in told
    assert [row["step"] for row in shared] == [row["step"] for row in alone] == list(range(1, 21))
    assert [row["seconds"] for row in shared] == sorted({row["seconds"] for row in shared})
    assert [row["loss"] for row in shared] == pytest.approx([row["loss"] for row in alone], abs=1e-3)
    assert not (tmp_path / "one" / "checkpoints").exists()

    # What is kept is what stock diffusers loads, and it draws something else than before.
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd)
    pipeline.set_progress_bar_config(disable=True)

    def draw() -> np.ndarray:
        return pipeline("a", num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np").images

    before = draw()
    pipeline.load_lora_weights(tmp_path / "one")
    assert np.abs(draw() - before).max() > 1e-3

    # Given again, nothing is done; another recipe is not mixed in.
    _, told = go(recipe(tiny_sd, **settings, accumulation=4), run, tmp_path / "one")
    assert "is trained already" in told
    with pytest.raises(InputError, match="another recipe or table was trained there"):
        go(recipe(tiny_sd, **settings, beta=100), run, tmp_path / "one")


def test_all_weights_are_trained_from_the_command_line(tiny_sd: Path, run: RunFolder, tmp_path: Path) -> None:
    file, out = tmp_path / "recipe.yaml", tmp_path / "out"
    settings = {"lora_rank": None, "steps": 2, "gradient_checkpointing": True, "pairs": "best_worst"}
    file.write_text(recipe(tiny_sd, **settings).model_dump_json())
    answer = CliRunner().invoke(app, ["dpo", str(file), "--data", run.store.root, "--out", str(out)])
    assert answer.exit_code == 0, answer.output
    assert f"The pipeline is in {out}" in answer.output
    tuned, base = (StableDiffusionPipeline.from_pretrained(folder).unet.state_dict() for folder in (out, tiny_sd))
    assert any(not torch.equal(tuned[name], base[name]) for name in base)


def test_what_cannot_be_trained_is_told(
    tiny_sd: Path, run: RunFolder, make_run: Callable[..., RunFolder], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"batch_size is 64, and 20 training prompts"):
        go(recipe(tiny_sd, batch_size=64), run, tmp_path / "large")
    with pytest.raises(InputError, match="0 training prompts have a pair of 'beauty'"):
        go(recipe(tiny_sd, aspect="beauty"), run, tmp_path / "beauty")
    with pytest.raises(InputError, match="there is no such folder"):
        go(recipe(tmp_path / "nowhere"), run, tmp_path / "nothing")
    with pytest.raises(InputError, match=r"preferences\.tie_margin is 0\.5"):
        with_ties = make_run(SCORES, preferences={"tie_margin": 0.5})
        go(recipe(tiny_sd, weights={"fidelity": 1}), with_ties, tmp_path / "weights")
