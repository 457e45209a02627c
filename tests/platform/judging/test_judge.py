"""One reply for each image: a second asking where the first was unusable, and a failed row where both were."""

import io
import json

import pyarrow as pa
import pytest
from PIL import Image

from visionprefer.engine_settings import ApiSettings
from visionprefer.errors import InputError
from visionprefer.judging.asking import Asker
from visionprefer.judging.engine import Reply, Request
from visionprefer.judging.judge import JudgeQuestions, judge_digest, repeated
from visionprefer.models import Model
from visionprefer.recipe import JudgeSettings
from visionprefer.schema import ASPECTS, IMAGE, REPLIES

VERDICT = json.dumps({aspect: {"rationale": "Seen.", "score": 3} for aspect in ASPECTS})
MODEL = Model("folder/judge", None, None, "digest")
SETTINGS = JudgeSettings(model="folder/judge")


class Scripted:
    """An engine that answers from a list, asking by asking, and remembers what it was asked."""

    def __init__(self, *answers: list[Reply]) -> None:
        self.answers = list(answers)
        self.asked: list[list[Request]] = []

    def ask(self, requests: list[Request]) -> list[Reply]:
        self.asked.append(requests)
        return self.answers.pop(0) if requests else []

    def describe(self) -> str:
        return "scripted"


def png(color: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(buffer, "png")
    return buffer.getvalue()


def images(*data: bytes, times: int = 1) -> pa.Table:
    shown = pa.table(
        {
            "image_id": [f"image {i}" for i in range(len(data))],
            "prompt_id": ["p"] * len(data),
            "prompt": ["a cat"] * len(data),
            "image": pa.array([{"bytes": d, "path": "x.png"} for d in data], IMAGE),
        }
    )
    return repeated(shown, times)


def test_an_unusable_reply_is_asked_for_once_more_with_another_seed() -> None:
    engine = Scripted([Reply("prose", 10, 3), Reply(VERDICT, 10, 50)], [Reply(VERDICT, 10, 51, cost=0.5)])
    done, failed = Asker(JudgeQuestions(SETTINGS, MODEL), engine)(images(png(), png("blue")))
    assert done.schema == REPLIES
    assert failed.num_rows == 0
    first, second = sorted(done.to_pylist(), key=lambda row: row["image_ids"])
    assert (first["asked"], first["prompt_tokens"], first["completion_tokens"], first["cost"]) == (2, 20, 54, 0.5)
    assert (second["asked"], second["prompt_tokens"], second["completion_tokens"], second["cost"]) == (1, 10, 50, None)
    assert len(engine.asked[1]) == 1
    assert engine.asked[0][0].seed != engine.asked[1][0].seed
    assert engine.asked[0][0].temperature == 0
    assert engine.asked[1][0].temperature > 0


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply("It is lovely.", 10, 5), "no JSON object but begins 'It is lovely.'"),
        (Reply(" " * 500, 10, 500, cut_off=True), "cut off after 500 tokens: the reply is white space"),
        (Reply(VERDICT.replace("3", "9"), 10, 50), "less than or equal to 5, not 9"),
        (Reply(None, 0, 0, error="OutOfMemoryError: 3 GiB"), "OutOfMemoryError: 3 GiB"),
    ],
)
def test_a_failure_is_a_row_with_its_reason_and_the_raw_reply(reply: Reply, reason: str) -> None:
    engine = Scripted([reply, Reply(VERDICT, 10, 50)], [reply])
    done, failed = Asker(JudgeQuestions(SETTINGS, MODEL), engine)(images(png(), png("blue")))
    assert done.num_rows == 1
    (row,) = failed.to_pylist()
    assert reason in row["error"]
    assert row["raw"] == reply.text
    assert row["image_ids"] == ["image 0"]
    assert row["asked"] == 2


def test_what_was_answered_is_kept_when_the_second_asking_stops_the_run() -> None:
    class Refusing(Scripted):
        def ask(self, requests: list[Request]) -> list[Reply]:
            if not self.answers:
                raise InputError("the budget is spent")
            return super().ask(requests)

    engine = Refusing([Reply("prose", 10, 3), Reply(VERDICT, 10, 50)])
    done, failed = Asker(JudgeQuestions(SETTINGS, MODEL), engine)(images(png(), png("blue")))
    assert (done.num_rows, failed["raw"].to_pylist()) == (1, ["prose"])
    with pytest.raises(InputError, match="budget"):
        Asker(JudgeQuestions(SETTINGS, MODEL), engine)(images(png()))


def test_an_image_that_cannot_be_decoded_fails_alone_and_is_never_asked_about() -> None:
    engine = Scripted([Reply(VERDICT, 10, 50)], [])
    done, failed = Asker(JudgeQuestions(SETTINGS, MODEL), engine)(images(png()[:40], png()))
    assert done["image_ids"].to_pylist() == [["image 1"]]
    assert "cannot be decoded" in failed["error"][0].as_py()
    assert [len(asked) for asked in engine.asked] == [1, 0]


def test_a_later_generation_asks_with_seeds_of_its_own() -> None:
    engine = Scripted(*([Reply("prose", 1, 1)] for _ in range(4)))
    judge = Asker(JudgeQuestions(SETTINGS, MODEL), engine)
    judge(images(png()), generation=0)
    judge(images(png()), generation=1)
    seeds = [asked[0].seed for asked in engine.asked]
    assert len(set(seeds)) == 4


def test_an_image_that_is_judged_several_times_is_asked_about_with_other_seeds() -> None:
    engine = Scripted([Reply(VERDICT, 10, 50)] * 6)
    settings = SETTINGS.model_copy(update={"repeats": 3, "temperature": 1.0})
    done, failed = Asker(JudgeQuestions(settings, MODEL), engine)(images(png(), png("blue"), times=3))
    assert failed.num_rows == 0
    rows = sorted((row["image_ids"], row["repeat"]) for row in done.to_pylist())
    assert rows == [([f"image {image}"], repeat) for image in range(2) for repeat in range(3)]
    assert len(set(done["request_id"].to_pylist())) == 6
    assert len({request.seed for asked in engine.asked for request in asked}) == 6


def test_a_judge_is_another_one_when_its_answers_may_be_other_ones() -> None:
    before = judge_digest(MODEL, SETTINGS)
    for change in ({"temperature": 1.0}, {"structured": False}, {"max_new_tokens": 9}, {"dtype": "float16"}):
        assert judge_digest(MODEL, SETTINGS.model_copy(update=change)) != before
    sampled = SETTINGS.model_copy(update={"sampling": {"top_p": 0.8}})
    assert judge_digest(MODEL, sampled) != before
    assert judge_digest(MODEL, SETTINGS.model_copy(update={"repeats": 2})) != before
    joint = SETTINGS.model_copy(update={"mode": "joint"})
    assert judge_digest(MODEL, joint) != before
    assert judge_digest(MODEL, joint.model_copy(update={"swapped": 0.5})) == judge_digest(MODEL, joint)
    assert judge_digest(MODEL._replace(digest="other"), SETTINGS) != before
    for same in ({"batch_size": 3}, {"device": "cpu"}, {"model": "moved/judge"}, {"api": ApiSettings()}):
        assert judge_digest(MODEL, SETTINGS.model_copy(update=same)) == before
