"""The recipe that people try first: on models that come with the package, about a world that these know."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from visionprefer.run_folder import RunFolder
from visionprefer.store import Store

pytestmark = pytest.mark.slow


def test_it_ends_with_the_word_of_the_oracle(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "visionprefer_pipelines.cli", "run", "quickstart", "--out", str(tmp_path / "run")]
    done = subprocess.run([*command, "--set", "prompts.sample=8"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunFolder(Store(tmp_path / "run"))
    oracle = run.oracle()
    assert oracle is not None
    assert oracle["applicable"].to_pylist() == [True] * 32
    assert json.loads(run.store.read("statistics.json"))["oracle"]["images"] == 32
    assert "fully right" in done.stdout
    assert "outside the blocks world" not in done.stdout
