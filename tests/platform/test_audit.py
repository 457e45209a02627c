"""An audit says how right a run's judge was, and shows where it was wrong."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_by_hand import EVIL, image_id, with_oracle

from visionprefer.audit import known_of_oracle, read_known, tables, write_audit
from visionprefer.errors import InputError
from visionprefer.run_folder import RunFolder

CIRCLE = "a red circle"  # overall 4.5, 3.0, 3.0, 1.5
# By image of it, the oracle's scores: the judge's order, but that the last is as good as the first.
SEEN = {
    image_id(CIRCLE, candidate): given
    for candidate, given in enumerate([[5, 5, 5, 5], [3, 3, 3, 3], [1, 1, 1, 1], [5, 5, 5, 5]])
}


def known(*pairs: tuple[int, int, float]) -> pa.Table:
    """Labels of pairs of the circle's images, overall."""
    rows = [
        {
            "prompt_id": "p0",
            "image_id_0": image_id(CIRCLE, first),
            "image_id_1": image_id(CIRCLE, second),
            "aspect": "overall",
            "label": label,
        }
        for first, second, label in pairs
    ]
    return pa.Table.from_pylist(rows)


def test_a_judge_is_measured_against_the_oracle(run: RunFolder) -> None:
    run = with_oracle(run, SEEN)
    figures = write_audit(run, known_of_oracle(run), "the oracle")
    overall = figures.aspects["overall"]  # right: 0-1, 0-2; a tie: 1-2; wrong: 1-3 and 2-3; 0-3 is no pair
    assert (overall.pairs, overall.agreement, overall.tie_rate) == (5, 2.5 / 5, 1 / 5)
    assert (figures.known, figures.compared, figures.known_ties, figures.without_score) == (30, 25, 5, 0)
    assert figures.images == 10
    assert json.loads(run.store.read("audit.json")) == figures.model_dump()
    assert {table.title for table in tables(figures)} >= {"Agreement", "Preferred by model"}


def test_the_page_shows_the_worst_with_both_images_and_what_was_said(run: RunFolder) -> None:
    write_audit(run, known((0, 3, 0.0), (0, 1, 1.0)), "people's choices")
    page = run.store.read("audit.html").decode()
    section = page[page.index('id="disagreements"') :]
    assert section.count("<figure") == 2
    first, second = section.split("<figure")[1:]
    assert ("the judge&#39;s choice" in first, "image 0 for" in first, "4.50" in first) == (True, True, True)
    assert ("known to be better" in second, "image 3 for" in second, "1.50" in second) == (True, True, True)
    assert "people&#39;s choices" in page
    assert EVIL not in page  # a rationale is shown, and not executed
    assert "<script" not in page


def test_what_images_cost_is_of_replies_that_failed_too(run: RunFolder) -> None:
    run = with_oracle(run, SEEN)
    assert write_audit(run, known_of_oracle(run), "the oracle").cost_per_1000_images is None
    for shard in run.replies.commits:
        for folder in (run.replies.folder, f"failed/{run.replies.folder}"):
            name = f"{folder}/{shard}.parquet"
            if run.store.exists(name):
                table = run.store.read_table(name)
                cost = pa.array([0.02] * table.num_rows)
                run.store.write_table(name, table.set_column(table.column_names.index("cost"), "cost", cost))
    figures = write_audit(run, known_of_oracle(run), "the oracle")
    assert figures.cost_per_1000_images == pytest.approx(1000 * 0.02 * 11 / 10)


def test_an_audit_without_disagreements_says_so(run: RunFolder) -> None:
    write_audit(run, known((0, 3, 1.0)), "people's choices")
    assert "There are none." in run.store.read("audit.html").decode()


def test_known_preferences_that_are_about_nothing_here_are_told(run: RunFolder) -> None:
    strangers = pa.table(
        {"prompt_id": ["x"], "image_id_0": ["x"], "image_id_1": ["y"], "aspect": ["overall"], "label": [1.0]}
    )
    with pytest.raises(InputError, match="of its 1 pairs none is about two judged images"):
        write_audit(run, strangers, "strangers.parquet")


def test_a_run_without_an_oracle_wants_a_file(run: RunFolder) -> None:
    with pytest.raises(InputError, match="--against FILE"):
        known_of_oracle(run)


def test_files_of_known_preferences(tmp_path: Path) -> None:
    pq.write_table(known((0, 1, 1.0)), tmp_path / "known.parquet")
    assert read_known(str(tmp_path / "known.parquet")) == known((0, 1, 1.0))
    pq.write_table(known((0, 1, 1.0)).drop_columns(["label", "aspect"]), tmp_path / "less.parquet")
    with pytest.raises(InputError, match=r"less\.parquet: there is no column aspect, label"):
        read_known(str(tmp_path / "less.parquet"))
    with pytest.raises(InputError, match="no Parquet file can be read there"):
        read_known(str(tmp_path / "nothing.parquet"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"no Parquet file can be read there(?!.*Delete)"):
        read_known(str(tmp_path / "folder"))
