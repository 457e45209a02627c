"""A real LLaVA, small and with random weights, answers through transformers' own generate."""

import json
from pathlib import Path

import pytest
from PIL import Image

from visionprefer.errors import InputError
from visionprefer.judging.engine import Request
from visionprefer.judging.rubric import parse_reply, question, reply_schema
from visionprefer.judging.transformers_engine import TransformersEngine
from visionprefer.models import Model, find_model
from visionprefer.recipe import JudgeSettings

TEXT, SCHEMA = question("a red cat"), reply_schema(20)
IMAGES = [Image.new("RGB", (48, 64), color) for color in ("red", "green", "blue", "white", "black")]


def engine(folder: Path, **changes: object) -> TransformersEngine:
    settings = {"rationale_length": 20, "max_new_tokens": 300, "batch_size": 2} | changes
    return TransformersEngine(
        JudgeSettings(model=str(folder), **settings),  # type: ignore[arg-type]
        find_model(str(folder), "transformers"),
    )


def test_replies_held_to_the_schema_are_verdicts_and_end(tiny_llava: Path) -> None:
    """Random weights say anything: only the grammar makes each reply a verdict, at both temperatures."""
    requests = [Request([image], TEXT, seed, seed % 2, SCHEMA) for seed, image in enumerate(IMAGES)]
    for reply in engine(tiny_llava).ask(requests):
        assert reply.error is None
        assert not reply.cut_off
        verdict = parse_reply(reply.text or "")
        assert len(verdict.fidelity.rationale) <= 20
        assert 100 < reply.prompt_tokens < 600
        assert 20 < reply.completion_tokens < 300


def test_sampled_answers_follow_their_seed_and_not_their_neighbours(tiny_llava: Path) -> None:
    judge = engine(tiny_llava, batch_size=3)
    alone = [judge.ask([Request([image], TEXT, seed, 1.0, SCHEMA)])[0].text for seed, image in enumerate(IMAGES[:3])]
    together = judge.ask([Request([image], TEXT, seed, 1.0, SCHEMA) for seed, image in enumerate(IMAGES[:3])])
    assert [reply.text for reply in together] == alone
    assert judge.ask([Request([IMAGES[0]], TEXT, 99, 1.0, SCHEMA)])[0].text != alone[0]


def test_a_reply_whose_tokens_run_out_is_cut_off(tiny_llava: Path) -> None:
    (reply,) = engine(tiny_llava, max_new_tokens=12).ask([Request([IMAGES[0]], TEXT, 0, 0, SCHEMA)])
    assert reply.cut_off
    assert reply.completion_tokens == 12
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.text or "")


def test_without_a_schema_a_weak_model_answers_prose(tiny_llava: Path) -> None:
    (reply,) = engine(tiny_llava, structured=False, max_new_tokens=30).ask([Request([IMAGES[0]], TEXT, 0, 1.0, SCHEMA)])
    assert reply.error is None
    with pytest.raises(ValueError, match="reply"):
        parse_reply(reply.text or "")


def test_a_request_that_raises_fails_alone(tiny_llava: Path) -> None:
    """The tokenizer's image token in a prompt asks for an image that is not there."""
    requests = [Request([IMAGES[0]], TEXT, 0, 0, SCHEMA), Request([IMAGES[1]], TEXT + " <image>", 0, 0, SCHEMA)]
    good, bad = engine(tiny_llava).ask(requests)
    assert good.error is None
    assert bad.text is None
    assert bad.error


def test_a_folder_that_is_no_judge_is_told(tiny_sd: Path) -> None:
    model = Model(str(tiny_sd), None, None, "")
    with pytest.raises(InputError, match=rf"model: '{tiny_sd}' cannot be loaded"):
        TransformersEngine(JudgeSettings(model="x"), model)
