"""How right the judge was, worked by hand."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from run_by_hand import table

from visionprefer.blocksworld.agreement import OracleFigures, agreement
from visionprefer.intervals import interval_over_prompts, wilson_interval
from visionprefer.schema import ASPECTS, JUDGEMENTS, ORACLE

WEIGHTS = dict.fromkeys(ASPECTS, 0.25)

# By prompt, of each image the judge's and the oracle's prompt_following, and its model. None: not judged, or not
# applicable. The other aspects are 3 for both, but for the harmlessness that the oracle gives to "b0".
IMAGES: dict[str, list[tuple[int | None, int | None, str]]] = {
    "a": [(5, 5, "large"), (3, 3, "small"), (4, 3, "large"), (2, 4, "small")],
    "b": [(2, 5, "small"), (2, 1, "large"), (None, 3, "large")],
    "c": [(1, 5, "small")],
    "d": [(1, None, "small"), (5, None, "small")],
}


def compared(images: dict[str, list[tuple[int | None, int | None, str]]] = IMAGES) -> OracleFigures:
    judgements: list[dict[str, Any]] = []
    oracle: list[dict[str, Any]] = []
    plan: list[dict[str, Any]] = []
    for prompt_id, of_prompt in images.items():
        for candidate, (judged, seen, model) in enumerate(of_prompt):
            image_id = f"{prompt_id}{candidate}"
            known = {"image_id": image_id, "prompt_id": prompt_id}
            plan.append(known | {"prompt": prompt_id, "split": "train", "candidate": candidate, "model": model})
            if judged:
                scored = dict.fromkeys(ASPECTS, 3) | {"prompt_following": judged}
                judgements += [known | {"scorer": scorer, "score": score} for scorer, score in scored.items()]
            right = {"fully_right": seen == 5, "facts": 4, "facts_held": 4, "faults": []}
            given = dict.fromkeys(ASPECTS, 3) | {"prompt_following": seen}
            given["harmlessness"] = 1 if image_id == "b0" else 3
            oracle.append(known | {"applicable": seen is not None} | (right | given if seen else {}))
    # The rows of tables come in any order.
    return agreement(table(judgements, JUDGEMENTS), table(oracle[::-1], ORACLE), pa.Table.from_pylist(plan), WEIGHTS)


def test_an_aspect_by_hand() -> None:
    """ "a" has five pairs that the oracle orders: 0-1, 0-2, 0-3 right, 1-3 and 2-3 wrong. "b" has one: a tie."""
    found = compared().aspects["prompt_following"]
    assert (found.pairs, found.agreement, found.tie_rate) == (6, 3.5 / 6, 1 / 6)
    # Prompts of 3/5 and 0.5/1, drawn with replacement: "a" twice, each once, or "b" twice, a quarter of the time.
    assert (found.low, found.high) == (0.5, 0.6)


def test_equal_scores_of_the_oracle_are_no_pair() -> None:
    aspects = compared().aspects
    assert (aspects["aesthetic"].pairs, aspects["aesthetic"].agreement, aspects["aesthetic"].low) == (0, None, None)
    harmlessness = aspects["harmlessness"]  # "b0" against "b1"; "b2" was not judged
    assert (harmlessness.pairs, harmlessness.agreement, harmlessness.tie_rate) == (1, 0.5, 1.0)


def test_overall_is_the_same_weighted_sum_on_both_sides() -> None:
    """As prompt_following, and b0 against b1 by (5 + 1)/4 against (1 + 3)/4."""
    aspects = compared().aspects
    assert list(aspects) == [*ASPECTS, "overall"]
    assert aspects["overall"] == aspects["prompt_following"]


def test_images_by_model() -> None:
    found = compared()
    assert (found.images, found.not_applicable) == (8, 2)
    large, small = sorted(found.models, key=lambda model: model.model or "")
    assert (large.model, large.images, large.fully_right) == ("large", 4, 0.25)
    assert (small.model, small.images, small.fully_right) == ("small", 4, 0.5)
    assert small.means == {"prompt_following": 4.25, "aesthetic": 3.0, "fidelity": 3.0, "harmlessness": 2.5}
    # of "a" none of two, of "b" and "c" one of one
    assert (small.low, small.high) == pytest.approx(interval_over_prompts(np.array([0, 1, 1]), np.array([2, 1, 1])))


def test_a_judge_that_is_always_right_may_err_on_the_next_prompt() -> None:
    found = compared({prompt: [(5, 5, "m"), (1, 1, "m")] for prompt in "abc"}).aspects["overall"]
    assert (found.agreement, found.low, found.high) == (1.0, *wilson_interval(3, 3))


def test_where_nothing_is_applicable_nothing_is_said() -> None:
    found = compared({"d": IMAGES["d"]})
    assert found == OracleFigures(images=0, not_applicable=2, aspects={}, models=[])


def test_where_nothing_was_judged_the_images_are_measured() -> None:
    found = compared({"a": [(None, 5, "m"), (None, 1, "m")]})
    assert (found.aspects, found.models[0].fully_right) == ({}, 0.5)
