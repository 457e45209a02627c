"""Whatever a server does, every request ends as a reply or as an error that says why, and no limit is passed."""

import base64
import email.utils
import io
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from chat_server import VERDICT, Answer, ChatServer, problem, said
from PIL import Image

from visionprefer.errors import InputError
from visionprefer.judging import openai_engine
from visionprefer.judging.engine import Request
from visionprefer.judging.openai_engine import OpenAIEngine
from visionprefer.judging.rubric import reply_schema
from visionprefer.models import served_model
from visionprefer.recipe import JudgeSettings

KEY = "sk-secret-0123456789"
Start = Callable[[Callable[[int, dict[str, Any]], Answer]], ChatServer]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(openai_engine, "LONGEST_WAIT", 0.05)


def engine(server: ChatServer, spent: float = 0.0, **api: Any) -> OpenAIEngine:
    model = api.pop("model", "judge")
    settings = {"engine": "openai", "model": model, "max_new_tokens": 100, "api": {"base_url": server.url} | api}
    return OpenAIEngine(JudgeSettings.model_validate(settings), served_model(model, server.url), spent)


def requests(count: int = 1) -> list[Request]:
    images = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(count)]
    return [Request([image], f"question {i}", i, 0.0, reply_schema(100)) for i, image in enumerate(images)]


def test_a_request_carries_the_image_the_question_and_the_schema(chat_server: Start) -> None:
    server = chat_server(lambda n, body: said())
    [reply] = engine(server).ask(requests())
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens, reply.error) == (VERDICT, 100, 50, None)
    [body] = server.asked
    image, text = body["messages"][0]["content"]
    data = base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(data)).getpixel((0, 0)) == (0, 0, 0)
    assert text == {"type": "text", "text": "question 0"}
    assert body["response_format"]["json_schema"]["schema"]["required"][0] == "prompt_following"
    assert (body["model"], body["seed"], body["temperature"], body["max_completion_tokens"]) == ("judge", 0, 0.0, 100)
    assert server.keys == [f"Bearer {KEY}"]


def test_sampling_is_said_as_the_recipe_has_it(chat_server: Start) -> None:
    server = chat_server(lambda *_: said())
    sampling = {"top_p": 0.8, "top_k": 20, "presence_penalty": 1.5}
    settings = {"engine": "openai", "model": "m", "sampling": sampling, "api": {"base_url": server.url}}
    OpenAIEngine(JudgeSettings.model_validate(settings), served_model("m", server.url)).ask(requests())
    assert {name: server.asked[0][name] for name in sampling} == sampling


def test_replies_stand_in_the_order_of_the_requests_and_no_more_are_in_flight_than_may_be(chat_server: Start) -> None:
    server = chat_server(lambda n, body: said(body["messages"][0]["content"][1]["text"], wait=0.1 + 0.02 * (n % 3)))
    replies = engine(server, concurrency=5).ask(requests(20))
    assert [reply.text for reply in replies] == [f"question {i}" for i in range(20)]
    assert server.most_in_flight == 5


