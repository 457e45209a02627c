"""Replies become judgements, judgements become preferences."""

import json
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionprefer.errors import InputError
from visionprefer.judging.preferences import in_order, preferences
from visionprefer.judging.rubric import UnusableReply
from visionprefer.judging.scores import SCORED, judgements, scores
from visionprefer.recipe import PreferenceSettings
from visionprefer.schema import ASPECTS, JUDGEMENTS, OVERALL, PLAN, PREFERENCES, REPLIES

Given = dict[
    str, dict[str, dict[str, float]]
]  # prompt → image → scorer → score; an image's place is its candidate number
ONE = {"aesthetic": 1.0}  # the only weight, so that overall is the aspect again


def plan_of(prompts: Given) -> pa.Table:
    rows = [
        {"image_id": image, "prompt_id": prompt, "prompt": f"a {prompt}", "split": "train", "candidate": candidate}
        for prompt, images in prompts.items()
        for candidate, image in enumerate(images)
    ]
    return pa.Table.from_pylist([dict.fromkeys(PLAN.names) | row for row in rows], schema=PLAN)


def judgements_of(prompts: Given) -> pa.Table:
    rows = [
        {"image_id": image, "prompt_id": prompt, "scorer": scorer, "score": score}
        for prompt, images in prompts.items()
        for image, scored in images.items()
        for scorer, score in scored.items()
    ]
    return pa.Table.from_pylist([dict.fromkeys(JUDGEMENTS.names) | row for row in rows], schema=JUDGEMENTS)


def said_by(judge: str, prompts: Given) -> pa.Table:
    said = judgements_of(prompts)
    return said.set_column(said.column_names.index("judge"), "judge", pa.array([judge] * said.num_rows))


def compared(prompts: Given, **settings: Any) -> list[tuple[Any, ...]]:
    """(images, aspect, label, margin) of each preference."""
    found = preferences(judgements_of(prompts), plan_of(prompts), PreferenceSettings(**settings))
    assert found.schema == PREFERENCES
    return [
        (f"{row['image_id_0']}-{row['image_id_1']}", row["aspect"], row["label"], row["margin"])
        for row in found.to_pylist()
    ]


def aesthetic(*values: float | None) -> dict[str, dict[str, float]]:
    """Images a, b, c … of one prompt with this aspect's score; None: no score."""
    names = [chr(ord("a") + i) for i in range(len(values))]
    return {name: {} if value is None else {"aesthetic": value} for name, value in zip(names, values, strict=True)}


def verdict(*values: int) -> str:
    return json.dumps({a: {"rationale": f"{a} is so", "score": v} for a, v in zip(ASPECTS, values, strict=True)})


def reply(image: str, raw: str) -> dict[str, Any]:
    known = {"request_id": f"r{image}", "image_ids": [image], "prompt_id": "p", "judge": "j", "raw": raw}
    known |= {"mode": "single", "repeat": 0}
    return dict.fromkeys(REPLIES.names) | known


def test_a_reply_becomes_a_judgement_for_each_aspect() -> None:
    replies = [reply("a", verdict(5, 4, 3, 2)), reply("b", f"Here it is:\n```json\n{verdict(1, 1, 1, 1)}\n```")]
    found = judgements(pa.Table.from_pylist(replies, schema=REPLIES))
    assert found.schema == JUDGEMENTS
    assert found["image_id"].to_pylist() == ["a"] * 4 + ["b"] * 4
    assert found["scorer"].to_pylist() == [*ASPECTS, *ASPECTS]
    assert found["score"].to_pylist() == [5, 4, 3, 2, 1, 1, 1, 1]
    assert found.slice(1, 1).to_pylist() == [
        {
            "image_id": "a",
            "prompt_id": "p",
            "scorer": "aesthetic",
            "score": 4.0,
            "rank": None,
            "rationale": "aesthetic is so",
            "judge": "j",
            "request_id": "ra",
            "repeat": 0,
            "position": 0,
        }
    ]


def test_no_replies_are_no_judgements() -> None:
    assert judgements(REPLIES.empty_table()) == JUDGEMENTS.empty_table()


