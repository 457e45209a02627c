"""Several judges' scores, worked by hand and against published examples."""

import pyarrow as pa
import pytest

from visionprefer.judging.between_judges import alphas, pair_agreements, voted_preferences
from visionprefer.recipe import PreferenceSettings

SETTINGS = PreferenceSettings(weights={"fidelity": 1.0})
PLAN = pa.table(
    {
        "image_id": ["x", "y", "z"],
        "prompt_id": ["p"] * 3,
        "prompt": ["p"] * 3,
        "split": ["train"] * 3,
        "candidate": [0, 1, 2],
    }
)


def given(**scores: float) -> pa.Table:
    """One judge's fidelity, by image."""
    rows = [{"image_id": image, "scorer": "fidelity", "score": float(score)} for image, score in scores.items()]
    return pa.Table.from_pylist(rows)


def of_counts(counts: dict[tuple[int, int], int]) -> dict[str, pa.Table]:
    """Two judges who so often gave such scores to one image."""
    both = [pair for pair, times in counts.items() for _ in range(times)]
    return {
        judge: given(**{f"i{n}": pair[place] for n, pair in enumerate(both)}) for place, judge in enumerate(("a", "b"))
    }


def test_cohens_kappa_of_a_textbook_table() -> None:
    """20 both yes, 15 both no, 5 and 10 apart: 0.7 observed, 0.5 by chance."""
    [found] = pair_agreements(of_counts({(1, 1): 20, (1, 2): 5, (2, 1): 10, (2, 2): 15}))
    assert (found.images, found.same) == (50, 0.7)
    assert found.kappa == pytest.approx(0.4)
    assert found.weighted_kappa == pytest.approx(0.4)  # of two scores, the same


def test_a_point_apart_weighs_less_than_four() -> None:
    near, far = ({(1, 1): 5, (5, 5): 5, off: 2} for off in ((1, 2), (1, 5)))
    [near_pair], [far_pair] = pair_agreements(of_counts(near)), pair_agreements(of_counts(far))
    assert near_pair.same == far_pair.same
    assert near_pair.weighted_kappa > far_pair.weighted_kappa  # type: ignore[operator]
    # 1 − observed over expected squared distance: b gave 2 where a gave 1, twice of 12.
    expected = (7 * (2 * 1 + 5 * 16) + 5 * (5 * 16 + 2 * 9)) / 12**2
    assert near_pair.weighted_kappa == pytest.approx(1 - (2 / 12) / expected)


def test_krippendorffs_alpha_leaves_out_what_one_judge_alone_scored() -> None:
    """Three images of two judges: 1 and 2, 3 and 3, 5 and 5."""
    by_judge = {"a": given(x=1, y=3, z=5, alone=2), "b": given(x=2, y=3, z=5)}
    [found] = alphas(by_judge)
    values = [1, 2, 3, 3, 5, 5]
    expected = sum((v - w) ** 2 for v in values for w in values) / (6 * 5)
    observed = 2 * (1 - 2) ** 2 / 6
    assert (found.images, found.alpha) == (3, pytest.approx(1 - observed / expected))


def test_judges_who_give_one_score_only_have_no_coefficient() -> None:
    by_judge = {"a": given(x=3, y=3), "b": given(x=3, y=3)}
    [pair], [all_] = pair_agreements(by_judge), alphas(by_judge)
    assert (pair.same, pair.kappa, pair.weighted_kappa, all_.alpha) == (1.0, None, None, None)


def test_judges_who_saw_no_image_in_common_are_not_compared() -> None:
    by_judge = {"a": given(x=3), "b": given(y=2)}
    assert pair_agreements(by_judge) == []
    assert [(of.images, of.alpha) for of in alphas(by_judge)] == [(0, None)]


def test_a_vote_is_of_judges_not_of_points() -> None:
    """Two judges prefer x by a point, the third y by four: the mean prefers y, the vote x."""
    tables = [given(x=3, y=2, z=1), given(x=4, y=3), given(x=1, y=5, z=1)]
    found = {
        (row["image_id_0"], row["image_id_1"]): row
        for row in voted_preferences(tables, PLAN, SETTINGS).to_pylist()
        if row["aspect"] == "fidelity"
    }
    assert found["x", "y"]["label"] == 1.0
    assert found["x", "y"]["score_0"] < found["x", "y"]["score_1"]
    assert found["x", "z"]["label"] == 1.0  # one for x, one tie, and one that did not see z
    margin = SETTINGS.model_copy(update={"tie_margin": 1.0})
    tied = voted_preferences(tables[:2], PLAN, margin)
    assert set(tied.filter(pa.compute.field("image_id_1") == "y")["label"].to_pylist()) == {0.5}


def test_the_margin_of_a_vote_is_between_the_means_of_judges_not_of_replies() -> None:
    """One judge gives 4 and 3 four times, another 1 and 5 once: means of 2.5 and 4."""
    often, once = pa.concat_tables([given(x=4, y=3)] * 4), given(x=1, y=5)
    tables = [
        table.append_column("judge", pa.array([judge] * table.num_rows))
        for judge, table in (("often", often), ("once", once))
    ]
    row = voted_preferences(tables, PLAN, SETTINGS).to_pylist()[0]
    assert (row["score_0"], row["score_1"], row["margin"], row["label"]) == (2.5, 4.0, 1.5, 0.5)
