"""The endpoint on real Ray Serve: what it scores, what it refuses, and what survives of a bad request."""

import asyncio
import base64
import io
import json
import re
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from endpoints import OTHER_TOKEN, TOKEN, Running
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis import GenerationMode

import visionprefer_pipelines
from visionprefer.reward.vpscore import VPScore
from visionprefer_serve import wire
from visionprefer_serve.client import AsyncRewardClient, RewardClient, RewardError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
COLOURS = ["red", "green", "blue", "white", "black", "orange", "purple"]


def file(
    colour: Any = "red", size: tuple[int, int] = (40, 30), mode: str = "RGB", kind: str = "PNG", **more: Any
) -> bytes:
    written = io.BytesIO()
    Image.new(mode, size, colour).save(written, kind, **more)
    return written.getvalue()


def in_json(*items: tuple[str, bytes], **more: Any) -> dict[str, Any]:
    listed = [{"prompt": prompt, "image": base64.b64encode(image).decode()} for prompt, image in items]
    return {"items": listed, **more}


@pytest.fixture(scope="module")
def http(endpoint: Running) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=endpoint.url, headers=headers, timeout=60) as client:
        yield client


def test_scores_are_the_models_own_in_order_by_any_way(
    endpoint: Running, http: httpx.Client, vpscores: dict[str, Path]
) -> None:
    """In Arrow, sync and async, and in JSON; more items than a batch; two models side by side, chosen by name."""
    images = [file(COLOURS[n % len(COLOURS)], (20 + n, 30)) for n in range(70)]
    prompts = [f"picture {n}" for n in range(70)]
    opened = [Image.open(io.BytesIO(image)) for image in images]
    for name, folder in vpscores.items():
        model = VPScore.from_pretrained(folder)
        expected = model.score(prompts, opened)
        with RewardClient(endpoint.url, TOKEN, model=name) as client:
            answers = client.score(prompts, images)

        async def ask(name: str = name) -> list[wire.Answer]:
            async with AsyncRewardClient(endpoint.url, OTHER_TOKEN, model=name, batch_size=9) as client:
                return await client.score(prompts, images)

        listed = http.post("/v1/score", json=in_json(*zip(prompts, images, strict=True), model=name)).json()["items"]
        for found in (answers, asyncio.run(ask()), [wire.Answer.model_validate(each) for each in listed]):
            assert [answer.score for answer in found] == pytest.approx([each.score for each in expected], abs=1e-4)
            assert [answer.uncertainty for answer in found] == pytest.approx(
                [e.uncertainty for e in expected], abs=1e-4
            )
            assert found[3].aspects == pytest.approx(expected[3].aspects, abs=1e-4)
            assert {(answer.model, answer.digest) for answer in found} == {(name, model.digest)}
        assert len({round(answer.score or 0, 3) for answer in answers}) > 35  # not all alike
    unnamed = http.post("/v1/score", json=in_json((prompts[0], images[0]))).json()["items"]
    assert unnamed[0]["model"] == "blip"


