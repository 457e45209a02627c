"""The figures of a run, worked by hand."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from run_by_hand import with_oracle

from visionprefer.errors import InputError
from visionprefer.intervals import interval_over_prompts
from visionprefer.run_folder import RunFolder
from visionprefer.schema import ASPECTS, REPLIES
from visionprefer.statistics import Statistics, paid_for, statistics, tables
from visionprefer.statistics.figures import SourceFigures
from visionprefer.statistics.win_rates import WinRate, win_rates

# Scores in the order of ASPECTS; None: the image failed; []: the judge's reply failed. Candidates 0 and 2 are made by
# owner/small, 1 and 3 by large; their guidance is 2, 7.5, 8 and 7.5.
SCORES: dict[str, tuple[str, list[list[int] | None]]] = {
    "one": ("train", [[5, 4, 4, 5], [3, 3, 3, 3], [2, 3, 3, 4], [1, 1, 2, 2]]),  # overall 4.5, 3, 3, 1.5
    "two": ("held_out", [[2, 2, 2, 2], None, [5, 5, 5, 5], []]),
    "three": ("train", [[3, 3, 3, 3], [3, 3, 3, 3]]),
    "four": ("train", [[4, 4, 4, 4], None]),
}
ORACLE_TABLES = {
    "The judge against the oracle",
    "Images that are fully right",
    "Mean scores by source model, of the oracle",
}
MakeRun = Callable[..., RunFolder]


@pytest.fixture
def figures(make_run: MakeRun) -> Statistics:
    return statistics(make_run(SCORES))


def test_prompts_and_why_they_were_rejected(figures: Statistics) -> None:
    assert figures.prompts.model_dump() == {
        "kept": 4,
        "rejected": 1,
        "not_sampled": 2,
        "splits": {"train": 3, "held_out": 1},
        "reject_reasons": {"duplicate": 1},
    }
    assert figures.prompts_without_choice == 2  # "three" has a tie alone, "four" one image


def test_failed_images_stand_apart_with_their_reasons(figures: Statistics) -> None:
    assert figures.images.model_dump() == {
        "planned": 12,
        "done": 10,
        "failed": 2,
        "pending": 0,
        "failure_reasons": {"RuntimeError: out of memory": 2},
    }


def test_replies_and_what_they_cost(figures: Statistics) -> None:
    assert figures.replies.model_dump() == {
        "planned": 10,
        "done": 9,
        "failed": 1,
        "pending": 0,
        "failure_reasons": {"the reply holds no JSON object": 1},
        "asked_twice": 1,
        "prompt_tokens": 1000,  # 100 for each reply, the failed one too
        "completion_tokens": 500,
        "cost": None,
    }


def test_overall_by_hand(figures: Statistics) -> None:
    assert list(figures.aspects) == [*ASPECTS, "overall"]
    overall = figures.aspects["overall"]  # 4.5, 3, 3, 1.5 | 2, 5 | 3, 3 | 4: sum 29, sum of squares 103.5
    assert (overall.images, overall.mean) == (9, pytest.approx(29 / 9))
    assert overall.standard_error == pytest.approx(sqrt((103.5 - 29**2 / 9) / 8 / 9))
    assert overall.scores == {1.5: 1, 2: 1, 3: 4, 4: 1, 4.5: 1, 5: 1}
    assert (overall.pairs, overall.choices, overall.ties, overall.tie_rate) == (8, 6, 2, 0.25)
    assert overall.prompts_without_choice == 2


def test_an_aspect_by_hand(figures: Statistics) -> None:
    aesthetic = figures.aspects["aesthetic"]  # 4, 3, 3, 1 | 2, 5 | 3, 3 | 4
    assert aesthetic.mean == pytest.approx(28 / 9)  # failed images and replies are no zeros
    assert aesthetic.scores == {1: 1, 2: 1, 3: 4, 4: 2, 5: 1}
    assert (aesthetic.pairs, aesthetic.choices, aesthetic.ties) == (8, 6, 2)


def test_source_models(figures: Statistics) -> None:
    small, large = figures.sources
    assert (small.model, small.images, small.share) == ("owner/small", 6, 0.6)
    assert small.means["overall"] == pytest.approx((4.5 + 3 + 2 + 5 + 3 + 4) / 6)
    assert (large.model, large.images, large.share) == ("large", 4, 0.4)  # one of which has no score
    assert large.means["overall"] == pytest.approx((3 + 1.5 + 3) / 3)


def test_win_rates_count_ties_as_half(figures: Statistics) -> None:
    def counts(column: str) -> list[tuple[Any, int, float]]:
        return [(rate.value, rate.comparisons, rate.wins) for rate in figures.win_rates[column]]

    assert counts("model") == [("large", 5, 1.0), ("owner/small", 5, 4.0)]
    assert counts("guidance_scale") == [(2.0, 5, 3.5), (7.5, 5, 1.0), (8.0, 4, 2.5)]
    assert counts("num_inference_steps") == []  # all images have 20
    assert figures.win_rates["model"][1].rate == 0.8


def test_best_worst_compares_one_pair_a_prompt(make_run: MakeRun) -> None:
    found = statistics(make_run(SCORES, preferences={"pairs": "best_worst"}))
    overall = found.aspects["overall"]  # "one" 4.5 against 1.5, "two" 2 against 5, "three" 3 against 3
    assert (overall.pairs, overall.choices, overall.ties, overall.prompts_without_choice) == (3, 2, 1, 2)
    assert [(rate.value, rate.comparisons, rate.wins) for rate in found.win_rates["model"]] == [
        ("large", 2, 0.5),
        ("owner/small", 2, 1.5),
    ]


def test_a_run_in_which_all_failed_has_no_means(make_run: MakeRun) -> None:
    found = statistics(make_run({"one": ("train", [None, [], []])}))
    assert (found.images.failed, found.replies.failed, found.prompts_without_choice) == (1, 2, 1)
    assert (found.aspects, found.sources[0].means, found.win_rates["model"]) == ({}, {}, [])
    assert tables(found)


def test_an_image_alone_has_a_mean_and_no_standard_error(make_run: MakeRun) -> None:
    overall = statistics(make_run({"one": ("train", [[4, 4, 4, 4]])})).aspects["overall"]
    assert (overall.mean, overall.standard_error, overall.pairs, overall.tie_rate) == (4.0, None, 0, None)


def test_a_failure_made_good_was_spent_and_is_no_failure(make_run: MakeRun) -> None:
    run = make_run(SCORES)
    [unit] = [commit.unit for commit in run.replies.commits.values() if commit.failed]
    good = run.replies.table().slice(0, 1)
    run.replies.add(run.replies.write(unit, 1, good, REPLIES.empty_table()))
    found = statistics(run).replies
    assert (found.done, found.failed, found.failure_reasons) == (10, 0, {})
    assert (found.asked_twice, found.prompt_tokens) == (1, 1100)


def test_what_replies_cost_is_counted_by_what_lies_there(make_run: MakeRun) -> None:
    """Whoever wrote it: an actor that is started anew knows no list, and a file that is damaged hides no other."""
    run = make_run(SCORES)
    assert paid_for(run.replies) == 0.0
    row = dict.fromkeys(REPLIES.names) | {"asked": 1, "prompt_tokens": 0, "completion_tokens": 0, "cost": 2.5}
    rows = pa.Table.from_pylist([row, row | {"error": "cut off"}], schema=REPLIES)
    run.replies.write("000009.0", 0, rows.slice(0, 1), rows.slice(1))
    run.store.write(f"{run.replies.folder}/000010.0.0.parquet", b"PAR1")
    assert paid_for(run.replies) == 5.0


def test_failures_of_one_kind_are_counted_together(make_run: MakeRun) -> None:
    run = make_run(SCORES)
    row = dict.fromkeys(REPLIES.names) | {"asked": 1, "prompt_tokens": 0, "completion_tokens": 0}
    errors = [
        "cut off after 768 tokens: the JSON in the reply is broken: line 1 column 92",
        "cut off after 12 tokens: the JSON in the reply is broken: line 1 column 7\nand more",
        "fidelity.score: Input should be 5 or less, not 'it isn't so'",
        "fidelity.score: Input should be 5 or less, not 'a quote that is cut o",
        "the judge's endpoint is gone",
    ]
    failed = pa.Table.from_pylist([row | {"error": error} for error in errors], schema=REPLIES)
    run.replies.add(run.replies.write("000009.0", 0, REPLIES.empty_table(), failed))
    assert statistics(run).replies.failure_reasons == {
        "cut off after … tokens: the JSON in the reply is broken: line … column …": 2,
        "fidelity.score: Input should be … or less, not …": 2,
        "the judge's endpoint is gone": 1,
        "the reply holds no JSON object": 1,
    }


def test_figures_survive_the_file_they_are_stored_in(figures: Statistics) -> None:
    assert Statistics.model_validate_json(figures.model_dump_json(indent=1)) == figures


def test_a_run_that_is_not_finished_is_told(make_run: MakeRun) -> None:
    run = make_run(SCORES)
    run.store.delete("preferences.parquet")
    with pytest.raises(InputError, match="not finished"):
        statistics(run)


def test_images_of_unknown_make_are_not_compared() -> None:
    images = pa.table({"image_id": ["a", "b", "c"], "steps": pa.array([10, None, 20], pa.int32())})
    preferences = pa.table(
        {
            "prompt_id": ["p"] * 3,
            "image_id_0": ["a", "a", "b"],
            "image_id_1": ["b", "c", "c"],
            "label": [1.0, 0.0, 0.5],
        }
    )
    assert [(rate.value, rate.comparisons, rate.wins) for rate in win_rates(preferences, images, "steps")] == [
        (10, 1, 0.0),
        (20, 1, 1.0),
    ]
    assert win_rates(preferences.slice(0, 0), images, "steps") == []


def test_win_rates_take_prompts_for_independent_and_not_their_pairs() -> None:
    """20 prompts of one image of 10 steps and four of 20, that all win or all lose; a prompt of equal steps is none."""
    images = [{"image_id": f"{p}-{i}", "steps": 20 if i else 10} for p in range(20) for i in range(5)]
    pairs = [
        {"prompt_id": f"p{p}", "image_id_0": f"{p}-0", "image_id_1": f"{p}-{i}", "label": float(p % 2)}
        for p in range(20)
        for i in range(1, 5)
    ]
    pairs.append({"prompt_id": "p20", "image_id_0": "0-1", "image_id_1": "1-1", "label": 1.0})
    ten, twenty = win_rates(pa.Table.from_pylist(pairs), pa.Table.from_pylist(images), "steps")
    assert (ten.comparisons, ten.wins, twenty.wins) == (80, 40.0, 40.0)
    for found, won in ((ten, [0.0, 4.0]), (twenty, [4.0, 0.0])):
        assert (found.low, found.high) == interval_over_prompts(np.tile(won, 10), np.full(20, 4))
        assert found.high - found.low > 0.4  # of 80 pairs: 0.22


def test_tables_for_people(figures: Statistics) -> None:
    told = {table.title: table for table in tables(figures)}
    assert all(len(row) == len(table.columns) for table in told.values() for row in table.rows)
    assert told["Images and replies"].rows == [["images", "12", "10", "2", "0"], ["replies", "10", "9", "1", "0"]]
    assert told["Why images failed"].rows == [["RuntimeError: out of memory", "2"]]
    assert told["Spent on judging"].rows[1] == ["tokens read", "1,000"]
    assert told["Preferences"].rows[-1] == ["overall", "8", "6", "2", "25.0 %", "2"]
    assert told["Scores"].rows[-1] == ["overall", "9", "3.22", "0.374"]
    assert told["Images by score, in half points"].rows[1] == ["1.5", "0", "0", "0", "0", "1"]
    assert told["Source models"].rows[1] == ["large", "4", "40.0 %"]
    assert told["Mean scores by source model"].rows[1][-1] == "2.50"
    assert told["Win rate by guidance scale, overall"].rows[1] == ["7.5", "5", "20.0 %", "12.5 to 50.0 %"]
    assert "Win rate by num inference steps, overall" not in told


def test_the_oracle_is_told_where_it_was_asked(figures: Statistics, make_run: MakeRun) -> None:
    assert figures.oracle is None
    # Of "one" the judge's overall is 4.5, 3, 3, 1.5; of "three" 3 and 3.
    seen = {"0-0": [5] * 4, "0-1": [5, 5, 5, 1], "0-3": [5, 1, 5, 5], "2-0": [4, 5, 5, 5], "2-1": [2, 5, 5, 5]}
    found = statistics(with_oracle(make_run(SCORES), seen | {"1-0": None}))
    assert Statistics.model_validate_json(found.model_dump_json()) == found
    told = {table.title: table.rows for table in tables(found)}
    assert [table.title for table in tables(figures)] == [title for title in told if title not in ORACLE_TABLES]
    judge = {row[0]: row[1:] for row in told["The judge against the oracle"]}
    assert judge["prompt_following"] == ["1", "50.0 %", "5.5 to 94.5 %", "100.0 %"]  # "three", a tie
    assert judge["fidelity"] == ["0", "–", "–", "–"]
    assert [row[:3] for row in told["Images that are fully right"]] == [
        ["large", "3", "66.7 %"],
        ["owner/small", "2", "50.0 %"],
    ]
    assert told["Mean scores by source model, of the oracle"][1] == ["owner/small", "4.50", "5.00", "5.00", "5.00"]


def test_tables_say_what_is_not_there(figures: Statistics) -> None:
    source = SourceFigures(model=None, images=1234, share=1.0, means=dict.fromkeys(figures.aspects))
    reasons = {f"reason {letter}": 2 for letter in "abcdefghijkl"}
    images = figures.images.model_copy(update={"failure_reasons": reasons})
    replies = figures.replies.model_copy(update={"cost": 1234.5})
    changed = figures.model_copy(update={"sources": [source], "images": images, "replies": replies})
    told = {table.title: table for table in tables(changed)}
    assert told["Source models"].rows == [["not told", "1,234", "100.0 %"]]
    assert told["Mean scores by source model"].rows == [["not told", *["–"] * 5]]
    assert told["Why images failed"].rows[9:] == [["reason j", "2"], ["2 other reasons", "4"]]
    assert told["Spent on judging"].rows[3] == ["cost", "1,234.50"]


def test_a_win_rate_keeps_the_kind_of_its_value() -> None:
    rate = WinRate(value="7", comparisons=1, wins=1, rate=1, low=0, high=1)
    assert WinRate.model_validate_json(rate.model_dump_json()).value == "7"
