"""VP-Score learns on Ray Train: the same with one worker and with two, and on through a worker's death."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import kill
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from visionprefer.errors import InputError
from visionprefer.reward.recipe import RewardRecipe
from visionprefer.run_folder import RunFolder
from visionprefer_pipelines.cli import app
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.reward import train_reward

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("one_ray")]
# By prompt four images, each better than the one before in all aspects.
SCORES = {
    f"prompt {n}": ("held_out" if n % 6 == 0 else "train", [[score] * 4 for score in (1, 2, 4, 5)]) for n in range(42)
}


@pytest.fixture
def run(make_run: Callable[..., RunFolder]) -> RunFolder:
    return make_run(SCORES)


def recipe(backbone: Path, **changes: Any) -> RewardRecipe:
    settings = {
        "dropout": False,
        "frozen": 0,
        "batch_size": 16,
        "epochs": 5,
        "learning_rate": 3e-3,
        "validation": 0.25,
    }
    return RewardRecipe.model_validate({"name": "r", "backbone": str(backbone), **settings, **changes})


def go(recipe: RewardRecipe, run: RunFolder, out: Path) -> tuple[dict[str, Any], str]:
    console = Console(file=io.StringIO(), width=200)
    with Progress(console) as progress:
        train_reward(recipe, run.store.root, out, progress)
    return json.loads((out / "training.json").read_text()), console.file.getvalue()  # type: ignore[attr-defined]


def test_a_training_that_is_killed_and_stopped_learns_what_an_undisturbed_one_does(
    tiny_blip: Path, run: RunFolder, tmp_path: Path
) -> None:
    """Two workers, of whom both are killed and who are then stopped, against one. At the same global batch, validation
    losses agree to a hundredth after every epoch, while they fall by more.
    """
    alone, told = go(recipe(tiny_blip), run, tmp_path / "one")
    assert "epoch 5: validation loss" in told
    assert alone["history"][-1]["loss"]["overall"] < alone["history"][0]["loss"]["overall"] - 0.05

    shared = recipe(tiny_blip, workers={"actors": 2}, accumulation=2, logger="tensorboard")
    file, out = tmp_path / "recipe.yaml", tmp_path / "two"
    file.write_text(shared.model_dump_json())
    command = [sys.executable, "-m", "visionprefer_pipelines.cli", "reward", "train", str(file)]
    command += ["--data", run.store.root, "--out", str(out)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert process.stdout
    while not (out / "checkpoints" / "vpscore" / "checkpoint_manager_snapshot.json").exists():
        assert process.poll() is None
        time.sleep(0.02)  # from then on Ray knows of a checkpoint
    assert len(kill("RayTrainWorker", below=process.pid)) == 2
    with pytest.raises(InputError, match="another run is writing there"):
        go(shared, run, out)
    assert any("going on at step" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Stopped" in told
    assert not (out / "vpscore.json").exists()

    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "going on at step" in done.stdout
    history = json.loads((out / "training.json").read_text())["history"]
    assert len(alone["history"]) == len(history) == 5
    for one, two in zip(alone["history"], history, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-2)
    # TensorBoard was told the same, each step once.
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    validated = [event.value for event in events.Scalars("validation_loss/overall")]
    assert validated == pytest.approx([epoch["loss"]["overall"] for epoch in history])
    steps = [event.step for event in events.Scalars("loss/overall")]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) % 5 == 0
    assert not (tmp_path / "one" / "tensorboard").exists()
    assert not (tmp_path / "one" / "checkpoints").exists()
    assert "blocks" not in (tmp_path / "one" / "README.md").read_text()

    # Given again, nothing is done; another recipe is not mixed in.
    _, told = go(recipe(tiny_blip), run, tmp_path / "one")
    assert "is trained already" in told
    with pytest.raises(InputError, match="another recipe or table was trained there"):
        go(recipe(tiny_blip, epochs=9), run, tmp_path / "one")

    answer = CliRunner().invoke(app, ["reward", "test", str(tmp_path / "one"), "--data", run.store.root])
    assert answer.exit_code == 0, answer.output
    assert "28 images" in answer.output
    picture = tmp_path / "picture.png"
    picture.write_bytes(next(run.images.tables(["image"]))["image"][0].as_py()["bytes"])
    answer = CliRunner().invoke(app, ["score", "--model", str(tmp_path / "one"), "--prompt", "prompt 1", str(picture)])
    assert answer.exit_code == 0, answer.output
    assert "±" in answer.output


def test_what_cannot_be_trained_is_told(
    tiny_blip: Path, run: RunFolder, make_run: Callable[..., RunFolder], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"workers\.actors is 50, and a step may have no more than \d+ row groups"):
        go(recipe(tiny_blip, workers={"actors": 50}), run, tmp_path / "out")
    with pytest.raises(InputError, match=r"workers\.actors is 8, .* or a larger batch_size"):
        go(recipe(tiny_blip, batch_size=4, workers={"actors": 8}), run, tmp_path / "out")
    with pytest.raises(InputError, match="no pair of 'beauty'"):
        go(recipe(tiny_blip, scores=["overall", "beauty"]), run, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="the folder holds other things"):
        go(recipe(tiny_blip), run, tmp_path / "full")
    with pytest.raises(InputError, match=r"preferences\.pairs is best_worst"):
        best_worst = make_run(SCORES, preferences={"pairs": "best_worst"})
        go(recipe(tiny_blip, weights={"fidelity": 1}), best_worst, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_variants_are_trained_tested_and_set_beside_each_other(tiny_blip: Path, run: RunFolder, tmp_path: Path) -> None:
    """One command; given again, it trains nothing anew."""
    base = tmp_path / "base.yaml"
    base.write_text(recipe(tiny_blip, epochs=2).model_dump_json(exclude={"workers"}))
    ablation = {
        "name": "sizes",
        "base": str(base),
        "variants": {"all": {}, "half": {"data_fraction": 0.5, "weights": {"fidelity": 1}}},
    }
    (tmp_path / "sizes.yaml").write_text(json.dumps(ablation))
    command = ["reward", "ablate", str(tmp_path / "sizes.yaml"), "--data", run.store.root, "--test", run.store.root]
    answer = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert answer.exit_code == 0, answer.output
    found = json.loads((tmp_path / "out" / "ablation.json").read_text())
    prompts = {model["variant"]: model["prompts"] for model in found["models"]}
    assert list(prompts) == ["all", "half"]
    assert prompts["all"] > prompts["half"] > 0
    assert all(0 <= model["right"]["overall"] <= 1 for model in found["models"])
    assert (tmp_path / "out" / "ablation.png").exists()
    again = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert again.output.count("is trained already") == 2