def test_pictures_of_all_kinds_are_scored_and_what_is_none_spares_the_others(endpoint: Running) -> None:
    animated = io.BytesIO()
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(animated, "PNG", save_all=True, append_images=frames[1:])
    truncated = file("red", (200, 200))[:200]
    header = bytearray(file())
    header[16:24] = (50_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    asked = [
        ("a picture", file()),
        ("a picture", file((0, 200, 200, 0), mode="CMYK", kind="JPEG")),
        ("a picture", file(40_000, mode="I;16")),
        ("a picture", file((255, 0, 0, 0), mode="RGBA")),
        ("a picture", animated.getvalue()),
        ("a picture", b"not an image"),
        ("a picture", b""),
        ("a picture", truncated),
        ("a picture", bytes(header)),
        ("a picture", file(size=(1001, 1000))),
        ("a picture", file(kind="GIF")),
        ("a picture", file(size=(1, 100_000))),
        (" ", file()),
        ("word " * 10_000, file()),
        ("a picture", file()),
    ]
    told = [None] * 5 + [
        r"not an image that can be read \(12 bytes\): write a PNG, JPEG or WebP file",
        r"not an image that can be read \(0 bytes\)",
        "broken image",
        "too large: Image size .2500000000 pixels.",
        "too large: 1001 × 1000 pixels; at most 1 megapixels are taken; scale it down",
        "not an image",
        "too narrow: 1 × 100000 pixels; one edge is at most 50 times the other",
        "the prompt is empty: write what the image was asked to show",
        "the prompt has 50000 characters: write at most 4000",
        None,
    ]  # fmt: skip
    with RewardClient(endpoint.url, TOKEN) as client:
        answers = client.score(*zip(*asked, strict=True))
    for answer, error in zip(answers, told, strict=True):
        if error is None:
            assert (answer.status, answer.error) == (200, None)
            assert answer.score is not None
        else:
            assert (answer.status, answer.score) == (422, None)
            assert re.search(error, answer.error or "")
    assert answers[0].score == pytest.approx(answers[-1].score)
    white = RewardClient(endpoint.url, TOKEN).score(["a picture"] * 2, [file("white"), file((157,) * 3)])
    assert answers[3].score == pytest.approx(white[0].score, abs=1e-4)  # what shows through is white
    assert answers[2].score == pytest.approx(
        RewardClient(endpoint.url, TOKEN).score(["a picture"], [file((156,) * 3)])[0].score, abs=1e-4
    )


def test_whole_requests_are_refused_with_a_sentence(http: httpx.Client) -> None:
    good = in_json(("a", file()))
    post = lambda **request: http.post("/v1/score", **request)  # noqa: E731
    arrow = {"Content-Type": wire.ARROW}
    refused = [
        (post(json={"items": []}), 422, "at least 1 item"),
        (post(json=in_json(*[("a", b"")] * 257)), 422, "257 items: write 1 to 256"),
        (post(content=b"{", headers={"Content-Type": wire.JSON}), 422, "Invalid JSON"),
        (post(content=b"nothing", headers=arrow), 422, "no Arrow IPC stream"),
        (post(content=wire.write_arrow(wire.Request([])), headers=arrow), 422, "0 items"),
        (post(json={**good, "model": "else"}), 404, "no model 'else': write one of blip, clip"),
        (post(content=b"x", headers={"Content-Type": "text/plain"}), 415, "write application/json or application/vnd"),
        (post(content=bytes(65 * 2**20), headers=arrow), 413, "larger than 67108864 bytes"),
        (post(content=iter([bytes(2**20)] * 66), headers=arrow), 413, "larger than 67108864 bytes"),
        (post(json=good, headers={"Authorization": "Bearer wrong"}), 401, "Authorization: Bearer TOKEN"),
        (post(json=good, headers={"Authorization": ""}), 401, "Authorization: Bearer TOKEN"),
        (http.get("/v1/models", headers={"Authorization": ""}), 401, "Bearer"),
        (http.get("/metrics", headers={"Authorization": ""}), 401, "Bearer"),
    ]
    for response, status, told in refused:
        assert (response.status_code, told in response.json()["detail"]) == (status, True), response.text
    with pytest.raises(RewardError, match="answered 401"), RewardClient(str(http.base_url), "wrong") as client:
        client.score(["a"], [file()])


def asked_by_the_dashboard() -> list[str]:
    """Of the endpoint, in its panels: names of measures, each with each label that is asked for."""
    panels = json.loads((Path(visionprefer_pipelines.__path__[0]) / "grafana.json").read_text())["panels"]
    queries = [target["expr"] for one in panels if one["title"].startswith("Endpoint") for target in one["targets"]]
    return [
        rf'{name}\{{[^}}]*{label}="'
        for query in queries
        for name in re.findall(r"ray_\w+", query)
        for labels in re.findall(r"by \((.*?)\)", query)
        for label in labels.split(", ")
    ]


def test_it_tells_its_models_its_health_and_its_measures(http: httpx.Client, vpscores: dict[str, Path]) -> None:
    listed = http.get("/v1/models").json()["models"]
    digests = {name: VPScore.from_pretrained(folder).digest for name, folder in vpscores.items()}
    assert {model["name"]: model["digest"] for model in listed} == digests
    assert listed[0]["scores"] == ["overall", "prompt_following", "aesthetic", "fidelity", "harmlessness"]
    assert [http.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    http.post("/v1/score", json=in_json(("a", file()), ("", file())))
    wanted = [
        r'ray_visionprefer_items_total\{.*status="422"',
        "ray_visionprefer_forward_seconds_bucket",
        "ray_serve_actual_batch_size_count",
        *asked_by_the_dashboard(),
    ]
    deadline = time.monotonic() + 60  # Ray gathers every few seconds
    while missing := [each for each in wanted if not re.search(each, http.get("/metrics").text)]:
        assert time.monotonic() < deadline, missing
        time.sleep(1)


@schemathesis.serializer(wire.ARROW)
def in_arrow(_: Any, value: Any) -> bytes:
    data = getattr(value, "data", None)
    return wire.write_arrow(wire.Request([wire.Item("a picture", data if isinstance(data, bytes) else b"")]))


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        *[("POST", "/v1/score", mode) for mode in GenerationMode],
        *[("GET", path, GenerationMode.POSITIVE) for path in ("/v1/models", "/healthz", "/readyz", "/metrics")],
        *[("GET", path, GenerationMode.NEGATIVE) for path in ("/v1/models", "/metrics")],
    ],
)
def test_it_does_what_its_openapi_document_says(
    http: httpx.Client, method: str, path: str, mode: GenerationMode
) -> None:
    """Generated requests, good and bad: no 5xx, no status or body that the document does not know."""
    schema = schemathesis.openapi.from_dict(http.get("/openapi.json").json())
    cases = schema[path][method].as_strategy(generation_mode=mode)
    tried = []

    @settings(
        max_examples=60 if method == "POST" else 5,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def ask(case: schemathesis.Case) -> None:
        tried.append(case)
        case.call_and_validate(base_url=str(http.base_url), headers={"Authorization": f"Bearer {TOKEN}"})

    ask()
    assert tried


def test_nothing_of_a_request_is_in_the_logs(endpoint: Running, http: httpx.Client) -> None:
    secret = "unmistakable7391"  # noqa: S105
    with RewardClient(endpoint.url, TOKEN) as client:
        client.score([secret, f"{secret} " * 400, "a"], [file(), file(), secret.encode()])
    http.post("/v1/score", json={"items": [{"prompt": secret, "image": secret, secret: 1}], "model": secret})
    http.post(f"/v1/score?{secret}=1", content=secret, headers={"Content-Type": secret})
    http.get(f"/v1/models?{secret}", headers={"Authorization": f"Bearer {secret}"})
    http.get("/openapi.json")
    logs = Path(endpoint.logs)
    deadline = time.monotonic() + 30
    while True:  # what was asked last is logged
        texts = {path: path.read_bytes() for path in logs.rglob("*") if path.is_file()}
        if any(b"GET /openapi.json 200" in text for text in texts.values()):
            break
        assert time.monotonic() < deadline
        time.sleep(0.5)
    for known in (secret.encode(), TOKEN.encode(), OTHER_TOKEN.encode()):
        assert not [path.name for path, text in texts.items() if known in text]
    assert not any(secret in line or TOKEN in line for line in endpoint.printed)


def test_a_body_that_does_not_come_is_not_waited_for_for_ever(endpoint: Running) -> None:
    """The others are answered meanwhile. The endpoint of these tests waits for ten seconds."""
    host, port = httpx.URL(endpoint.url).host, httpx.URL(endpoint.url).port
    with socket.create_connection((host, port), timeout=60) as slow:
        head = f"POST /v1/score HTTP/1.1\r\nHost: {host}\r\nContent-Type: {wire.JSON}\r\nContent-Length: 100\r\n"
        slow.sendall(f"{head}Authorization: Bearer {TOKEN}\r\n\r\n{{".encode())
        with RewardClient(endpoint.url, TOKEN) as client:
            assert client.score(["a"], [file()])[0].score is not None
        assert b"408" in slow.recv(1000).partition(b"\r\n")[0]
