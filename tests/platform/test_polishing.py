"""Polished prompts keep what they were; what cannot be mended is rejected with its reason, and nothing is guessed."""

import json
from typing import Any

import pyarrow as pa
import pytest

from visionprefer.engine_settings import EngineSettings
from visionprefer.judging.asking import Asker
from visionprefer.judging.engine import Reply, Request
from visionprefer.judging.rubric import UnusableReply
from visionprefer.models import Model
from visionprefer.prompts import prompt_id
from visionprefer.prompts.polishing import PolishQuestions, parse_reply, polished, polisher_digest, reply_schema
from visionprefer.schema import POLISHED, PROMPTS, REPLIES_TO_PROMPTS

MODEL, SETTINGS = Model("folder/writer", None, None, "digest"), EngineSettings(model="folder/writer")
FINE = {"rationale": "Nothing is wrong.", "bias": False, "inconsistency": False, "unsafe": False, "prompt": "a cat"}


def prompts(*texts: str) -> pa.Table:
    rows = [{"prompt_id": prompt_id(text), "prompt": text, "split": "train", "source": "f:1"} for text in texts]
    return pa.Table.from_pylist(rows, schema=PROMPTS)


class Scripted:
    """An engine that answers from a list, and remembers what it was asked."""

    def __init__(self, *said: dict[str, Any] | str) -> None:
        self.said = [one if isinstance(one, str) else json.dumps(one) for one in said]
        self.asked: list[Request] = []

    def ask(self, requests: list[Request]) -> list[Reply]:
        self.asked += requests
        return [Reply(self.said.pop(0), 10, 5) for _ in requests]

    def describe(self) -> str:
        return "scripted"


def asked(engine: Scripted, *texts: str) -> tuple[pa.Table, pa.Table]:
    return Asker(PolishQuestions(SETTINGS, MODEL), engine)(prompts(*texts))


def test_a_prompt_is_kept_as_it_was_and_as_it_is_now() -> None:
    mended = FINE | {"bias": True, "prompt": "a  nurse at work", "rationale": "It need not be a woman."}
    done, failed = asked(Scripted(mended, FINE), "a beautiful female nurse at work", "a cat")
    assert (done.schema, failed.num_rows) == (REPLIES_TO_PROMPTS, 0)
    kept, rejected = polished(done)
    assert (kept.schema, rejected.num_rows) == (POLISHED, 0)
    first, second = kept.to_pylist()
    assert (first["before"], first["prompt"]) == ("a beautiful female nurse at work", "a nurse at work")
    assert (first["problems"], first["changed"]) == (["bias"], True)
    assert first["prompt_id"] == prompt_id("a nurse at work")
    assert (second["problems"], second["changed"]) == ([], False)


def test_what_cannot_be_mended_is_rejected_with_the_models_reason() -> None:
    gone = FINE | {"unsafe": True, "prompt": " ", "rationale": "It is gore alone."}
    kept, rejected = polished(asked(Scripted(gone), "gore")[0])
    assert kept.num_rows == 0
    assert rejected.to_pylist() == [{"prompt": "gore", "source": "f:1", "reason": "polished away: It is gore alone."}]


def test_a_reply_of_no_use_is_asked_for_again_with_another_seed_and_then_fails() -> None:
    engine = Scripted("Sure!", FINE, "Sure!", "Of course!")
    asked(engine, "a cat")
    assert engine.asked[0].seed != engine.asked[1].seed
    assert not engine.asked[0].images
    done, failed = asked(engine, "a dog")
    assert done.num_rows == 0
    assert "begins 'Of course!'" in failed["error"][0].as_py()
    assert failed["asked"].to_pylist() == [2]


def test_a_prompt_that_grew_out_of_all_proportion_is_of_no_use() -> None:
    endless = FINE | {"prompt": "a cat " * 200}
    _, failed = asked(Scripted(endless, endless), "a cat")
    assert "has 1,200 characters now, and had 5" in failed["error"][0].as_py()


@pytest.mark.parametrize(
    ("change", "told"),
    [({"bias": "no"}, "bias"), ({"rationale": ""}, "rationale"), ({"score": 3}, "score: Extra inputs")],
)
def test_an_unusable_reply_says_what_is_wrong(change: dict[str, Any], told: str) -> None:
    with pytest.raises(UnusableReply, match=told):
        parse_reply(json.dumps(FINE | change))


def test_the_rationale_comes_before_what_follows_from_it() -> None:
    schema = reply_schema(50)
    assert list(schema["properties"]) == ["rationale", "bias", "inconsistency", "unsafe", "prompt"]
    assert schema["properties"]["prompt"]["maxLength"] == 50


def test_a_polisher_is_another_one_when_its_answers_may_be_other_ones() -> None:
    before = polisher_digest(MODEL, SETTINGS)
    assert polisher_digest(MODEL, SETTINGS.model_copy(update={"temperature": 1.0})) != before
    assert polisher_digest(MODEL, SETTINGS.model_copy(update={"batch_size": 3, "device": "cpu"})) == before
