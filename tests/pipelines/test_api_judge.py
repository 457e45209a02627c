"""A judge behind an API: what it costs is written down, the budget stops the run, and nothing is paid for twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from chat_server import Answer, ChatServer, problem, said
from PIL import Image
from rich.console import Console

from visionprefer.errors import InputError
from visionprefer.recipe import Recipe
from visionprefer.run_folder import RunFolder
from visionprefer.statistics import statistics
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.run import run

pytestmark = pytest.mark.slow
KEY = "sk-secret-0123456789"
IMAGES = 12
Start = Callable[[Callable[[int, dict[str, Any]], Answer]], ChatServer]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(IMAGES):
        Image.new("RGB", (8, 8), (i * 20, 0, 0)).save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(f"a picture of thing {i // 4}")
    return folder


def go(pictures: Path, server: ChatServer, out: Path, retry_failed: bool = False, **api: Any) -> RunFolder:
    judge = {"engine": "openai", "model": "owner/judge", "max_new_tokens": 100}
    recipe = {
        "name": "trial",
        "images": {"existing": str(pictures), "block_size": 4},
        "judge": judge | {"api": {"base_url": server.url, "image_tokens": 0} | api},
    }
    with Progress(Console(quiet=True)) as progress:
        return run(Recipe.model_validate(recipe), str(out), progress, retry_failed=retry_failed)


def test_replies_cost_and_the_key_is_nowhere(
    pictures: Path, chat_server: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.shutdown()  # workers have the keys that were in the environment when their Ray was started
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = chat_server(lambda n, body: problem(503) if n % 5 == 0 else said(wait=0.5))
    folder = go(pictures, server, tmp_path / "out", price={"prompt": 1, "completion": 2}, concurrency=6)
    assert [tuple(counts) for counts in folder.counts().values()] == [(IMAGES, 0, 0)] * 2
    assert statistics(folder).replies.cost == pytest.approx(IMAGES * 200 / 1e6)
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert 4 < server.most_in_flight <= 6  # more than one shard has
    written = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert not any(KEY.encode() in file.read_bytes() for file in written)


@pytest.mark.usefixtures("one_ray")
def test_the_budget_stops_the_run_and_a_larger_one_takes_it_up(
    pictures: Path, chat_server: Start, tmp_path: Path
) -> None:
    server = chat_server(lambda n, body: said())
    price = {"prompt": 0, "completion": 1e6}  # each reply costs 50, and may cost 100
    with pytest.raises(InputError, match=r"api\.budget is 330.*Raise the budget"):
        go(pictures, server, tmp_path / "out", price=price, budget=330)
    paid = len(server.asked)
    assert 1 <= paid <= 6
    folder = go(pictures, server, tmp_path / "out", retry_failed=True, price=price, budget=10_000)
    assert [tuple(counts) for counts in folder.counts().values()] == [(IMAGES, 0, 0)] * 2
    assert len(server.asked) == IMAGES
    assert statistics(folder).replies.cost == IMAGES * 50
