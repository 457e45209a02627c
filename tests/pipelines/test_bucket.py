"""Runs, trainings and models in a bucket: all that is on a disk elsewhere, on an S3 server here."""

import io
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from diffusers import StableDiffusionPipeline
from PIL import Image
from typer.testing import CliRunner

from visionprefer.errors import InputError
from visionprefer.judging.vllm_engine import engine_arguments
from visionprefer.models import Model, find_model
from visionprefer.recipe import JudgeSettings
from visionprefer.reward.vpscore import VPScore
from visionprefer.run_folder import RunFolder
from visionprefer.settings import Workers
from visionprefer.store import Store
from visionprefer_pipelines.cli import app
from visionprefer_pipelines.cluster import connected

pytestmark = pytest.mark.slow
FEW = ("--set", "prompts.sample=8", "--set", "images.block_size=4")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def say(*arguments: str) -> str:
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    return answer.output


def run_until_there_are_images(there: Store) -> None:
    """Its driver is killed then."""
    command = [sys.executable, "-m", "visionprefer_pipelines.cli", "run", "quickstart", "--out", there.root, *FEW]
    driver = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 180
    while not there.names("images"):
        assert driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    driver.kill()
    driver.communicate()


@pytest.fixture
def ray_with_the_buckets_address(bucket: str) -> Iterator[None]:
    ray.shutdown()  # workers have the environment in which their Ray was started
    with connected(None, {"tests": Workers(actors=3)}):
        yield


@pytest.mark.usefixtures("ray_with_the_buckets_address")
def test_a_run_goes_on_there_and_what_it_teaches_lies_there(bucket: str) -> None:
    """Its driver is killed; then it goes on, and nothing is lost or twice. VP-Score and DPO learn from it into the
    bucket, from where what was learnt is loaded.
    """
    data, there = f"{bucket}/data", Store(f"{bucket}/data")
    run_until_there_are_images(there)
    told = say("run", "quickstart", "--out", data, *FEW)
    run = RunFolder(there)
    pictures = run.images.table(["image_id", "image"]).to_pylist()
    assert run.is_finished
    assert Counter(row["image_id"] for row in pictures) == Counter(run.plan(["image_id"])["image_id"].to_pylist())

    # It ends with the word of the oracle, who knows its world.
    oracle = run.oracle()
    assert oracle is not None
    assert oracle["applicable"].to_pylist() == [True] * len(pictures) == [True] * 32
    assert json.loads(there.read("statistics.json"))["oracle"]["images"] == 32
    assert "fully right" in told
    assert "outside the blocks world" not in told

    short = ("--set", "epochs=1", "--set", "workers.num_cpus=1", "--set", "scores=[overall]")
    say("reward", "train", "blocks-vpscore", "--data", data, "--out", f"{bucket}/vpscore", *short)
    drawn = Image.open(io.BytesIO(pictures[0]["image"]["bytes"]))
    assert VPScore.from_pretrained(f"{bucket}/vpscore").score(["a red circle"], [drawn])[0].score

    short = ("--set", "steps=2", "--set", "batch_size=4", "--set", "workers.num_cpus=1")
    say("dpo", "blocks-dpo", "--data", data, "--out", f"{bucket}/dpo", *short)
    out = Store(f"{bucket}/dpo")
    assert {"README.md", "model_index.json", "training.json", "unet"} <= set(out.names(""))
    assert "checkpoints" not in out.names("")
    assert json.loads(out.read("training.json"))["trained_on"]["method"] == "dpo"
    pipeline = StableDiffusionPipeline.from_pretrained(find_model(out.root, "diffusers").location)
    assert pipeline("a red circle", num_inference_steps=1, output_type="np").images.shape == (1, 64, 64, 3)


def test_engines_of_vllm_say_that_they_load_from_no_bucket() -> None:
    model = Model("s3://bucket/judge", None, None, "digest")
    with pytest.raises(InputError, match=r"model s3://bucket/judge: .* Write one of these, or engine: transformers"):
        engine_arguments(JudgeSettings(model=model.name, engine="vllm"), model)
