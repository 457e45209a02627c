"""Images judged together: each prompt is asked about once, or once more in reverse order, and nothing is paid twice."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_server import Answer, ChatServer, said
from PIL import Image
from rich.console import Console

from visionprefer.judging import joint_requests
from visionprefer.recipe import Recipe
from visionprefer.run_folder import RunFolder
from visionprefer.schema import ASPECTS
from visionprefer.statistics import statistics
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.run import run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_ray")]
PROMPTS, EACH = 3, 4
Start = Callable[[Callable[[int, dict[str, Any]], Answer]], ChatServer]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four pictures of each prompt, the redder the better."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(PROMPTS * EACH):
        Image.new("RGB", (8, 8), (i % EACH * 40, 0, 0)).save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(f"a picture of thing {i // EACH}")
    return folder


def go(pictures: Path, out: Path, judge: dict[str, Any], retry_failed: bool = False) -> RunFolder:
    recipe = {
        "name": "joint",
        "images": {"existing": str(pictures), "block_size": 5},
        "judge": {"mode": "joint", "max_new_tokens": 400} | judge,
    }
    with Progress(Console(quiet=True)) as progress:
        return run(Recipe.model_validate(recipe), str(out), progress, retry_failed=retry_failed)


def served(server: ChatServer, **judge: Any) -> dict[str, Any]:
    return {"engine": "openai", "model": "owner/judge", "api": {"base_url": server.url}} | judge


def seen(body: dict[str, Any]) -> list[int]:
    """How red each picture of a request is, from 0, in the order shown."""
    shown = [part["image_url"]["url"] for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    pictures = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in shown]
    return [picture.convert("RGB").getpixel((0, 0))[0] // 40 for picture in pictures]  # type: ignore[index]


def verdict(scores: list[int]) -> str:
    ranks = [1 + sum(other > score for other in scores) for score in scores]
    return json.dumps({aspect: {"rationale": "Seen.", "scores": scores, "ranks": ranks} for aspect in ASPECTS})


def honest(_: int, body: dict[str, Any]) -> Answer:
    return said(verdict([1 + red for red in seen(body)]))


def test_every_prompt_is_asked_about_in_both_orders_and_an_honest_judge_agrees_with_itself(
    pictures: Path, chat_server: Start, tmp_path: Path
) -> None:
    server = chat_server(honest)
    folder = go(pictures, tmp_path / "out", served(server, swapped=1))
    assert [tuple(counts) for counts in folder.counts().values()] == [(12, 0, 0), (2 * PROMPTS, 0, 0)]
    shown = {tuple(seen(body)) for body in server.asked}
    assert all(sorted(order) == [0, 1, 2, 3] and order[::-1] in shown for order in shown)
    assert len(shown) > 2  # which stands first is drawn by lot
    pairs = folder.preferences().to_pylist()
    assert len(pairs) == PROMPTS * 6 * 5
    assert all(pair["label"] == 0 for pair in pairs)  # the later candidate is redder
    figures = statistics(folder)
    assert {(of.pairs, of.same, of.opposed) for of in figures.self_consistency} == {(PROMPTS * 6, 1.0, 0.0)}
    assert all(0.3 < place.win_rate < 0.7 for place in figures.positions)
    go(pictures, tmp_path / "out", served(server, swapped=1))
    assert len(server.asked) == 2 * PROMPTS  # nothing is asked twice


def test_what_a_judge_gives_to_places_is_a_tie_and_is_told(pictures: Path, chat_server: Start, tmp_path: Path) -> None:
    server = chat_server(lambda _, body: said(verdict([5, 4, 3, 2])))
    folder = go(pictures, tmp_path / "out", served(server, swapped=1))
    assert set(folder.preferences()["label"].to_pylist()) == {0.5}
    figures = statistics(folder)
    assert {(of.same, of.opposed) for of in figures.self_consistency} == {(0.0, 1.0)}
    assert [place.win_rate for place in figures.positions] == pytest.approx([1, 2 / 3, 1 / 3, 0])


def test_an_image_that_was_made_after_all_is_judged_with_its_prompt_and_no_other_is_asked_about(
    pictures: Path, chat_server: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint_requests, "PROMPTS_PER_UNIT", 1)
    whole = (pictures / "05.png").read_bytes()
    (pictures / "05.png").write_bytes(whole[:-20] + bytes(20))
    server = chat_server(honest)
    folder = go(pictures, tmp_path / "out", served(server))
    assert [tuple(counts) for counts in folder.counts().values()] == [(11, 1, 0), (PROMPTS, 0, 0)]
    (pictures / "05.png").write_bytes(whole)
    folder = go(pictures, tmp_path / "out", served(server), retry_failed=True)
    assert [tuple(counts) for counts in folder.counts().values()] == [(12, 0, 0), (PROMPTS, 0, 0)]
    assert len(server.asked) == PROMPTS + 1
    assert folder.preferences().num_rows == PROMPTS * 6 * 5


def test_a_reply_that_cannot_be_used_is_asked_for_again_and_then_fails_with_its_reason(
    pictures: Path, chat_server: Start, tmp_path: Path
) -> None:
    server = chat_server(lambda n, body: said(verdict([3, 3, 3])) if n < 2 * PROMPTS else honest(n, body))
    folder = go(pictures, tmp_path / "out", served(server))
    assert tuple(folder.counts()["replies"]) == (0, PROMPTS, 0)
    assert set(folder.replies.failed()["error"].to_pylist()) == {"the reply scores 3 images, and 4 were shown"}
    folder = go(pictures, tmp_path / "out", served(server), retry_failed=True)
    assert tuple(folder.counts()["replies"]) == (PROMPTS, 0, 0)


def test_transformers_is_held_to_the_schema_of_joint_replies(tiny_llava: Path, pictures: Path, tmp_path: Path) -> None:
    """Random weights say anything: only the grammar makes each reply a verdict on just so many images."""
    judge = {"model": str(tiny_llava), "rationale_length": 10, "swapped": 0.5, "temperature": 1.0, "batch_size": 2}
    folder = go(pictures, tmp_path / "out", judge)
    images, replies = folder.counts().values()
    assert (images.done, replies.failed, replies.pending) == (12, 0, 0)
    assert PROMPTS <= replies.done <= 2 * PROMPTS
    assert folder.judgements().num_rows == replies.done * EACH * len(ASPECTS)
