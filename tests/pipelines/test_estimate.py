"""What a run will take is reckoned from real rows of it, and compared with what it took."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_server import Answer, ChatServer, said
from PIL import Image
from run_by_hand import build_run

from visionprefer.errors import InputError
from visionprefer.recipe import Recipe
from visionprefer.schema import ASPECTS
from visionprefer.settings import Workers
from visionprefer_pipelines import cli
from visionprefer_pipelines.estimate import FILE, Estimate, _hours, estimate

Start = Callable[[Callable[[int, dict[str, Any]], Answer]], ChatServer]
IMAGES = 40
WAIT = 0.2  # seconds until the server answers


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(IMAGES):
        Image.new("RGB", (8, 8), (i * 6, 0, 0)).save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(f"thing {i}")
    return folder


def asked_of_a_server(pictures: Path, server: ChatServer, **api: Any) -> Recipe:
    api = {"base_url": server.url, "image_tokens": 0, "price": {"prompt": 10, "completion": 20}} | api
    return Recipe.model_validate(
        {
            "name": "trial",
            "images": {"existing": str(pictures), "block_size": 4},
            "judge": {"engine": "openai", "model": "m", "max_new_tokens": 100, "api": api},
        }
    )


def of_models(folder: Path, models: list[Path], judge: Path, **images: Any) -> Recipe:
    (folder / "prompts.txt").write_text("".join(f"a picture of thing {number}\n" for number in range(9)))
    return Recipe.model_validate(
        {
            "name": "trial",
            "prompts": {"path": str(folder / "prompts.txt"), "near_duplicate": None},
            "images": {
                "models": [{"model": str(model), "num_inference_steps": 2} for model in models],
                "images_per_prompt": 2,
                "batch_size": 2,
                **images,
            },
            "judge": {"model": str(judge), "rationale_length": 10, "max_new_tokens": 200},
        }
    )


def test_tokens_money_and_hours_of_a_server(pictures: Path, chat_server: Start) -> None:
    """100 and 50 tokens an image; four requests at a time that take a fifth of a second."""
    server = chat_server(lambda *_: said(wait=WAIT))
    found = estimate(asked_of_a_server(pictures, server, concurrency=4), 12, lambda _: None)
    assert (found.replies.rows, found.replies.sampled, found.replies.failed) == (IMAGES, 12, 0)
    assert found.prompt_tokens.model_dump() == {"expected": 4000, "low": 4000, "high": 4000}
    assert found.completion_tokens.expected == 2000
    assert found.cost is not None
    assert found.cost.expected == pytest.approx(IMAGES * (100 * 10 + 50 * 20) / 1e6)
    least = IMAGES / 4 * WAIT / 3600
    assert least <= found.replies.hours.expected < 5 * least  # this machine may be busy
    assert found.replies.hours.low <= found.replies.hours.expected <= found.replies.hours.high  # type: ignore[operator]


def test_in_joint_mode_requests_are_of_all_images_of_a_prompt_and_some_are_made_twice(
    pictures: Path, chat_server: Start
) -> None:
    for i in range(IMAGES):
        (pictures / f"{i:02}.txt").write_text(f"thing {i // 4}")

    def scored(_: int, body: dict[str, Any]) -> Answer:
        ones = [1 for part in body["messages"][0]["content"] if part["type"] == "image_url"]
        of_aspect = {"rationale": "Seen.", "scores": ones, "ranks": ones}
        return said(json.dumps(dict.fromkeys(ASPECTS, of_aspect)))

    recipe = asked_of_a_server(pictures, chat_server(scored))
    joint = recipe.judge.model_copy(update={"mode": "joint", "swapped": 0.5})
    found = estimate(recipe.model_copy(update={"judge": joint}), 12, lambda _: None)
    assert (found.replies.rows, found.replies.sampled, found.replies.failed) == (IMAGES // 4 * 1.5, 3, 0)
    assert found.prompt_tokens.expected == IMAGES // 4 * 1.5 * 100


def test_limits_a_minute_bound_the_hours(pictures: Path, chat_server: Start) -> None:
    """Each reply takes 100 tokens to ask and 50 to answer."""
    server = chat_server(lambda *_: said())
    recipe = asked_of_a_server(pictures, server, concurrency=32, requests_per_minute=600)
    assert estimate(recipe, 8, lambda _: None).replies.hours.expected >= IMAGES / 600 / 60
    recipe = asked_of_a_server(pictures, server, concurrency=32, image_tokens=100, tokens_per_minute=60_000)
    assert estimate(recipe, 8, lambda _: None).replies.hours.expected >= IMAGES * 150 / 60_000 / 60


def test_rows_of_every_model_are_done_as_the_run_would(
    tmp_path: Path, tiny_sd: Path, tiny_sdxl: Path, tiny_llava: Path
) -> None:
    said: list[str] = []
    found = estimate(of_models(tmp_path, [tiny_sd, tiny_sdxl], tiny_llava), 4, said.append)
    assert (found.images.rows, found.images.failed, found.replies.rows) == (18, 0, 18)
    assert 4 <= found.images.sampled < 18
    assert found.images.hours.expected > 0
    assert found.replies.hours.expected > 0
    assert found.prompt_tokens.expected > 18
    assert found.cost is None
    assert any("of 18 images" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("actors", "batches", "hours"),
    [(1, 36, 0.1), ((1, 4), 36, 0.025), (8, 2, 10 / 3600)],  # as many as there are batches, and no more, work
)
def test_actors_share_the_work(actors: int | tuple[int, int], batches: int, hours: float) -> None:
    found = _hours([9.0, 11.0], batches, Workers(actors=actors))
    assert found.expected == pytest.approx(hours)
    assert found.low == 0.0  # of two values the interval is wide, and no time is negative
    assert found.high == pytest.approx(hours * (1 + 1.27), rel=0.01)  # Student's t for one degree of freedom is 12.7


def test_one_value_tells_no_spread() -> None:
    assert _hours([10.0], 360, Workers()).model_dump() == {"expected": pytest.approx(1.0), "low": None, "high": None}


def test_where_no_image_can_be_made_there_is_nothing_to_reckon_from(
    tmp_path: Path, tiny_sd_with_safety_checker: Path, tiny_llava: Path
) -> None:
    with pytest.raises(InputError, match=r"none of the \d+ sampled could be made"):
        estimate(of_models(tmp_path, [tiny_sd_with_safety_checker], tiny_llava), 2, lambda _: None)


def test_the_command_prints_it_and_show_compares(
    pictures: Path,
    chat_server: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["visionprefer", *arguments])
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        written = capsys.readouterr()
        assert ended.value.code in (None, 0), written.err
        return written.out

    recipe = asked_of_a_server(pictures, chat_server(lambda *_: said()))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True)))
    out = command("estimate", str(tmp_path / "recipe.yaml"), "--rows", "8", "--out", str(tmp_path / "run"))
    assert "replies     40, from 12\n" in out  # three batches are made for a spread
    assert "hours of judging" in out
    assert "visionprefer show" in out
    kept = Estimate.model_validate_json((tmp_path / "run" / FILE).read_text())
    assert kept.prompt_tokens.expected == 4000

    run = build_run(tmp_path / "other", {"a red circle": ("train", [[5, 4, 4, 5], [3, 3, 3, 3]])})
    assert "Estimate and truth" not in command("show", run.store.root)
    run.store.write(FILE, kept.model_dump_json().encode())
    shown = command("show", run.store.root)
    assert "Estimate and truth" in shown
    [tokens] = [line for line in shown.splitlines() if "tokens read" in line and "4,000" in line]
    assert tokens.split("│")[4].strip() == "200"  # of two replies
