"""Methods are compared prompt by prompt with the model that they began with."""

from typing import Any

import pyarrow as pa
import pytest

from visionprefer.blocksworld.comparison import compare, suited_guidance
from visionprefer.errors import InputError
from visionprefer.schema import ASPECTS, ORACLE


def tables(right: dict[str, list[bool]], scores: dict[str, int] | None = None) -> tuple[pa.Table, pa.Table]:
    """ORACLE and images of models that drew a prompt each for these answers."""
    oracle, images = [], []
    for model, of_model in right.items():
        for prompt, is_right in enumerate(of_model):
            image_id = f"{model} {prompt}"
            images.append({"image_id": image_id, "prompt_id": str(prompt), "model": model})
            row: dict[str, Any] = {"image_id": image_id, "applicable": True, "fully_right": is_right}
            oracle.append(row | dict.fromkeys(ASPECTS, (scores or {}).get(model, 3)))
    return pa.Table.from_pylist(oracle, schema=ORACLE), pa.Table.from_pylist(images)


def test_the_gain_is_the_mean_over_seeds_and_prompts():
    right = {"base": [True, False] * 50, "a-0": [True] * 100, "a-1": [True, False] * 50, "b": [False] * 100}
    before, a, b = compare(*tables(right, {"a-0": 4, "b": 2}), "base", {"a": ["a-0", "a-1"], "b": ["b"]})
    assert (before.method, before.models, before.fully_right.mean) == ("before", 1, 0.5)
    assert 0.38 < before.fully_right.low < 0.45 < 0.55 < before.fully_right.high < 0.62
    assert (a.models, a.fully_right.mean, a.gained["fully_right"].mean) == (2, 0.75, 0.25)
    assert 0.15 < a.gained["fully_right"].low < 0.25 < a.gained["fully_right"].high < 0.35
    assert a.gained["fidelity"] == (0.5, 0.5, 0.5)
    assert (b.gained["fully_right"].mean, b.gained["aesthetic"].mean) == (-0.5, -1)


def test_a_gain_on_the_same_prompts_is_surer_than_the_shares_are():
    base = [True, False] * 50
    better = [True] * 10 + base[10:]
    _, after = compare(*tables({"base": base, "better": better}), "base", {"better": ["better"]})
    gained, share = after.gained["fully_right"], after.fully_right
    assert gained.low > 0
    assert gained.high - gained.low < 0.6 * (share.high - share.low)


def test_what_cannot_be_compared_is_told():
    oracle, images = tables({"base": [True] * 3, "other": [True] * 2})
    with pytest.raises(InputError, match="other did not draw the prompts that base drew"):
        compare(oracle, images, "base", {"other": ["other"]})
    with pytest.raises(InputError, match=r"third: no image of it is in the run\. Its models are base, other"):
        compare(oracle, images, "base", {"third": ["third"]})
    twice = images.set_column(1, "prompt_id", pa.array(["0"] * 5))
    with pytest.raises(InputError, match="base drew several images for a prompt"):
        compare(oracle, twice, "base", {})


def test_each_model_gets_the_guidance_that_the_judge_likes():
    scores = {("base", 1.5): 2, ("base", 2.5): 4, ("tuned", 1.5): 5, ("tuned", 2.5): 3}
    images, judgements = [], []
    for (model, guidance), score in scores.items():
        for image in range(3):
            image_id = f"{model} {guidance} {image}"
            images.append({"image_id": image_id, "model": model, "guidance_scale": guidance})
            judgements += [
                {"image_id": image_id, "scorer": aspect, "score": float(score), "repeat": 0} for aspect in ASPECTS
            ]
    told = suited_guidance(pa.Table.from_pylist(judgements), pa.Table.from_pylist(images))
    assert told == {"base": 2.5, "tuned": 1.5}
