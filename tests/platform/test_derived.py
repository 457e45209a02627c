"""The derived tables of a run are the same whether its prompts are compared at once or some at a time."""

from collections.abc import Callable

import pyarrow as pa
import pytest

from visionprefer import derived
from visionprefer.derived import write_derived
from visionprefer.judging.preferences import preferences
from visionprefer.judging.scores import judgements
from visionprefer.run_folder import RunFolder

TABLES = ["judgements.parquet", "preferences.parquet"]


def tables(run: RunFolder) -> list[pa.Table]:
    """All of them, anew."""
    files, training = write_derived(run, "d2")
    assert list(files) == TABLES
    return [run.store.read_table(name) for name in [*files, *training]]


@pytest.mark.parametrize("judges", ["current", "vote"])
def test_prompts_compared_some_at_a_time_are_those_compared_at_once(
    make_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch, judges: str
) -> None:
    run = make_run()
    changed = run.recipe.preferences.model_copy(update={"judges": judges})
    run.recipe = run.recipe.model_copy(update={"preferences": changed})
    at_once = tables(run)
    monkeypatch.setattr(derived, "PROMPTS_AT_ONCE", 1)
    monkeypatch.setattr(derived, "ROWS_PER_GROUP", 2)
    assert tables(run) == at_once


def test_they_are_what_follows_from_the_replies_in_the_order_of_the_prompts(run: RunFolder) -> None:
    said, pairs, *training = tables(run)
    assert said == judgements(run.replies.table())
    expected = preferences(said, run.plan(), run.recipe.preferences)
    assert sorted(pairs.to_pylist(), key=str) == sorted(expected.to_pylist(), key=str)
    order = run.prompts()["prompt_id"].to_pylist()
    for table in (pairs, *training):
        found = table["prompt_id"].unique().to_pylist()
        assert found == [prompt_id for prompt_id in order if prompt_id in found]


def test_a_prompt_of_two_rows_of_preferences_in_different_batches_is_one_row(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = tables(run)
    monkeypatch.setattr("visionprefer.store.ROWS_AT_ONCE", 2)
    assert tables(run) == at_once
