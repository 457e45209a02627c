"""A judge in vLLM, inside the stream: the replies that transformers gives, second askings, and a dead engine."""

import io
import random
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from visionprefer.blocksworld.scenes import sample
from visionprefer.blocksworld.spoiler import spoil
from visionprefer.blocksworld.wording import word
from visionprefer.recipe import Recipe
from visionprefer.run_folder import RunFolder
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.run import run

pytest.importorskip("vllm", reason="vLLM is not installed in this environment")
pytestmark = pytest.mark.slow


def write_pictures(folder: Path, count: int) -> Path:
    """Spoilt scenes, each captioned with what it should have been."""
    chance = random.Random(0)
    folder.mkdir()
    for i in range(count):
        wish = sample("training", chance)
        spoil(wish, chance).picture.save(folder / f"{i:04}.png")
        (folder / f"{i:04}.txt").write_text(word(wish, chance))
    return folder


def go(pictures: Path, out: Path, **judge: Any) -> tuple[RunFolder, str]:
    asked = {"engine": "vllm", "model": "builtin:blocks-llava", "max_new_tokens": 256, "batch_size": 32} | judge
    if asked["engine"] == "vllm":
        asked["engine_kwargs"] = {"max_model_len": 512}
    recipe = {"name": "trial", "images": {"existing": str(pictures), "block_size": 16}, "judge": asked}
    said = io.StringIO()
    with Progress(Console(file=said, width=200)) as progress:
        return run(Recipe.model_validate(recipe), str(out), progress), said.getvalue()


def scores(folder: RunFolder) -> dict[tuple[str, str], float]:
    return {(row["image_id"], row["scorer"]): row["score"] for row in folder.judgements().to_pylist()}


def test_it_gives_the_scores_that_transformers_gives(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", 64)
    for i in range(17):  # half files: a whole shard, and one more
        (pictures / f"{i:04}.png").write_bytes((pictures / f"{i:04}.png").read_bytes()[:200])
    of_vllm, said = go(pictures, tmp_path / "vllm")
    assert "the judge runs in vLLM, on the CPU" in said
    assert [tuple(counts) for counts in of_vllm.counts().values()] == [(47, 17, 0), (47, 0, 0)]
    assert any(commit.done == 0 for commit in of_vllm.replies.commits.values())
    of_transformers, _ = go(pictures, tmp_path / "transformers", engine="transformers")
    ours, theirs = scores(of_vllm), scores(of_transformers)
    assert ours.keys() == theirs.keys()
    assert sum(ours[key] == theirs[key] for key in ours) >= 0.99 * len(ours)


def test_a_reply_that_is_cut_off_is_asked_for_twice_and_then_a_failed_row(tmp_path: Path) -> None:
    folder, _ = go(write_pictures(tmp_path / "pictures", 20), tmp_path / "out", max_new_tokens=20)
    assert [tuple(counts) for counts in folder.counts().values()] == [(20, 0, 0), (0, 20, 0)]
    failed = folder.replies.failed()
    assert failed is not None
    assert set(failed["asked"].to_pylist()) == {2}
    assert set(failed["completion_tokens"].to_pylist()) == {40}
    assert all("cut off after 20 tokens" in error for error in failed["error"].to_pylist())
    assert len(set(failed["raw"].to_pylist())) > 1


def test_an_engine_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """Killed when the first shard has been judged; Ray starts another, which takes up what was under way."""
    pictures, out = write_pictures(tmp_path / "pictures", 400), tmp_path / "out"
    killed = []

    def kill() -> None:
        while not list(out.glob("replies/*/*.parquet")):
            time.sleep(0.05)
        for process in psutil.Process().children(recursive=True):
            if "EngineCore" in process.name() or "EngineCore" in " ".join(process.cmdline()):
                process.kill()
                killed.append(process.pid)

    assassin = threading.Thread(target=kill, daemon=True)
    assassin.start()
    folder, _ = go(pictures, out)
    assassin.join(timeout=5)
    assert killed
    assert [tuple(counts) for counts in folder.counts().values()] == [(400, 0, 0)] * 2
    asked = folder.replies.table(["image_ids"])["image_ids"].to_pylist()
    assert len({image for images in asked for image in images}) == len(asked) == 400
