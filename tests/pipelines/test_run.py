"""Runs that are killed and go on: nothing lost, nothing twice, and the bytes of an undisturbed run."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
import yaml
from processes import kill

from visionprefer.run_folder import RunFolder
from visionprefer.store import Store

pytestmark = pytest.mark.slow
PROMPTS = 12


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path, tiny_sdxl: Path, tiny_llava: Path) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "prompts.txt").write_text("\n".join(f"a picture of thing number {i}" for i in range(PROMPTS)))
    settings = {
        "name": "trial",
        "prompts": {"path": "prompts.txt", "near_duplicate": None},
        "images": {
            "models": [
                {"model": str(tiny_sd), "guidance_scale": [1.0, 4.0], "num_inference_steps": 8},
                {"model": str(tiny_sdxl), "num_inference_steps": 8},
            ],
            "images_per_prompt": 3,
            "batch_size": 4,
            "block_size": 4,
        },
        "judge": {"model": str(tiny_llava), "temperature": 1.0, "rationale_length": 20, "max_new_tokens": 300},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def undisturbed(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    finished = wait(start(recipe, out))
    assert f"{PROMPTS * 3} planned = {PROMPTS * 3} done + 0 failed" in finished
    return out


def start(recipe: Path, out: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "visionprefer_pipelines.cli", "run", str(recipe), "--out", str(out), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        # a shell makes what it starts in the background ignore Ctrl-C, and so would this
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait(process: subprocess.Popen, code: int = 0) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == code, output
    return output


def files(out: Path, pattern: str) -> int:
    return len(list(out.glob(pattern)))


def wait_until(process: subprocess.Popen, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not reached():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def assert_complete_and_equal(out: Path, undisturbed: Path) -> None:
    """In = done + failed, no id twice, none missing, images byte-equal."""
    run, expected = RunFolder(Store(out)), RunFolder(Store(undisturbed))
    planned = run.plan(["image_id"])["image_id"].to_pylist()
    assert Counter(run.images.table(["image_id"])["image_id"].to_pylist()) == Counter(planned)
    shown = [ids[0] for ids in run.replies.table(["image_ids"])["image_ids"].to_pylist()]
    assert Counter(shown) == Counter(planned)
    assert all(counts.pending == counts.failed == 0 for counts in run.counts().values())
    assert pictures(run) == pictures(expected)
    assert run.is_finished
    assert sum(run.store.footer(name)[0] for name in run.training_files()) > 0
    assert set(Store(out).names("training")) == {name.removeprefix("training/") for name in run.training_files()}


def pictures(run: RunFolder) -> dict[str, bytes]:
    table: pa.Table = run.images.table(["image_id", "image"])
    return {row["image_id"]: row["image"]["bytes"] for row in table.to_pylist()}


def test_the_driver_is_killed_at_several_moments(recipe: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    moments = {
        "while it plans": lambda: (out / "prompts.parquet").exists(),
        "after the first images": lambda: files(out, "images/*.parquet") >= 2,
        "while it judges": lambda: files(out, "replies/*/*.parquet") >= 3,
        "while it derives": lambda: (out / "judgements.parquet").exists(),
    }
    made_before = 0
    for moment, reached in moments.items():
        process = start(recipe, out)
        wait_until(process, reached)
        process.kill()
        process.wait()
        made = files(out, "images/*.parquet")
        assert made >= made_before, moment
        made_before = made
    output = wait(start(recipe, out))
    assert f"{PROMPTS * 3} of {PROMPTS * 3} images and {PROMPTS * 3} replies are there already" in output
    assert_complete_and_equal(out, undisturbed)
    assert Store(out).read_table("preferences.parquet").equals(Store(undisturbed).read_table("preferences.parquet"))


def test_killed_actors_other_block_sizes_and_more_actors_give_the_same_bytes(
    recipe: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """The run does not even stop: Ray starts other actors, and their units are done again."""
    out = tmp_path / "out"
    process = start(recipe, out, "--set", "images.block_size=6", "--set", "images.workers.actors=2")
    for actor, made in {"MakeImages": "images/*.parquet", "AskAbout": "replies/*/*.parquet"}.items():
        wait_until(process, lambda made=made: files(out, made) >= 2)
        assert kill(actor, below=process.pid)
    wait(process)
    assert_complete_and_equal(out, undisturbed)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_is_stopped_politely_and_no_other_run_writes_into_its_folder(
    recipe: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    out = tmp_path / "out"
    process = start(recipe, out)
    wait_until(process, lambda: (out / "manifest.json").exists())
    assert "another run is writing there" in wait(start(recipe, out), code=2)
    wait_until(process, lambda: files(out, "images/*.parquet") >= 2)
    process.send_signal(stop)
    output = wait(process, code=130)
    assert "Stopped. Everything that was finished is kept" in output
    assert f"visionprefer run {recipe} --out {out}" in output
    assert "Traceback" not in output
    run = RunFolder(Store(out))
    assert run.counts()["images"].done == run.images.table(["image_id"]).num_rows >= 8
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(out) in " ".join(p.info["cmdline"] or [])]


def test_what_a_judge_would_have_said_of_a_damaged_shard_is_never_said(
    recipe: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Its size, its footer and its name are as they were, and another judge is to read it."""
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    shard = out / "images" / "000001.0.parquet"
    data = bytearray(shard.read_bytes())
    place = len(data) // 4
    data[place : place + 16] = bytes(byte ^ 255 for byte in data[place : place + 16])
    shard.write_bytes(data)
    another = ("--set", "judge.rationale_length=19")
    output = wait(start(recipe, out, *another), code=2)
    assert "images/000001.0.parquet changed after it was written. Run again: it is made again" in output
    assert not shard.exists()
    wait(start(recipe, out, *another))
    assert_complete_and_equal(out, undisturbed)
