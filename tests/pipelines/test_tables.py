"""What is still to do follows from what is there, also where images were made again with another outcome."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from run_by_hand import table

from visionprefer.errors import InputError
from visionprefer.run_folder import RunFolder
from visionprefer.schema import FAILED_IMAGES, IMAGES, REPLIES
from visionprefer_pipelines.run import _check_bytes
from visionprefer_pipelines.tables import Tables, Unit
from visionprefer_pipelines.units import images_to_judge


@pytest.fixture
def tables(run: RunFolder) -> Tables:
    found = Tables(run.recipe, run.store, run.manifest)
    assert found.recover(run.manifest["shards"]) == []
    return found


def made_again(tables: Tables, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> str:
    """The images of a unit in which one had failed, after its shard was lost: all that failed is made, and changed."""
    [commit] = [commit for commit in tables.images.commits.values() if commit.failed]
    done = tables.store.read_table(f"images/{commit.shard}.parquet").to_pylist()
    good = [done[0] | row for row in tables.images.failed_rows(commit.shard).to_pylist()]
    tables.images.write(commit.unit, 0, table(change(done + good), IMAGES), FAILED_IMAGES.empty_table())
    return commit.shard


def test_images_that_are_more_than_before_are_judged_alone(tables: Tables) -> None:
    unit = made_again(tables, lambda rows: rows)
    assert tables.recover(tables.commits()) == []
    assert tables.counts()[1].pending == 1
    assert tables.work_to_do(False, False).replies == [Unit(unit, 1)]
    asked = images_to_judge(tables.replies, unit, 1, tables.recipe.judge)
    assert asked["image_id"].to_pylist() == ["1-1"]

    [reply] = tables.replies.table().slice(0, 1).to_pylist()
    new = table([reply | {"request_id": "new", "image_ids": ["1-1"]}], REPLIES)
    tables.replies.add(tables.replies.write(unit, 1, new, REPLIES.empty_table()))
    assert not tables.work_to_do(False, False)
    assert tables.counts()[1].pending == 0


def test_where_images_are_fewer_than_before_their_unit_is_judged_anew(tables: Tables) -> None:
    """Else there were replies about images that are no longer there."""
    unit = made_again(tables, lambda rows: rows[2:])
    assert tables.recover(tables.commits()) == [f"{tables.replies.folder}/{unit}.0.parquet"]
    assert tables.work_to_do(False, False).replies == [Unit(unit, 0)]


def test_failed_replies_alone_are_asked_again_in_the_next_generation(tables: Tables) -> None:
    [commit] = [commit for commit in tables.replies.commits.values() if commit.failed]
    assert tables.work_to_do(False, True).replies == [Unit(commit.unit, 1)]
    failed = tables.replies.failed_rows(commit.shard)["image_ids"].to_pylist()
    asked = images_to_judge(tables.replies, commit.unit, 1, tables.recipe.judge)
    assert [[image] for image in asked["image_id"].to_pylist()] == failed


def test_a_damaged_shard_of_another_judge_says_who_makes_it_again(run: RunFolder) -> None:
    """It is left where it is: nothing of this recipe would make it again."""
    other = "fedcba987654"
    replies = run.replies_of(other)
    commit = replies.write("000000.0", 0, run.replies.table(), REPLIES.empty_table())
    run.manifest["judges"][other] = {"model": "owner/other", "digest": other}
    run.manifest["shards"][replies.folder] = [list(commit)]
    run.manifest["recipe"]["preferences"]["judges"] = "mean"
    run.store.write_manifest(run.manifest)
    both = RunFolder(run.store)
    _check_bytes(both)
    name = f"{replies.folder}/000000.0.0.parquet"
    run.store.write_table(name, pa.table({"x": [1]}))
    with pytest.raises(InputError, match=rf"{name} changed .* Run with owner/other as the judge"):
        _check_bytes(both)
    assert run.store.exists(name)
