"""VP-Score learns from other people's preferences, and its accuracy is counted on those held out."""

import io
import json
from pathlib import Path

import pytest
from published import pair, pickapic
from rich.console import Console
from typer.testing import CliRunner

from visionprefer.importing import import_dataset
from visionprefer.reward.recipe import RewardRecipe
from visionprefer_pipelines.cli import app
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.reward import train_reward

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("one_ray")]


def test_vpscore_is_trained_and_tested_on_an_import(tiny_blip: Path, tmp_path: Path) -> None:
    rows = [pair(f"prompt {n // 2}", f"x{n}", f"y{n}", (1.0, 0.0, 0.5)[n % 3]) for n in range(96)]
    folder = pickapic(tmp_path / "theirs", {"train": rows[:72], "validation": rows[72:84], "test": rows[84:]})
    import_dataset("pickapic", str(folder), str(tmp_path / "data"))
    settings = {"name": "theirs", "backbone": str(tiny_blip), "scores": ["overall"], "validation": 0.25}
    recipe = RewardRecipe.model_validate(settings | {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3})
    with Progress(Console(file=io.StringIO())) as progress:
        train_reward(recipe, str(tmp_path / "data"), tmp_path / "model", progress)
    record = json.loads((tmp_path / "model/training.json").read_text())
    assert len(record["history"]) == 2
    assert record["trained_on"]["run"] == "pickapic"

    command = ["reward", "test", str(tmp_path / "model"), "--data", str(tmp_path / "data"), "--against", "judge"]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 0, answer.output
    assert "48 images" in answer.output
    assert "Pick-a-Pic (threshold" in answer.output
