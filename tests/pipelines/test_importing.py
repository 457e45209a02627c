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


def test_a_judge_is_set_against_what_people_preferred(tmp_path: Path) -> None:
    """The built-in judge knows nothing of these pictures: it is the plumbing that is proved, each pair found by ids."""
    rows = [pair(f"prompt {n // 2}", f"x{n}", f"y{n}", (1.0, 0.0)[n % 2]) for n in range(8)]
    folder = pickapic(tmp_path / "theirs", {"test": rows})
    import_dataset("pickapic", str(folder), str(tmp_path / "data"))
    recipe = tmp_path / "judge.yaml"
    recipe.write_text(
        f"name: judged\nimages: {{existing: {tmp_path / 'data'}}}\njudge: {{model: builtin:blocks-llava}}\n"
    )
    command = CliRunner().invoke
    answer = command(app, ["run", str(recipe), "--out", str(tmp_path / "judged")])
    assert answer.exit_code == 0, answer.output
    known = str(tmp_path / "data/preferences.parquet")
    answer = command(app, ["judge", "audit", str(tmp_path / "judged"), "--against", known])
    assert answer.exit_code == 0, answer.output
    figures = json.loads((tmp_path / "judged/audit.json").read_text())
    assert figures["aspects"]["overall"]["pairs"] == 8