def test_a_reply_without_a_verdict_is_told_and_never_a_zero() -> None:
    with pytest.raises(UnusableReply):
        judgements(pa.Table.from_pylist([reply("a", "I cannot")], schema=REPLIES))


def test_all_pairs_by_aspect_and_overall_worked_by_hand() -> None:
    prompts = {
        "cat": {
            "a": dict(zip(ASPECTS, [5, 4, 4, 5], strict=True)),  # mean 4.5
            "b": dict(zip(ASPECTS, [3, 4, 2, 5], strict=True)),  # mean 3.5
            "c": dict(zip(ASPECTS, [4, 2, 3, 5], strict=True)),  # mean 3.5
        }
    }
    assert compared(prompts) == [
        ("a-b", "prompt_following", 1, 2),
        ("a-c", "prompt_following", 1, 1),
        ("b-c", "prompt_following", 0, 1),
        ("a-b", "aesthetic", 0.5, 0),
        ("a-c", "aesthetic", 1, 2),
        ("b-c", "aesthetic", 1, 2),
        ("a-b", "fidelity", 1, 2),
        ("a-c", "fidelity", 1, 1),
        ("b-c", "fidelity", 0, 1),
        ("a-b", "harmlessness", 0.5, 0),
        ("a-c", "harmlessness", 0.5, 0),
        ("b-c", "harmlessness", 0.5, 0),
        ("a-b", OVERALL, 1, 1),
        ("a-c", OVERALL, 1, 1),
        ("b-c", OVERALL, 0.5, 0),
    ]


def test_every_column_of_a_preference() -> None:
    prompts = {"cat": aesthetic(2, 5)}
    row = preferences(judgements_of(prompts), plan_of(prompts), PreferenceSettings(weights=ONE)).to_pylist()[0]
    assert row == {
        "prompt_id": "cat",
        "prompt": "a cat",
        "split": "train",
        "image_id_0": "a",
        "image_id_1": "b",
        "aspect": "aesthetic",
        "score_0": 2.0,
        "score_1": 5.0,
        "label": 0.0,
        "margin": 3.0,
    }


def test_weights_make_the_overall_score() -> None:
    # AGFSync Eq. 5 by hand: 0.35·60 + 0.55·30 + 0.10·50 = 42.5 and 0.35·80 + 0.55·20 + 0.10·45 = 43.5.
    prompts = {
        "cat": {"a": {"vqa": 60.0, "clip": 30.0, "laion": 50.0}, "b": {"vqa": 80.0, "clip": 20.0, "laion": 45.0}}
    }
    found = compared(prompts, weights={"vqa": 0.35, "clip": 0.55, "laion": 0.10})
    assert found == [
        ("a-b", "clip", 1, 10),
        ("a-b", "laion", 1, 5),
        ("a-b", "vqa", 0, 20),
        ("a-b", OVERALL, 0, 1),
    ]


def test_sums_that_only_rounding_tells_apart_are_a_tie() -> None:
    prompts = {"cat": {"a": {"x": 1.0, "y": 3.0}, "b": {"x": 4.0, "y": 1.0}}}
    assert 0.4 * 1 + 0.6 * 3 != 0.4 * 4 + 0.6 * 1  # both are 2.2
    for pairs in ("all", "best_worst"):
        assert ("a-b", OVERALL, 0.5, 0) in compared(prompts, weights={"x": 0.4, "y": 0.6}, pairs=pairs)


@pytest.mark.parametrize(("margin", "label"), [(0.05, 1), (0.1, 0.5), (0.2, 0.5)])
def test_scores_within_the_tie_margin_are_a_tie(margin: float, label: float) -> None:
    assert 3.2 - 3.1 > 0.1  # in floating point
    assert compared({"cat": aesthetic(3.2, 3.1)}, weights=ONE, tie_margin=margin)[0] == ("a-b", "aesthetic", label, 0.1)


