"""The derived tables of a run are the same whether its prompts are compared at once or some at a time."""

import pyarrow as pa
import pytest

from visionprefer import derived
from visionprefer.derived import write_derived
from visionprefer.judging.preferences import preferences
from visionprefer.judging.scores import judgements
from visionprefer.run_folder import RunFolder
from visionprefer.schema import REPLIES
from visionprefer.shards import Shards

OTHER = "ba9876543210"


@pytest.fixture(params=["current", "mean", "vote"])
def judged_twice(run: RunFolder, request: pytest.FixtureRequest) -> RunFolder:
    """A run whose images of the first shard another judge judged too, and liked otherwise; its prompts are in no order
    of their ids.
    """
    store = run.store
    store.write_table("prompts.parquet", run.prompts().take([2, 0, 3, 1]))
    first = store.read_table(f"{run.replies.folder}/{min(run.replies.commits)}.parquet")
    turned = first.set_column(first.column_names.index("raw"), "raw", first["raw"].take([*range(1, first.num_rows), 0]))
    replies = Shards(store, f"replies/{OTHER}", REPLIES)
    replies.add(replies.write("000000.0", 0, turned.cast(REPLIES), REPLIES.empty_table()))
    manifest = store.manifest()
    manifest["judges"][OTHER] = {"model": "other", "digest": OTHER}
    manifest["shards"][replies.folder] = [list(commit) for commit in replies.commits.values()]
    manifest["recipe"]["preferences"]["judges"] = request.param
    store.write_manifest(manifest)
    return RunFolder(store)


def tables(run: RunFolder) -> list[pa.Table]:
    """All of them, anew."""
    files, training = write_derived(run, "d2")
    assert list(files) == ["judgements.parquet", "preferences.parquet"]
    return [run.store.read_table(name) for name in [*files, *training]]


def test_prompts_compared_some_at_a_time_are_those_compared_at_once(
    judged_twice: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = tables(judged_twice)
    judges = set(at_once[0]["judge"].to_pylist())
    assert len(judges) == (1 if judged_twice.recipe.preferences.judges == "current" else 2)
    monkeypatch.setattr(derived, "PROMPTS_AT_ONCE", 1)
    monkeypatch.setattr(derived, "ROWS_PER_GROUP", 2)
    monkeypatch.setattr("visionprefer.store.ROWS_AT_ONCE", 2)
    assert tables(judged_twice) == at_once


def test_they_follow_from_the_replies_in_the_order_of_the_prompts(judged_twice: RunFolder) -> None:
    said, pairs, *training = tables(judged_twice)
    if judged_twice.recipe.preferences.judges == "current":
        assert said.to_pylist() == judgements(judged_twice.replies.table()).to_pylist()
    if judged_twice.recipe.preferences.judges != "vote":
        expected = preferences(said, judged_twice.plan(), judged_twice.recipe.preferences)
        assert sorted(pairs.to_pylist(), key=str) == sorted(expected.to_pylist(), key=str)
    order = judged_twice.prompts()["prompt_id"].to_pylist()
    assert order != sorted(order)
    for table in (pairs, *training):
        found = table["prompt_id"].unique().to_pylist()
        assert found == [prompt_id for prompt_id in order if prompt_id in found]


def test_what_nobody_judged_has_no_preferences(judged_twice: RunFolder) -> None:
    for folder in (run.folder for run in (judged_twice.replies, judged_twice.replies_of(OTHER))):
        judged_twice.manifest["shards"][folder] = []
    run = judged_twice
    said, pairs, *training = tables(run)
    assert (said.num_rows, pairs.num_rows, training) == (0, 0, [])
