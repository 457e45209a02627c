"""A reply in joint mode scores and ranks just the images that were shown, or is told to be unusable."""

import json
from typing import Any

import pytest

from visionprefer.judging.joint_rubric import parse_reply, question, reply_schema, rubric_digest
from visionprefer.judging.rubric import UnusableReply
from visionprefer.judging.rubric import rubric_digest as single_digest
from visionprefer.schema import ASPECTS

GOOD = {a: {"rationale": "The first is redder.", "scores": [5, 3, 3], "ranks": [1, 2, 2]} for a in ASPECTS}


def but(**change: Any) -> str:
    return json.dumps(GOOD | {"fidelity": GOOD["fidelity"] | change})


def test_a_verdict_is_read_whatever_stands_around_it() -> None:
    assert parse_reply(f"```json\n{json.dumps(GOOD)}\n```", 3).model_dump() == GOOD


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("Lovely pictures.", "no JSON object"),
        (json.dumps({"aesthetic": GOOD["aesthetic"]}), "prompt_following is missing"),
        (but(scores=[5, 6, 3]), r"fidelity.scores.1: .* equal to 5, not 6"),
        (but(ranks=[0, 1, 2]), r"fidelity.ranks.0: .* equal to 1, not 0"),
        (but(scores=[5, 3]), r"lists of \[2, 3\] scores and ranks"),
        (but(scores=[5, 3, 2.5]), "integer"),
    ],
)
def test_an_unusable_reply_says_what_is_wrong(raw: str, told: str) -> None:
    with pytest.raises(UnusableReply, match=told):
        parse_reply(raw, 3)


def test_a_verdict_on_other_images_than_were_shown_is_unusable() -> None:
    with pytest.raises(UnusableReply, match="scores 3 images, and 4 were shown"):
        parse_reply(json.dumps(GOOD), 4)


def test_the_schema_wants_as_many_scores_and_ranks_as_images_after_the_rationale() -> None:
    for aspect in reply_schema(100, 3)["properties"].values():
        assert list(aspect["properties"]) == ["rationale", "scores", "ranks"]
        for name, most in (("scores", 5), ("ranks", 3)):
            numbers = aspect["properties"][name]
            assert (numbers["minItems"], numbers["maxItems"], numbers["items"]["enum"][-1]) == (3, 3, most)


def test_the_question_shows_the_form_of_the_answer() -> None:
    asked = question("a {red} cat", 2)
    assert "judging 2 images" in asked and "a {red} cat" in asked
    example = json.loads(asked.rpartition("nothing else:\n")[2].replace('"..."', '"Seen."'))
    assert parse_reply(json.dumps(example), 2).harmlessness.ranks == [1, 1]


def test_joint_and_single_replies_are_told_apart() -> None:
    assert rubric_digest() != single_digest()