BAD = {
    "a busy server": problem(429, "slow down"),
    "a server that breaks": problem(500, "oops"),
    "a conflict": problem(409, "again"),
    "a time-out of the server": problem(408, "late"),
    "half a reply": Answer(200, said().body, {"content-type": "application/json"}, cut=40),
    "no reply": Answer(200, said().body, {"content-type": "application/json"}, cut=0),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_may_pass_is_tried_again(bad: Answer, chat_server: Start) -> None:
    server = chat_server(lambda n, body: bad if n < 2 else said())
    assert [reply.text for reply in engine(server).ask(requests())] == [VERDICT]
    assert len(server.asked) == 3


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_does_not_pass_is_an_error_with_its_reason(bad: Answer, chat_server: Start) -> None:
    server = chat_server(lambda n, body: bad)
    [reply] = engine(server, retries=2).ask(requests())
    assert reply.text is None
    assert reply.error
    assert len(server.asked) == 3


USELESS = {
    "a page of a proxy": (Answer(200, "<html>Sign in</html>", {"content-type": "text/html"}), "Sign in"),
    "other JSON": (Answer(200, '{"hello": 1}', {"content-type": "application/json"}), "no chat completion"),
    "broken JSON": (Answer(200, '{"choices": [', {"content-type": "application/json"}), ""),
    "a refusal": (said(None, refusal="I will not"), "refused: I will not"),
    "nothing": (said(""), "empty"),
    "a request it cannot read": (problem(400, "image too large"), "image too large"),
}


@pytest.mark.parametrize(("answer", "reason"), USELESS.values(), ids=USELESS)
def test_an_answer_of_no_use_is_an_error_at_once(answer: Answer, reason: str, chat_server: Start) -> None:
    server = chat_server(lambda n, body: answer)
    [reply] = engine(server).ask(requests())
    assert reply.text is None or not reply.text
    assert reply.error is not None
    assert reason in reply.error
    assert len(server.asked) == 1


def test_a_server_that_hangs_is_given_up(chat_server: Start) -> None:
    server = chat_server(lambda n, body: said(wait=1.0))
    [reply] = engine(server, timeout=0.2, retries=1).ask(requests())
    assert reply.error == "timed out after 0.2 s"
    assert len(server.asked) == 2


@pytest.mark.parametrize("as_date", [False, True])
def test_a_server_that_says_when_is_asked_then_and_not_before(as_date: bool, chat_server: Start) -> None:
    """A date says whole seconds, so that it may be nearer by almost one."""

    def after() -> str:
        return email.utils.formatdate(time.time() + 2, usegmt=True) if as_date else "1"

    server = chat_server(lambda n, body: problem(429, **{"retry-after": after()}) if n == 0 else said())
    engine(server).ask(requests())
    assert server.times[1] - server.times[0] >= (0.9 if as_date else 1)


def test_a_server_that_asks_for_hours_is_asked_sooner(chat_server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_engine, "LONGEST_ASKED", 0.3)
    server = chat_server(lambda n, body: problem(429, **{"retry-after": "36000"}) if n == 0 else said())
    [reply] = engine(server).ask(requests())
    assert reply.text == VERDICT
    assert server.times[1] - server.times[0] >= 0.3


def test_tokens_a_minute_are_counted_as_they_were_and_not_as_they_might_have_been(chat_server: Start) -> None:
    """Each request could take 4,300 tokens and takes 150: at 30,000 a minute that is 0.3 s, not 8.6."""
    server = chat_server(lambda n, body: said())
    asked = engine(server, tokens_per_minute=30_000, concurrency=1, image_tokens=4_186)
    asked.ask(requests(4))
    apart = [later - earlier for earlier, later in pairwise(server.times)]
    assert all(0.25 <= seconds < 4 for seconds in apart)


def test_a_cut_off_reply_is_marked(chat_server: Start) -> None:
    server = chat_server(lambda n, body: said('{"prompt', finish_reason="length"))
    [reply] = engine(server).ask(requests())
    assert (reply.text, reply.cut_off) == ('{"prompt', True)


def test_a_server_without_schemas_is_asked_without(chat_server: Start) -> None:
    refusal = problem(400, "response_format is not supported")
    server = chat_server(lambda n, body: refusal if "response_format" in body else said())
    replies = engine(server, concurrency=1).ask(requests(3))
    assert [reply.text for reply in replies] == [VERDICT] * 3
    assert ["response_format" in body for body in server.asked] == [True, False, False, False]


@pytest.mark.parametrize(
    ("answer", "what_to_do"),
    [
        (problem(401, f"Incorrect API key provided: {KEY}"), "Set the environment variable"),
        (problem(403, "not for you"), "may use this model"),
        (problem(404, "no model judge"), "Write a model and an api.base_url"),
        (problem(429, "quota", code="insufficient_quota"), "account's credit"),
        (problem(402, "insufficient balance"), "account's credit"),
    ],
)
def test_what_is_wrong_with_every_request_stops_the_run_and_the_key_is_never_told(
    answer: Answer, what_to_do: str, chat_server: Start
) -> None:
    server = chat_server(lambda n, body: answer)
    asking = engine(server, concurrency=1)
    with pytest.raises(InputError, match=what_to_do) as error:
        asking.ask(requests(5))
    assert KEY not in str(error.value)
    assert len(server.asked) == 1


def test_a_moderated_image_among_others_fails_alone(chat_server: Start) -> None:
    server = chat_server(lambda n, body: problem(403, "flagged") if n == 1 else said())
    replies = engine(server, concurrency=1).ask(requests(3))
    assert [reply.text for reply in replies] == [VERDICT, None, VERDICT]
    assert "flagged" in str(replies[1].error)


def test_answers_that_came_before_the_key_ended_are_handed_over(chat_server: Start) -> None:
    server = chat_server(lambda n, body: said() if n < 2 else problem(401, "expired"))
    asking = engine(server, concurrency=1)
    replies = asking.ask(requests(4))
    assert [reply.text for reply in replies] == [VERDICT, VERDICT, None, None]
    assert all("expired" in str(reply.error) for reply in replies[2:])
    with pytest.raises(InputError, match="expired"):
        asking.ask(requests(1))
    assert len(server.asked) == 3


def test_a_refusal_that_was_paid_for_is_handed_over_before_the_run_stops(chat_server: Start) -> None:
    server = chat_server(lambda n, body: said(None, refusal="no") if n == 0 else problem(401, "expired"))
    replies = engine(server, concurrency=1, price=PRICES).ask(requests(2))
    assert [reply.cost for reply in replies] == [150, 0]


def test_a_key_that_a_server_repeats_is_taken_out_of_the_reply(chat_server: Start) -> None:
    server = chat_server(lambda n, body: said(f"your key is {KEY}"))
    asking = engine(server)
    assert asking.ask(requests())[0].text == "your key is ***"
    assert KEY not in repr(asking) + asking.describe() + json.dumps(asking.settings.model_dump(mode="json"))


def test_a_key_that_is_any_word_stays_in_replies(chat_server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of one's own take whatever is said, such as a digit, which replies are full of."""
    monkeypatch.setenv("OPENAI_API_KEY", "1")
    asking = engine(chat_server(lambda n, body: said(VERDICT + "1") if n == 0 else problem(400, "1 is no key")))
    first, second = asking.ask(requests()) + asking.ask(requests())
    assert first.text == VERDICT + "1"
    assert "*** is no key" in str(second.error)


def test_without_a_key_openai_itself_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    settings = JudgeSettings(engine="openai", model="gpt")
    with pytest.raises(InputError, match="OPENAI_API_KEY is not set"):
        OpenAIEngine(settings, served_model("gpt", None))


def test_requests_are_evenly_spaced(chat_server: Start) -> None:
    server = chat_server(lambda n, body: said())
    asking = engine(server, requests_per_minute=600)
    began = time.monotonic()
    asking.ask(requests(6))
    assert all(at - began >= 0.1 * i - 0.001 for i, at in enumerate(server.times))


PRICES = {"prompt": 1_000_000, "completion": 1_000_000}  # 1 a token: a proper answer costs 150


def test_the_cost_is_what_the_server_counted(chat_server: Start) -> None:
    server = chat_server(lambda n, body: said())
    [reply] = engine(server, price=PRICES).ask(requests())
    assert reply.cost == 150


def test_the_budget_holds_for_all_threads_together_and_lets_through_what_it_can(chat_server: Start) -> None:
    """A request may cost 10 + 90 + 100 = 200 and costs 150: of 1,000 five are sure to fit, and then a sixth does."""
    server = chat_server(lambda n, body: said(wait=0.01))
    asking = engine(server, price=PRICES, budget=1_000, image_tokens=90, concurrency=16)
    with ThreadPoolExecutor(4) as threads:
        replies = [reply for part in threads.map(asking.ask, [requests(5)] * 2) for reply in part]
    answered = [reply for reply in replies if reply.text]
    assert len(answered) == len(server.asked) == 6
    assert all("budget is 1000, of which 900 is spent" in str(reply.error) for reply in replies if not reply.text)
    with pytest.raises(InputError, match="Raise the budget"):
        asking.ask(requests(1))


def test_what_was_spent_before_counts(chat_server: Start) -> None:
    server = chat_server(lambda n, body: said())
    with pytest.raises(InputError, match="of which 900 is spent"):
        engine(server, spent=900, price=PRICES, budget=1_000, image_tokens=90).ask(requests(3))
    assert server.asked == []


def test_a_lost_answer_counts_for_all_that_it_may_have_cost(chat_server: Start) -> None:
    """Its row says so too, so that a run that is taken up again knows what was spent."""
    lost = Answer(200, said().body, {"content-type": "application/json"}, cut=0)
    server = chat_server(lambda n, body: lost if n == 0 else said())
    asking = engine(server, price=PRICES, budget=399, image_tokens=90)
    [reply] = asking.ask(requests())
    assert "of which 200 is spent" in str(reply.error)
    assert (reply.text, reply.cost) == (None, 200)
    with pytest.raises(InputError, match="of which 200 is spent"):
        asking.ask(requests())
    assert len(server.asked) == 1


def test_a_reply_costs_what_its_lost_tries_may_have_cost_too(chat_server: Start) -> None:
    lost = Answer(200, said().body, {"content-type": "application/json"}, cut=0)
    server = chat_server(lambda n, body: (lost, problem(429), said())[n])
    [reply] = engine(server, price=PRICES, image_tokens=90).ask(requests())
    assert (reply.text, reply.cost) == (VERDICT, 200 + 0 + 150)