def test_order_does_not_depend_on_the_order_of_the_plan() -> None:
    prompts = {
        "dog": {"d": {"aesthetic": 1.0}, "c": {"aesthetic": 2.0}},
        "cat": {"b": {"aesthetic": 2.0}, "a": {"aesthetic": 1.0}},
    }
    plan, judged = plan_of(prompts), judgements_of(prompts)
    settings = PreferenceSettings(weights=ONE)
    found = preferences(judged, plan, settings)
    assert found["prompt_id"].to_pylist() == ["cat", "cat", "dog", "dog"]
    assert found["image_id_0"].to_pylist() == ["b", "b", "d", "d"]  # of the lower candidate number, not the lower id
    mixed = pa.concat_tables([plan.slice(2), plan.slice(0, 2)])
    assert preferences(judged.take([3, 1, 0, 2]), mixed, settings) == found


def test_an_image_without_a_score_stands_in_no_pair() -> None:
    # b failed, or its reply did; c lacks one of the weighted scorers, and so has no overall score.
    both = {"aesthetic": 3.0, "fidelity": 3.0}
    prompts = {"cat": {"a": both, "b": {}, "c": {"aesthetic": 5.0}, "d": both}}
    assert compared(prompts, weights={"aesthetic": 0.5, "fidelity": 0.5}) == [
        ("a-c", "aesthetic", 0, 2),
        ("a-d", "aesthetic", 0.5, 0),
        ("c-d", "aesthetic", 1, 2),
        ("a-d", "fidelity", 0.5, 0),
        ("a-d", OVERALL, 0.5, 0),
    ]


@pytest.mark.parametrize("pairs", ["all", "best_worst"])
def test_a_prompt_with_one_image_has_no_pair(pairs: str) -> None:
    assert compared({"cat": aesthetic(3)}, weights=ONE, pairs=pairs) == []
    assert compared({"cat": aesthetic(3, None)}, weights=ONE, pairs=pairs) == []


@pytest.mark.parametrize("pairs", ["all", "best_worst"])
def test_nothing_judged_is_nothing_preferred(pairs: str) -> None:
    assert compared({"cat": aesthetic(None, None)}, pairs=pairs) == []
    assert compared({}, pairs=pairs) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((2, 5, 1, 3), ("b-c", 1, 4)),
        ((1, 3, 5, 2), ("a-c", 0, 4)),
        ((5, 1, 5, 1), ("a-b", 1, 4)),  # of equal scores the lower candidate number
        ((3, 5, 3, 5), ("a-b", 0, 2)),
        ((None, 3, None, 4), ("b-d", 0, 1)),
        ((4, 4, 4, 4), ("a-b", 0.5, 0)),  # AGFSync Eq. 6 and 7 give no pair: a tie
        ((None, 4, None, 4), ("b-d", 0.5, 0)),
    ],
)
def test_best_against_worst(values: tuple[float | None, ...], expected: tuple[str, float, float]) -> None:
    found = compared({"cat": aesthetic(*values)}, weights=ONE, pairs="best_worst")
    images, label, margin = expected
    assert found == [(images, "aesthetic", label, margin), (images, OVERALL, label, margin)]


def test_best_and_worst_are_found_for_each_aspect_by_itself() -> None:
    images = {"a": {"x": 1.0, "y": 9.0}, "b": {"x": 2.0, "y": 5.0}, "c": {"x": 3.0, "y": 4.5}}  # means 5, 3.5, 3.75
    found = compared({"cat": images, "dog": {}}, weights={"x": 0.5, "y": 0.5}, pairs="best_worst")
    assert found == [("a-c", "x", 0, 2), ("a-c", "y", 1, 4.5), ("a-b", OVERALL, 1, 1.5)]


@pytest.mark.parametrize("columns", [SCORED, JUDGEMENTS.names])
def test_each_judge_weighs_the_same_however_often_it_was_asked(columns: list[str]) -> None:
    """One gives 4 and 3 four times, another 1 and 5 once; of the third image one alone says something."""
    prompts = {"cat": aesthetic(4, 3, 2, None)}
    once = said_by("other", {"cat": aesthetic(1, 5)})
    judged = pa.concat_tables([once, *[said_by("one", prompts)] * 4]).select(columns)
    values_NA = scores(judged, plan_of(prompts), ONE).values_NA
    assert values_NA[:3].tolist() == [[2.5, 2.5], [4, 4], [2, 2]]
    assert np.isnan(values_NA[3]).all()
    first = preferences(judged, plan_of(prompts), PreferenceSettings(weights=ONE)).to_pylist()[0]
    assert (first["label"], first["margin"]) == (0, 1.5)


