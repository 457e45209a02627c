"""An image model learns from the best images of a run on Ray Train, and tells what it kept."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from typer.testing import CliRunner

from visionprefer.align.encoding import encode_images
from visionprefer.run_folder import RunFolder
from visionprefer_pipelines.cli import app

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("one_ray")]
SCORES = {f"prompt {n}": ("train", [[1 + n % 5] * 4, [1] * 4]) for n in range(20)}


def test_the_best_images_are_learnt_from_and_the_others_are_not(
    tiny_sd: Path, make_run: Callable[..., RunFolder], tmp_path: Path
) -> None:
    run, file, out = make_run(SCORES), tmp_path / "recipe.yaml", tmp_path / "out"
    settings = {"steps": 6, "batch_size": 4, "learning_rate": 1e-3, "warm_up": 0, "min_scores": {"fidelity": 4}}
    file.write_text(json.dumps({"name": "best", "model": str(tiny_sd), **settings}))
    asked = ["finetune", str(file), "--data", run.store.root, "--out", str(out)]
    answer = CliRunner().invoke(app, asked)
    assert answer.exit_code == 0, answer.output
    assert "8 training prompts have an image that is good enough" in answer.output
    assert f"The pipeline is in {out}" in answer.output
    record = json.loads((out / "training.json").read_text())
    assert record["trained_on"]["prompts"] == 8
    assert [row["step"] for row in record["history"]] == list(range(1, 7))

    # What was encoded is the first image of each prompt, whose scores are 4 or 5.
    [file] = Path(run.store.root).glob("encoded/*/best-*.parquet")
    encoded = pq.read_table(file).to_pylist()
    best = {row["prompt_id"]: row for row in run.images.table().to_pylist() if row["candidate"] == 0}
    assert {row["prompt_id"] for row in encoded} == {f"p{n}" for n in range(20) if n % 5 >= 3}
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd)
    for row in encoded:
        [latents] = row["latents"]
        picture = Image.open(io.BytesIO(best[row["prompt_id"]]["image"]["bytes"]))
        wanted = encode_images(pipeline, [picture]).numpy().ravel()
        assert np.frombuffer(latents, "<f2") == pytest.approx(wanted, abs=5e-3)
    tuned, base = (StableDiffusionPipeline.from_pretrained(folder).unet.state_dict() for folder in (out, tiny_sd))
    assert any(not torch.equal(tuned[name], base[name]) for name in base)

    answer = CliRunner().invoke(app, [*asked, "--set", "min_scores={fidelity: 6}"])
    assert "no image of a training prompt has the scores that min_scores asks for" in str(answer.exception)
