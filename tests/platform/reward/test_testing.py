"""A reward model against what is known, worked by hand: what nothing is known of is not told as a figure."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pyarrow as pa

from visionprefer.intervals import interval_over_prompts
from visionprefer.judging.scores import Scores
from visionprefer.reward import testing
from visionprefer.reward.testing import RewardFigures, ScoredImages
from visionprefer.reward.vpscore import Scored, VPScore
from visionprefer.schema import OVERALL

PLACES = range(3)  # of the images of a prompt; the model scores each by its place, in both ways
MODEL = cast(
    VPScore,
    SimpleNamespace(
        config=SimpleNamespace(scores=(OVERALL, "fidelity")),
        preference=lambda one, other: 0.5 + (one.score - other.score) / 10,
    ),
)


def figures_of(*known: tuple[str, str, str, float]) -> RewardFigures:
    """The model against labels of pairs by aspect; of an image `a1` the prompt is "a", the score 1."""
    names = sorted({f"{image[0]}{place}" for _, image, _, _ in known for place in PLACES})
    scored = {name: Scored(float(name[1]), {"fidelity": float(name[1])}, 0.0) for name in names}
    images = pa.table({"image_id": names, "prompt_id": [name[0] for name in names]})
    values_NS = np.array([[one.score, one.aspects["fidelity"]] for one in scored.values()])
    rows = [
        {"prompt_id": first[0], "image_id_0": first, "image_id_1": second, "aspect": aspect, "label": label}
        for aspect, first, second, label in known
    ]
    found = ScoredImages(Scores(images, [OVERALL, "fidelity"], values_NS), scored)
    return testing.test(MODEL, found, pa.Table.from_pylist(rows), "model", "people")


def test_the_halves_of_its_certainty_take_prompts_for_independent() -> None:
    """Of each prompt both pairs one apart are less certain; "a" is right in them, "b" wrong."""
    near, far = (("0", "1"), ("1", "2")), ("0", "2")
    known = [(OVERALL, p + one, p + other, label) for p, label in (("a", 0.0), ("b", 1.0)) for one, other in near]
    known += [(OVERALL, p + far[0], p + far[1], 0.0) for p in "abcd"]
    figures = figures_of(*known)
    assert (figures.uncertain.pairs, figures.uncertain.right) == (4, 0.5)
    expected = interval_over_prompts(np.array([2.0, 0.0]), np.array([2, 2]))
    assert (figures.uncertain.low, figures.uncertain.high) == expected == (0.0, 1.0)
    assert (figures.certain.pairs, figures.certain.right) == (4, 1.0)


def test_one_pair_has_no_less_certain_half() -> None:
    figures = figures_of((OVERALL, "a0", "a1", 0.0))
    assert (figures.certain.pairs, figures.certain.right) == (1, 1.0)
    _, halves, _ = testing.tables(figures)
    assert [row[:3] for row in halves.rows] == [["more certain", "1", "100.0 %"], ["less certain", "0", "–"]]
    assert halves.rows[1][3] == "–"


def test_where_nothing_is_known_of_the_first_score_nothing_is_told_of_it() -> None:
    figures = figures_of(("fidelity", "a0", "a1", 0.0))
    agreement, halves, protocols = testing.tables(figures)
    assert [row[:3] for row in agreement.rows] == [["fidelity", "1", "100.0 %"]]
    assert [row[1:] for row in halves.rows] == [["0", "–", "–"]] * 2
    assert protocols.rows == [["ImageReward", "–"], ["HPD v2", "–"]]
    assert RewardFigures.model_validate_json(figures.model_dump_json()) == figures


def test_known_ties_alone_are_none_of_imagerewards_pairs() -> None:
    figures = figures_of((OVERALL, "a0", "a1", 0.5), ("fidelity", "a0", "a1", 0.0))
    assert figures.protocols == {"ImageReward": None, "HPD v2": 1.0}