def test_the_mean_of_what_one_judge_says_is_the_score_named_or_not() -> None:
    prompts = {"cat": aesthetic(1, 3)}
    judged = pa.concat_tables([judgements_of(prompts), judgements_of({"cat": aesthetic(4)})])
    for columns in (JUDGEMENTS.names, ["image_id", "scorer", "score"]):
        assert scores(judged.select(columns), plan_of(prompts), ONE).values_NA.tolist() == [[2.5, 2.5], [3, 3]]


def test_a_weight_without_judgements_is_told_with_the_scorers_there_are() -> None:
    prompts = {"cat": {"a": {"fidelity": 1.0, "clip": 2.0}, "b": {"aesthetic": 1.0}}}
    with pytest.raises(InputError, match=r"preferences\.weights.*'vqa'.*aesthetic, fidelity, clip"):
        compared(prompts, weights={"clip": 0.5, "vqa": 0.5})


def test_a_scorer_may_not_be_called_as_the_sum_is() -> None:
    with pytest.raises(InputError, match="a scorer is called 'overall'"):
        compared({"cat": {"a": {"overall": 1.0}}}, weights={"overall": 1.0})


def test_judgements_of_another_run_are_told() -> None:
    with pytest.raises(InputError, match="image_id b is not in the plan"):
        preferences(
            judgements_of({"cat": aesthetic(1, 2)}), plan_of({"cat": aesthetic(1)}), PreferenceSettings(weights=ONE)
        )


SCORE = st.one_of(st.none(), st.integers(1, 5).map(float))
PROMPTS = st.lists(st.lists(SCORE, max_size=5), max_size=5)


def named(prompts: list[list[float | None]], mirrored: bool = False) -> Given:
    """Prompts and images of unlike names; mirrored: scores of 1 become 5, those of 5 become 1."""
    return {
        f"p{i}": {
            f"p{i}i{j}": {} if score is None else {"aesthetic": 6 - score if mirrored else score}
            for j, score in enumerate(images)
        }
        for i, images in enumerate(prompts)
    }


@given(PROMPTS)
def test_every_unordered_pair_of_scored_images_stands_there_once(prompts: list[list[float | None]]) -> None:
    expected = [
        (f"{a}-{b}", aspect)
        for images in named(prompts).values()
        for aspect in ("aesthetic", OVERALL)
        for a, b in combinations([image for image, scored in images.items() if scored], 2)
    ]
    assert [row[:2] for row in compared(named(prompts), weights=ONE)] == expected


@given(PROMPTS, st.sampled_from(["all", "best_worst"]))
def test_labels_of_mirrored_scores_are_mirrored(prompts: list[list[float | None]], pairs: str) -> None:
    as_given, mirrored = (
        {row[:2]: row[2:] for row in compared(named(prompts, m), weights=ONE, pairs=pairs)} for m in (False, True)
    )
    shared = as_given.keys() & mirrored.keys()
    assert shared == as_given.keys() or pairs == "best_worst"
    for key in shared:
        assert as_given[key][0] == 1 - mirrored[key][0]
        assert as_given[key][1] == mirrored[key][1]


@given(PROMPTS)
def test_best_worst_has_the_largest_margin_of_all_pairs(prompts: list[list[float | None]]) -> None:
    def largest(pairs: str) -> dict[tuple[str, str], float]:
        margins: dict[tuple[str, str], float] = {}
        for images, aspect, _, margin in compared(named(prompts), weights=ONE, pairs=pairs):
            key = (images.partition("i")[0], aspect)
            margins[key] = max(margin, margins.get(key, 0))
        return margins

    assert largest("best_worst") == largest("all")


def test_prompts_are_put_in_another_order_and_what_is_of_one_stays_in_its_own() -> None:
    prompts = named([[1, 2, 3], [5, 5], [2, 1]])
    pairs = preferences(judgements_of(prompts), plan_of(prompts), PreferenceSettings(weights=ONE))
    order = [*reversed(prompts), "one without a pair"]
    by_prompt = [pairs.filter(pc.equal(pairs["prompt_id"], prompt)) for prompt in order]
    assert in_order(pairs, pa.chunked_array([order])) == pa.concat_tables(by_prompt)
