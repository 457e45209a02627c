"""The recipe that people try first: on models that come with the package, about a world that these know."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import visionprefer_pipelines
from visionprefer.blocksworld.scenes import split_of
from visionprefer.blocksworld.wording import understand
from visionprefer.run_folder import RunFolder
from visionprefer.store import Store

PROMPTS = Path(visionprefer_pipelines.__file__).parent / "recipes" / "quickstart-prompts.txt"


def test_no_model_was_trained_on_what_the_prompts_put_together() -> None:
    prompts = PROMPTS.read_text().splitlines()
    descriptions = [description for description in map(understand, prompts) if description]
    assert len(prompts) == len(descriptions) == len(set(descriptions)) == 256
    assert {split_of(description) for description in descriptions} == {"held-out"}
    assert {description.objects for description in descriptions} == {2, 3}


@pytest.mark.slow
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
