"""The endpoint when there is too much to do, when a replica dies, and when it is told to stop."""

import asyncio
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from endpoints import Running
from PIL import Image
from processes import kill

from visionprefer.reward.vpscore import VPScore
from visionprefer_serve import wire
from visionprefer_serve.client import AsyncRewardClient, RewardClient
from visionprefer_serve.settings import EndpointSettings, ServedModel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
HEADERS = {"Content-Type": wire.ARROW}


def file(number: int) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (32, 32), (number * 37 % 256, number * 91 % 256, number * 53 % 256)).save(written, "PNG")
    return written.getvalue()


def one(number: int) -> bytes:
    return wire.write_arrow(wire.Request([wire.Item(f"picture {number}", file(number))]))


@pytest.fixture(scope="module")
def narrow(start: Callable[..., Running], vpscores: dict[str, Path]) -> Running:
    """One that takes an image at a time, and lets one wait."""
    model = ServedModel(path=str(vpscores["blip"]), max_batch_size=1, max_queued_requests=1)
    return start(EndpointSettings(models={"blip": model}, max_items=1))


async def at_once(url: str, count: int) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits, headers=HEADERS) as http:
        return await asyncio.gather(*(http.post("/v1/score", content=one(number)) for number in range(count)))


def test_more_than_may_wait_are_told_when_to_ask_again(narrow: Running) -> None:
    responses = asyncio.run(at_once(narrow.url, 60))
    counts = Counter(response.status_code for response in responses)
    assert set(counts) == {200, 429}
    assert all(response.headers["retry-after"] == "1" for response in responses if response.status_code == 429)


def test_a_client_asks_again_until_all_are_scored(narrow: Running) -> None:
    async def ask() -> list[wire.Answer]:
        async with AsyncRewardClient(narrow.url, concurrency=20, batch_size=1) as client:
            return await client.score([f"picture {n}" for n in range(60)], [file(n) for n in range(60)])

    assert [answer.error for answer in asyncio.run(ask())] == [None] * 60


def test_without_tokens_another_host_is_refused(narrow: Running) -> None:
    """A page from elsewhere that names this machine's address its own (DNS rebinding)."""
    for host, status in {"rewards.example": 400, "localhost": 200, "127.0.0.1": 200}.items():
        assert httpx.get(f"{narrow.url}/readyz", headers={"Host": host}).status_code == status


def test_a_replica_that_is_killed_gives_no_wrong_score_and_who_is_told_to_stop_answers_what_was_asked(
    start: Callable[..., Running], vpscores: dict[str, Path]
) -> None:
    """Under load: each request ends with the right score or an error, and soon all have scores again."""
    running = start(EndpointSettings(models={"blip": ServedModel(path=str(vpscores["blip"]), max_batch_size=4)}))
    prompts, images = [f"picture {n}" for n in range(400)], [file(n) for n in range(400)]
    model = VPScore.from_pretrained(vpscores["blip"])
    expected = [found.score for found in model.score(prompts, [Image.open(io.BytesIO(image)) for image in images])]

    async def ask() -> list[wire.Answer]:
        async with AsyncRewardClient(running.url, concurrency=8, retry_for=90) as client:
            parts = [slice(start, start + 4) for start in range(0, 400, 4)]
            asked = [asyncio.create_task(client.score(prompts[part], images[part])) for part in parts]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            assert len(kill("model-blip", below=running.process.pid)) == 1
            assert sum(not task.done() for task in asked) > 50  # most are still to be answered
            return [answer for part in await asyncio.gather(*asked) for answer in part]

    answers = asyncio.run(ask())
    for answer, score in zip(answers, expected, strict=True):
        assert answer.error if answer.score is None else answer.score == pytest.approx(score, abs=1e-4)
    assert sum(answer.score is not None for answer in answers) >= 390
    with RewardClient(running.url) as client:
        again = client.score(prompts[:20], images[:20])
    assert [answer.score for answer in again] == pytest.approx(expected[:20], abs=1e-4)

    async def ask_and_stop() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=running.url, timeout=60, headers=HEADERS) as http:
            asked = [asyncio.create_task(http.post("/v1/score", content=one(number))) for number in range(100)]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            running.process.terminate()
            return await asyncio.gather(*asked)

    responses = asyncio.run(ask_and_stop())
    counts = Counter(response.status_code for response in responses)
    assert counts[200] > 0
    assert set(counts) <= {200, 503}
    assert all("stopping" in response.text for response in responses if response.status_code == 503)
    assert running.process.wait(60) == 0
    assert "stopped\n" in running.printed
