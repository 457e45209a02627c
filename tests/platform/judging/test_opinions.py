"""A judge that says now this and now the opposite of a pair prefers neither; what it gives to places is seen."""

import pyarrow as pa
import pytest

from visionprefer.judging.consistency import positions, self_consistency
from visionprefer.judging.opinions import opinions, preferred, said
from visionprefer.judging.preferences import preferences
from visionprefer.recipe import PreferenceSettings
from visionprefer.schema import JUDGEMENTS, OVERALL, PLAN

SETTINGS = PreferenceSettings(weights={"aesthetic": 1.0})
Shown = dict[str, tuple[int, int]]  # image → score and rank, in the order shown


def judged(*askings: Shown, judge: str = "j") -> pa.Table:
    """One aspect of prompt "p", shown so many times."""
    rows = [
        {"image_id": image, "prompt_id": "p", "scorer": "aesthetic", "score": score, "rank": rank, "judge": judge}
        | {"request_id": f"{judge}{repeat}", "repeat": repeat, "position": position}
        for repeat, shown in enumerate(askings)
        for position, (image, (score, rank)) in enumerate(shown.items())
    ]
    return pa.Table.from_pylist([dict.fromkeys(JUDGEMENTS.names) | row for row in rows], schema=JUDGEMENTS)


def plan(*images: str) -> pa.Table:
    rows = [
        dict.fromkeys(PLAN.names) | {"image_id": image, "prompt_id": "p", "prompt": "a cat", "candidate": i}
        for i, image in enumerate(images)
    ]
    return pa.Table.from_pylist(rows, schema=PLAN)


