"""What the endpoint answers when its models are late, unwell or dead, without a cluster."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from ray.exceptions import RayActorError

from visionprefer_serve.app import Endpoint
from visionprefer_serve.settings import EndpointSettings, ServedModel
from visionprefer_serve.wire import Answer

ONE = {"items": [{"prompt": "a cat", "image": base64.b64encode(b"any").decode()}]}


def replicas(score: Callable[..., Awaitable[Any]], health: Callable[..., Awaitable[Any]]) -> SimpleNamespace:
    """A model whose replicas do this. As a handle's responses, a task is awaited and can be cancelled."""

    def remote(work: Callable[..., Awaitable[Any]]) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda *given: asyncio.ensure_future(work(*given)))

    return SimpleNamespace(score=remote(score), check_health=remote(health))


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[TestClient]:
    settings = EndpointSettings(models={"m": ServedModel(path="m")}, timeout_s=0.2)
    of_ours = Endpoint.func_or_class.__bases__[0]  # beneath what Serve makes of it
    endpoint = of_ours(settings.model_dump(mode="json"), [], {"m": replicas(*request.param)})
    here = {"base_url": "http://127.0.0.1", "client": ("127.0.0.1", 50_000)}
    with TestClient(endpoint.__serve_build_asgi_app__(), **here) as client:
        yield client


async def never(*_: Any) -> None:
    await asyncio.sleep(60)


async def well(*items: Any) -> Any:
    return [Answer(model="m", status=200, score=1.0) for _ in items[0]] if items else None


async def dead(*_: Any) -> None:
    raise RayActorError


@pytest.mark.parametrize("client", [(never, well)], indirect=True)
def test_scores_that_are_late_are_told(client: TestClient) -> None:
    answer = client.post("/v1/score", json=ONE)
    assert answer.status_code == 504
    assert answer.json()["detail"] == "no scores within 0.2 s: send fewer items, or ask again later"


@pytest.mark.parametrize(("client", "status"), [((well, well), 200), ((well, dead), 503)], indirect=["client"])
def test_a_model_that_is_unwell_is_told(client: TestClient, status: int) -> None:
    answer = client.get("/healthz")
    assert answer.status_code == status
    if status == 503:
        assert "a model is unwell" in answer.json()["detail"] and int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize("client", [(dead, well)], indirect=True)
def test_items_whose_replicas_died_are_told_one_by_one(client: TestClient) -> None:
    answer = client.post("/v1/score", json=ONE)
    assert answer.status_code == 200
    [item] = answer.json()["items"]
    assert item["score"] is None and "replicas died" in str(item["error"])
