"""Prompts are polished once each, by whatever runs the model, and become the prompts of a run."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from chat_server import Answer, ChatServer, said
from rich.console import Console

from visionprefer import random_models
from visionprefer.errors import InputError
from visionprefer.prompts import read_prompts
from visionprefer.recipe import PolishRecipe, PromptSettings
from visionprefer.shards import Counts
from visionprefer_pipelines import polish as module
from visionprefer_pipelines.polish import polish
from visionprefer_pipelines.progress import Progress

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_ray")]
Start = Callable[[Callable[[int, dict[str, Any]], Answer]], ChatServer]
PROMPTS = 10


@pytest.fixture(autouse=True)
def _small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROMPTS_PER_UNIT", 4)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("".join(f"a picture of thing {i}\n" for i in range(PROMPTS)) + "a picture of thing 0\n")
    return file


def go(prompts: Path, out: Path, retry_failed: bool = False, told: io.StringIO | None = None, **engine: Any) -> Counts:
    recipe = {"name": "p", "prompts": {"path": str(prompts), "near_duplicate": None}, "polish": engine}
    with Progress(Console(file=told or io.StringIO(), width=200)) as progress:
        return polish(PolishRecipe.model_validate(recipe), str(out), progress, retry_failed=retry_failed)


def served(server: ChatServer) -> dict[str, Any]:
    return {"engine": "openai", "model": "writer", "api": {"base_url": server.url}}


def louder(_: int, body: dict[str, Any]) -> Answer:
    """Writes each prompt anew with a colour; thing 3 cannot be mended, and of thing 4 nothing of use is said."""
    asked = body["messages"][0]["content"]
    prompt = asked.split("\n\n")[1]
    if prompt.endswith("4"):
        return said("I would rather not")
    new = "" if prompt.endswith("3") else f"{prompt} in red"
    flags = {"bias": False, "inconsistency": True, "unsafe": not new}
    return said(json.dumps({"rationale": "It lacks a colour.", **flags, "prompt": new}))


def test_every_prompt_is_polished_rejected_or_failed_and_the_file_is_the_next_recipes_prompts(
    prompts: Path, chat_server: Start, tmp_path: Path
) -> None:
    server = chat_server(louder)
    assert go(prompts, tmp_path / "out", **served(server)) == Counts(done=PROMPTS - 1, failed=1, pending=0)
    rejected = pq.read_table(tmp_path / "out" / "rejected_prompts.parquet")["reason"].to_pylist()
    assert [reason.partition(":")[0] for reason in rejected] == ["duplicate", "polished away", "failed"]
    found = read_prompts(PromptSettings(path=str(tmp_path / "out" / "prompts.parquet"), near_duplicate=None), seed=0)
    assert found.kept.num_rows == PROMPTS - 2
    assert all(prompt.endswith("in red") for prompt in found.kept["prompt"].to_pylist())
    asked, told = len(server.asked), io.StringIO()
    go(prompts, tmp_path / "out", told=told, **served(server))
    assert len(server.asked) == asked  # nothing is asked twice
    assert f"{100 * asked:,} tokens read and {50 * asked:,} written\n" in told.getvalue()
    server.answer = lambda n, body: louder(n, json.loads(json.dumps(body).replace("thing 4", "thing 44 ")))
    assert go(prompts, tmp_path / "out", retry_failed=True, **served(server)).failed == 0
    assert len(server.asked) == asked + 1


def test_other_prompts_want_another_folder(prompts: Path, chat_server: Start, tmp_path: Path) -> None:
    server = chat_server(louder)
    go(prompts, tmp_path / "out", **served(server))
    prompts.write_text("a dog\n")
    with pytest.raises(InputError, match="other prompts are polished there"):
        go(prompts, tmp_path / "out", **served(server))


def test_a_folder_in_which_it_was_stopped_while_it_wrote_the_prompts_is_its_own(
    prompts: Path, chat_server: Start, tmp_path: Path
) -> None:
    (tmp_path / "out" / "before").mkdir(parents=True)
    (tmp_path / "out" / "before" / "00000.parquet").write_bytes(b"half")
    assert go(prompts, tmp_path / "out", **served(chat_server(louder))).pending == 0


def test_a_model_of_text_in_transformers_is_held_to_the_schema(prompts: Path, tmp_path: Path) -> None:
    """Random weights say anything: only the grammar makes each reply one of use."""
    writer = random_models.llama(tmp_path / "writer")
    prompts.write_text("a cat\na dog\na bird\n")
    counts = go(prompts, tmp_path / "out", model=str(writer), temperature=1.0, max_new_tokens=1200, batch_size=3)
    assert counts == Counts(done=3, failed=0, pending=0)
    kept = pq.read_table(tmp_path / "out" / "prompts.parquet")
    assert set(kept["before"].to_pylist()) <= {"a cat", "a dog", "a bird"}