def labels(judgements: pa.Table) -> dict[str, float]:
    pairs = preferences(judgements, plan("a", "b"), SETTINGS)
    return dict(zip(pairs["aspect"].to_pylist(), pairs["label"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("askings", "aesthetic", "overall"),
    [
        ([{"a": (5, 1), "b": (3, 2)}], 1, 1),
        ([{"a": (3, 2), "b": (5, 1)}], 0, 0),
        ([{"a": (3, 1), "b": (3, 2)}], 0.5, 0.5),  # scores decide, ranks alone do not
        ([{"a": (5, 2), "b": (3, 1)}], 0.5, 1),  # ranks contradict, and say nothing of the whole
        ([{"a": (5, 1), "b": (3, 2)}, {"b": (3, 2), "a": (4, 1)}], 1, 1),
        ([{"a": (5, 1), "b": (3, 2)}, {"b": (4, 1), "a": (4, 1)}], 1, 1),  # once undecided is no contradiction
        ([{"a": (5, 1), "b": (3, 2)}, {"b": (4, 1), "a": (3, 2)}], 0.5, 0.5),
    ],
)
def test_a_pair_of_which_a_judge_says_the_opposite_too_is_a_tie(
    askings: list[Shown], aesthetic: float, overall: float
) -> None:
    assert labels(judged(*askings)) == {"aesthetic": aesthetic, OVERALL: overall}


def test_the_mean_of_both_askings_is_the_score() -> None:
    pair = preferences(judged({"a": (5, 1), "b": (3, 2)}, {"b": (2, 2), "a": (4, 1)}), plan("a", "b"), SETTINGS)
    assert pair.select(["score_0", "score_1", "margin"]).to_pylist()[0] == {"score_0": 4.5, "score_1": 2.5, "margin": 2}


def test_judges_that_differ_do_not_contradict_themselves() -> None:
    both = pa.concat_tables([judged({"a": (5, 1), "b": (1, 2)}), judged({"a": (2, 2), "b": (3, 1)}, judge="k")])
    assert labels(both) == {"aesthetic": 1, OVERALL: 1}


def test_a_judge_that_contradicts_itself_has_no_vote() -> None:
    judgements = judged({"a": (5, 1), "b": (1, 2)}, {"b": (3, 1), "a": (2, 2)})
    pairs = preferences(judgements, plan("a", "b"), SETTINGS)
    assert said(judgements, plan("a", "b"), pairs, SETTINGS).tolist() == [0, 0]


def test_self_consistency_worked_by_hand() -> None:
    judgements = judged(
        {"a": (5, 1), "b": (3, 2), "c": (3, 2)},  # a > b, a > c, b = c
        {"c": (4, 1), "b": (3, 2), "a": (4, 1)},  # a > b, a = c, c > b
    )
    images = plan("a", "b", "c")
    aesthetic, overall = self_consistency(judgements, images, preferences(judgements, images, SETTINGS), SETTINGS)
    assert (aesthetic.pairs, aesthetic.same, aesthetic.opposed) == (3, pytest.approx(1 / 3), 0)
    assert (overall.aspect, overall.pairs) == (OVERALL, 3)


def test_a_judge_that_is_asked_of_each_image_again_is_compared_with_what_it_said_first() -> None:
    """a > b, then a = b, then b > a: never the same again, and once the opposite; the mean is a tie all the same."""
    judgements = judged(*({"a": (a, 1), "b": (b, 2)} for a, b in ((5, 3), (4, 4), (3, 5))))
    judgements = judgements.set_column(judgements.column_names.index("rank"), "rank", pa.nulls(6, pa.int32()))
    pairs = preferences(judgements, plan("a", "b"), SETTINGS)
    aesthetic, _ = self_consistency(judgements, plan("a", "b"), pairs, SETTINGS)
    assert (aesthetic.pairs, aesthetic.same, aesthetic.opposed) == (1, 0, 1)
    agreed = judged(*({"a": (a, 1), "b": (3, 2)} for a in (5, 4, 2, 2)))
    agreed = agreed.set_column(agreed.column_names.index("rank"), "rank", pa.nulls(8, pa.int32()))
    assert labels(agreed) == {"aesthetic": 1, OVERALL: 1}
    aesthetic, _ = self_consistency(agreed, plan("a", "b"), preferences(agreed, plan("a", "b"), SETTINGS), SETTINGS)
    assert (aesthetic.same, aesthetic.opposed) == (pytest.approx(1 / 3), 1)


def test_a_reply_that_failed_is_no_answer_that_differs() -> None:
    """Of a and b it is asked three times and answers twice, the same; of c only once."""
    images, first, again = plan("a", "b", "c"), {"a": (5, 1), "b": (3, 2)}, {"a": (4, 1), "b": (2, 2)}
    judgements = judged({"a": (5, 1), "c": (1, 2)}, first, again)
    pairs = preferences(judgements, images, SETTINGS)
    aesthetic, overall = self_consistency(judgements, images, pairs, SETTINGS)
    assert (pairs.num_rows, aesthetic.pairs, aesthetic.same, aesthetic.opposed) == (6, 1, 1.0, 0.0)
    assert (overall.pairs, overall.same) == (1, 1.0)


def test_a_judge_that_answered_once_has_nothing_to_agree_with() -> None:
    judgements = judged({"a": (5, 1), "b": (3, 2)}, {"a": (5, 1)})
    pairs = preferences(judgements, plan("a", "b"), SETTINGS)
    aesthetic, _ = self_consistency(judgements, plan("a", "b"), pairs, SETTINGS)
    assert (aesthetic.pairs, aesthetic.same, aesthetic.opposed) == (0, None, None)


def test_what_is_not_scored_is_told_from_a_tie_and_is_no_opinion() -> None:
    judgements, images = judged({"a": (3, 1), "b": (3, 1)}), plan("a", "b", "c")
    pairs = preferences(judged({"a": (5, 1), "b": (3, 2), "c": (3, 2)}), images, SETTINGS)
    nan = float("nan")
    found = preferred(judgements, images, pairs, SETTINGS).tolist()
    assert found == pytest.approx([0, nan, nan, 0, nan, nan], nan_ok=True)
    assert said(judgements, images, pairs, SETTINGS).tolist() == [0] * 6
    assert opinions(judgements, images, pairs, SETTINGS).tolist() == [[0] * 6] * 3


def test_the_margin_of_a_tie_is_one_of_points_and_not_of_ranks() -> None:
    """Ranks 2 and 1 contradict scores of 5 and 3, though they differ by no more than the margin."""
    settings = SETTINGS.model_copy(update={"tie_margin": 1.0})
    judgements, images = judged({"a": (5, 2), "b": (3, 1)}), plan("a", "b")
    aesthetic, overall = preferences(judgements, images, settings)["label"].to_pylist()
    assert (aesthetic, overall) == (0.5, 1)


def test_places_win_as_often_as_their_images() -> None:
    judgements = judged({"a": (5, 1), "b": (3, 2), "c": (3, 2)}, {"c": (4, 1), "b": (3, 2), "a": (4, 1)})
    found = positions(judgements)
    assert [place.comparisons for place in found] == [4, 4, 4]
    assert [place.win_rate for place in found] == [(2 + 1.5) / 4, 0.5 / 4, (0.5 + 1.5) / 4]


def test_images_judged_one_by_one_have_no_places_and_no_order() -> None:
    one_by_one = judged({"a": (5, 1), "b": (3, 2)})
    one_by_one = one_by_one.set_column(3 + 1, "rank", pa.nulls(2, pa.int32()))
    assert positions(one_by_one) == []
    assert (
        self_consistency(one_by_one, plan("a", "b"), preferences(one_by_one, plan("a", "b"), SETTINGS), SETTINGS) == []
    )
