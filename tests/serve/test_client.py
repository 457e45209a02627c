"""The reward clients against a real HTTP server on the loopback."""

import asyncio
import email.utils
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from visionprefer_serve import wire
from visionprefer_serve.client import AsyncRewardClient, RewardClient, RewardError
from visionprefer_serve.wire import Answer, Item, Request

Told = tuple[int, bytes, dict[str, str]]
GOOD = Answer(score=0.25, aspects={"fidelity": 4.5}, uncertainty=0.1, model="vpscore", digest="ab12")


class Endpoint(ThreadingHTTPServer):
    """Answers every request with what the test says, and keeps what it was asked."""

    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Callable[[Request], Told] = lambda request: scores([GOOD] * len(request.items))
        self.asked: list[tuple[str, str | None, Request]] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        self.server.connections += 1
        super().setup()

    def do_POST(self) -> None:
        request = wire.read_arrow(self.rfile.read(int(self.headers["Content-Length"])), 1000)
        self.server.asked.append((self.path, self.headers["Authorization"], request))
        status, data, headers = self.server.answer(request)
        if not status:  # hang up
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.delenv("VISIONPREFER_TOKEN", raising=False)
    with Endpoint() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def scores(answers: list[Answer]) -> Told:
    return 200, wire.write_answers(answers), {}


def length(item: Item) -> Answer:
    return GOOD.model_copy(update={"score": float(len(item.image or b""))})


def told(status: int, data: bytes = b"", **headers: str) -> Told:
    return status, data, {name.replace("_", "-"): value for name, value in headers.items()}


def in_turn(*answers: Told) -> Callable[[Request], Told]:
    """One after the other, then scores."""
    left = list(answers)
    return lambda request: left.pop(0) if left else scores(list(map(length, request.items)))


@pytest.fixture(params=["sync", "async"])
def score(request: pytest.FixtureRequest) -> Callable[..., list[Answer]]:
    """Asks by either client."""

    def sync(url: str, prompts: list[str], images: list[bytes], **options: object) -> list[Answer]:
        with RewardClient(url, **options) as client:  # type: ignore[arg-type]
            return client.score(prompts, images)

    async def asynchronous(url: str, prompts: list[str], images: list[bytes], **options: object) -> list[Answer]:
        async with AsyncRewardClient(url, **options) as client:  # type: ignore[arg-type]
            return await client.score(prompts, images)

    return sync if request.param == "sync" else lambda *given, **options: asyncio.run(asynchronous(*given, **options))


Score = Callable[..., list[Answer]]


def test_requests_are_cut_and_answers_are_in_order(endpoint: Endpoint, score: Score) -> None:
    """By items and by bytes; an image larger than a request may be goes alone."""
    endpoint.answer = in_turn()
    images = [bytes(size) for size in (1, 2, 3, 900, 5, 2000, 7)]
    answers = score(endpoint.url, [f"p{n}" for n in range(7)], images, batch_size=3, max_bytes=1000, model="v2")
    assert [answer.score for answer in answers] == [1, 2, 3, 900, 5, 2000, 7]
    requests = sorted(request.items[0].prompt for _, _, request in endpoint.asked)
    assert requests == ["p0", "p3", "p5", "p6"]
    assert {(path, request.model) for path, _, request in endpoint.asked} == {("/v1/score", "v2")}
    assert score(endpoint.url, [], []) == []


def test_connections_are_used_again(endpoint: Endpoint) -> None:
    with RewardClient(endpoint.url, batch_size=1) as client:
        client.score(["a"] * 20, [b""] * 20)
    assert (len(endpoint.asked), endpoint.connections) == (20, 1)


def test_a_failed_item_has_a_reason_and_no_score(endpoint: Endpoint, score: Score) -> None:
    refused = Answer(model="vpscore", status=422, error="not an image")
    endpoint.answer = lambda _: scores([refused, GOOD])
    assert score(endpoint.url, ["a", "b"], [b"", b""]) == [refused, GOOD]


def test_what_may_pass_is_asked_again(endpoint: Endpoint, score: Score) -> None:
    starting = told(404, b"Path '/v1/score' not found. Ping http://.../-/routes for available routes.")
    lost = told(500, b"Internal Server Error")  # Ray Serve's word where the replica died that had the request
    endpoint.answer = in_turn(told(429), told(503), starting, told(504), told(0), told(502), lost)
    [answer] = score(endpoint.url, ["a"], [b"xyz"])
    assert (answer.score, len(endpoint.asked)) == (3, 8)


def test_single_items_that_may_have_a_score_are_asked_about_again_alone(endpoint: Endpoint, score: Score) -> None:
    """Their answers come to their places; what is refused for good is not asked about again."""
    lost, refused = (Answer(model="m", status=status, error="e") for status in (503, 422))
    endpoint.answer = in_turn(scores([GOOD, lost, refused, lost]), told(502), scores([lost, GOOD]))
    answers = score(endpoint.url, ["a", "b", "c", "d"], [b"1", b"22", b"333", b"4444"])
    assert [answer.score for answer in answers] == [0.25, 2, None, 0.25]
    asked = ["".join(item.prompt for item in request.items) for _, _, request in endpoint.asked]
    assert asked == ["abcd", "bd", "bd", "b"]


def test_single_items_that_stay_lost_say_what_the_endpoint_said(endpoint: Endpoint, score: Score) -> None:
    lost = Answer(model="m", status=503, error="the model's replicas died")
    endpoint.answer = lambda request: scores([lost if item.prompt == "b" else GOOD for item in request.items])
    assert score(endpoint.url, ["a", "b"], [b"", b""], retry_for=0.3) == [GOOD, lost]
    assert len(endpoint.asked) > 1


@pytest.mark.parametrize("date", [False, True])
def test_retry_after_is_honoured(endpoint: Endpoint, score: Score, date: bool) -> None:
    after = email.utils.formatdate(time.time() + 2, usegmt=True) if date else "1"
    endpoint.answer = in_turn(told(429, Retry_After=after))
    started = time.monotonic()
    assert score(endpoint.url, ["a"], [b""])[0].error is None
    assert time.monotonic() - started > 0.9


def test_what_was_not_answered_in_all_tries_is_none_and_spares_the_others(endpoint: Endpoint, score: Score) -> None:
    def answer(request: Request) -> Told:
        return told(503, b"no replica") if request.items[0].prompt == "p1" else scores([GOOD])

    endpoint.answer = answer
    answers = score(endpoint.url, ["p0", "p1", "p2"], [b""] * 3, batch_size=1, retry_for=0.5)
    assert [answer.score for answer in answers] == [0.25, None, 0.25]
    assert (answers[1].status, "answered 503: no replica" in (answers[1].error or "")) == (503, True)


def test_nobody_listens(endpoint: Endpoint, score: Score) -> None:
    url = endpoint.url
    endpoint.shutdown()
    endpoint.server_close()
    [answer] = score(url, ["a"], [b""], retry_for=0.3)
    assert (answer.score, "did not answer: ConnectError" in (answer.error or "")) == (None, True)


def test_silence_has_an_end(endpoint: Endpoint, score: Score) -> None:
    go_on = threading.Event()

    def silence(_: Request) -> Told:
        go_on.wait(10)
        return told(0)

    endpoint.answer = silence
    [answer] = score(endpoint.url, ["a"], [b""], timeout=0.1, retry_for=0.2)
    go_on.set()
    assert (answer.score, "ReadTimeout" in (answer.error or "")) == (None, True)


def test_an_endpoint_may_live_below_a_path(endpoint: Endpoint, score: Score) -> None:
    score(endpoint.url + "/rewards/", ["a"], [b""])
    assert endpoint.asked[0][0] == "/rewards/v1/score"


@pytest.mark.parametrize(
    ("status", "data", "message"),
    [
        (500, b"out of memory", "answered 500: out of memory"),
        (401, b"who are you?", "answered 401: who are you?"),
        (404, b"no such model", "answered 404: no such model"),
        (302, b"", "answered 302"),
        (200, b"<html>", "something else than scores"),
        (200, wire.write_arrow(Request([Item("a", b"")])), "something else than scores"),
        (200, wire.write_answers([GOOD, GOOD]), "answered 2 items to 1"),
        (200, wire.write_answers([]), "answered 0 items to 1"),
    ],
)
def test_a_refusal_is_an_error_that_says_why_at_once(
    endpoint: Endpoint, score: Score, status: int, data: bytes, message: str
) -> None:
    endpoint.answer = lambda _: told(status, data)
    with pytest.raises(RewardError, match=message) as raised:
        score(endpoint.url, ["a"], [b""])
    assert endpoint.url in str(raised.value)
    assert len(endpoint.asked) == 1


def test_one_prompt_for_each_image(endpoint: Endpoint, score: Score) -> None:
    with pytest.raises(ValueError, match="2 prompts and 1 images"):
        score(endpoint.url, ["a", "b"], [b""])
    assert not endpoint.asked


def test_the_token_is_sent_and_never_shown(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONPREFER_TOKEN", "from-environment\n")
    with RewardClient(endpoint.url) as ours, RewardClient(endpoint.url, "given") as theirs:
        ours.score(["a"], [b""])
        theirs.score(["a"], [b""])
        shown = repr((ours, vars(ours), theirs, vars(theirs)))
    assert [authorization for _, authorization, _ in endpoint.asked] == ["Bearer from-environment", "Bearer given"]
    assert "from-environment" not in shown
    assert "given" not in shown


def test_a_password_in_the_address_is_never_shown(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: told(500)
    with RewardClient(endpoint.url.replace("//", "//me:secret@")) as client:
        assert "secret" not in repr(client)
        with pytest.raises(RewardError) as raised:
            client.score(["a"], [b""])
    assert "secret" not in str(raised.value)


def test_a_token_that_no_header_carries_is_refused_unseen() -> None:
    with pytest.raises(ValueError, match="no HTTP header") as raised:
        RewardClient("http://127.0.0.1:1", "two\nlines")
    assert "two" not in str(raised.value)
