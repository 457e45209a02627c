"""Nobody sees half a file, and what is in the folder says what is done."""

import copy
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionprefer.errors import InputError
from visionprefer.shards import Counts, Shards
from visionprefer.store import Store

SCHEMA = pa.schema([("id", pa.string())])


def rows(*ids: str) -> pa.Table:
    return pa.table({"id": list(ids)}, schema=SCHEMA)


def shards(folder: Path) -> Shards:
    return Shards(Store(folder), "images", SCHEMA)


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write("file", b"old")

    def disk_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        store.write("file", b"new")
    assert store.read("file") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("images/file.parquet", b"whole")
    (tmp_path / "images" / f".file.parquet.{'0af1' * 8}").write_bytes(b"half")
    (tmp_path / ".lock").touch()
    store.remove_unfinished()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".lock", "file.parquet"]


def test_a_store_travels_to_another_process(tmp_path: Path) -> None:
    """What pickles it copies it too: by its root, without the open file system."""
    Store(tmp_path).write("a/b", b"x")
    assert copy.deepcopy(Store(tmp_path)).read("a/b") == b"x"


def test_a_place_that_is_none_is_told() -> None:
    with pytest.raises(InputError, match=r"Write a folder, s3://"):
        Store("ftp://host/folder")


@pytest.mark.parametrize("spooled", [4, 2**20])
def test_tables_written_one_after_the_other_are_one_file_in_every_place(
    any_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spooled: int
) -> None:
    monkeypatch.setattr("visionprefer.store.SPOOLED", spooled)
    monkeypatch.setattr("visionprefer.store.CHUNK", 7)
    for root in (any_bucket, str(tmp_path / "new")):
        store = Store(root)
        digest, size = store.write_tables("all.parquet", SCHEMA, (rows(*ids) for ids in ("ab", "", "cde")))
        data = store.read("all.parquet")
        assert (digest, size) == (hashlib.sha256(data).hexdigest(), len(data))
        assert store.read_table("all.parquet") == rows(*"abcde")
        assert [group.num_rows for group in store.row_groups("all.parquet")] == [2, 0, 3]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["all.parquet"]


def test_tables_that_end_early_leave_the_old_file(any_bucket: str, tmp_path: Path) -> None:
    def some() -> Iterator[pa.Table]:
        yield rows("new")
        raise RuntimeError("no more")

    for root in (any_bucket, str(tmp_path)):
        store = Store(root)
        store.write("file.parquet", b"old")
        with pytest.raises(RuntimeError, match="no more"):
            store.write_tables("file.parquet", SCHEMA, some())
        assert store.read("file.parquet") == b"old"


def test_columns_come_as_asked_and_those_that_are_not_there_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.write_table("t.parquet", pa.table({"a": [1, 2, 3], "b": ["x", "y", "x"]}))
    monkeypatch.setattr("visionprefer.store.ROWS_AT_ONCE", 2)
    assert store.read_table("t.parquet", ["b", "a"]).column_names == ["b", "a"]
    assert store.read_table("t.parquet", ["a"], where=pc.field("b") == "x") == pa.table({"a": [1, 3]})
    assert [batch.to_pydict() for batch in store.batches("t.parquet", ["b"])] == [{"b": ["x", "y"]}, {"b": ["x"]}]
    for read in (store.read_table, lambda *given: list(store.batches(*given))):
        with pytest.raises(InputError, match=r"t\.parquet is damaged .*none"):
            read("t.parquet", ["a", "none"])


def test_committed_units_are_found_again_without_a_manifest(tmp_path: Path) -> None:
    first = shards(tmp_path)
    commits = [first.write("000000", 0, rows("a", "b"), rows()), first.write("000001", 0, rows("c"), rows("d"))]
    again = shards(tmp_path)
    assert again.recover([]) == []
    assert list(again.commits.values()) == commits
    assert again.counts(planned=5) == Counts(done=3, failed=1, pending=1)
    assert again.table()["id"].to_pylist() == ["a", "b", "c"]
    assert again.failed()["id"].to_pylist() == ["d"]


def test_failed_rows_without_their_done_rows_do_not_count(tmp_path: Path) -> None:
    Store(tmp_path).write_table("failed/images/000000.0.parquet", rows("a"))
    again = shards(tmp_path)
    again.recover([])
    assert again.counts(planned=1) == Counts(done=0, failed=0, pending=1)


def test_a_later_generation_supersedes_what_failed(tmp_path: Path) -> None:
    made = shards(tmp_path)
    made.add(made.write("000000", 0, rows("a"), rows("b", "c")))
    made.add(made.write("000000", 1, rows("b"), rows("c")))
    assert made.counts(planned=3) == Counts(done=2, failed=1, pending=0)
    assert made.failed()["id"].to_pylist() == ["c"]
    assert made.table()["id"].to_pylist() == ["a", "b"]


def test_a_failed_file_of_an_interrupted_attempt_does_not_count(tmp_path: Path) -> None:
    """The first attempt wrote that `a` failed, and died; in the second nothing failed."""
    Store(tmp_path).write_table("failed/images/000000.0.parquet", rows("a"))
    shards(tmp_path).write("000000", 0, rows("a", "b"), rows())
    again = shards(tmp_path)
    again.recover([])
    assert again.counts(planned=2) == Counts(done=2, failed=0, pending=0)
    assert again.failed() is None


def test_a_damaged_shard_is_set_aside_so_that_its_unit_is_done_again(tmp_path: Path) -> None:
    made = shards(tmp_path)
    listed = [list(made.write(f"00000{i}", 0, rows(str(i)), rows())) for i in range(3)]
    for name, listed_in_manifest in (("000000.0", True), ("000002.0", False)):
        path = tmp_path / "images" / f"{name}.parquet"
        path.write_bytes(path.read_bytes()[:-10])
        if not listed_in_manifest:
            listed.pop()
    again = shards(tmp_path)
    assert again.recover(listed) == ["images/000000.0.parquet", "images/000002.0.parquet"]
    assert list(again.commits) == ["000001.0"]
    assert again.counts(planned=3).pending == 2
    assert (tmp_path / "damaged/images/000000.0.parquet").exists()


def test_what_took_up_the_failures_of_a_lost_shard_goes_with_it(tmp_path: Path) -> None:
    made = shards(tmp_path)
    made.write("000000", 0, rows("a"), rows("b"))
    made.write("000000", 1, rows("b"), rows())
    made.write("000001", 0, rows("c"), rows())
    (tmp_path / "images/000000.0.parquet").unlink()
    again = shards(tmp_path)
    assert again.recover([]) == ["images/000000.1.parquet"]
    assert again.counts(planned=3) == Counts(done=1, failed=0, pending=2)


def test_a_shard_whose_failed_rows_are_gone_is_done_again(tmp_path: Path) -> None:
    commit = shards(tmp_path).write("000000", 0, rows("a"), rows("b"))
    (tmp_path / "failed/images/000000.0.parquet").unlink()
    again = shards(tmp_path)
    assert again.recover([list(commit)]) == ["images/000000.0.parquet"]


def test_whole_shards_that_the_manifest_does_not_know_and_other_files_stay(tmp_path: Path) -> None:
    made = shards(tmp_path)
    old = made.write("000000", 0, rows("a"), rows())
    new = made.write("000000", 0, rows("a", "another size"), rows())
    for name in ("notes.txt", "mine.parquet"):
        (tmp_path / "images" / name).write_text("mine")
    again = shards(tmp_path)
    assert again.recover([list(old)]) == []
    assert again.commits == {"000000.0": new}
    assert (tmp_path / "images/mine.parquet").exists()


def test_only_shards_of_units_that_are_wanted_count(tmp_path: Path) -> None:
    made = shards(tmp_path)
    for unit in ("000000.0", "000001.0"):
        made.write(unit, 0, rows(unit), rows())
    made.recover([], units={"000001.0"})
    assert made.table()["id"].to_pylist() == ["000001.0"]


def test_damage_that_keeps_the_size_is_told_when_it_is_read(tmp_path: Path) -> None:
    shards(tmp_path).write("000000", 0, rows(*map(str, range(1000))), rows())
    path = tmp_path / "images/000000.0.parquet"
    data = bytearray(path.read_bytes())
    data[100:140] = bytes(40)
    path.write_bytes(data)
    again = shards(tmp_path)
    again.recover([])
    with pytest.raises(InputError, match=r"000000.0.parquet is damaged .* Delete it and run again"):
        again.table()


def test_a_shard_whose_bytes_changed_is_set_aside_where_it_is_read(tmp_path: Path) -> None:
    """Wherever in the data: an image that was changed would still be a picture, and be judged."""
    store = Store(tmp_path)
    table = pa.table({"image_id": ["a", "b"], "image": [os.urandom(20_000), bytes(20_000)]})
    for place in (4, 5_000, 19_000):
        store.write_table("images/000000.0.parquet", table)
        assert store.read_shard("images/000000.0.parquet", ["image"]) == table.select(["image"])
        file = tmp_path / "images" / "000000.0.parquet"
        data = bytearray(file.read_bytes())
        data[place] ^= 255
        file.write_bytes(data)
        with pytest.raises(InputError, match=r"images/000000.0.parquet changed after it was written. Run again"):
            store.read_shard("images/000000.0.parquet", ["image_id", "image"])
        assert not file.exists()
        assert (tmp_path / "damaged" / "images" / "000000.0.parquet").read_bytes() == data
    with pytest.raises(FileNotFoundError):
        store.read_shard("images/000000.0.parquet", ["image"])


def test_a_shard_whose_bytes_changed_is_found(tmp_path: Path) -> None:
    """By its digest alone: size and footer are as they were."""
    made = shards(tmp_path)
    made.add(made.write("000000", 0, rows("a"), rows()))
    listed = made.write("000001", 0, rows(*map(str, range(1000))), rows())
    made.add(listed)
    path = tmp_path / "images/000001.0.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert made.damaged() == ["images/000001.0.parquet"]
    path.unlink()
    assert made.damaged() == ["images/000001.0.parquet"]


def test_a_unit_is_set_aside_whole(tmp_path: Path) -> None:
    made = shards(tmp_path)
    for unit, generation in (("000000", 0), ("000001", 0), ("000001", 1)):
        made.add(made.write(unit, generation, rows("a"), rows("b")))
    assert made.rows() == {"000000": 2, "000001": 3}
    assert made.set_aside("000001") == ["images/000001.0.parquet", "images/000001.1.parquet"]
    assert (tmp_path / "damaged/images/000001.1.parquet").exists()
    again = shards(tmp_path)
    assert again.recover([]) == []
    assert (list(again.commits), made.rows()) == (["000000.0"], {"000000": 2})


@pytest.mark.parametrize("text", ["{", "[1]", '{"somebody": "else"}', '{"format": 99}'])
def test_a_manifest_that_is_none_of_ours_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest.json .* Write the folder of a run"):
        Store(tmp_path).manifest()


def test_a_shard_that_vanished_is_pending_again(tmp_path: Path) -> None:
    made = shards(tmp_path)
    listed = [list(made.write("000000", 0, rows("a"), rows()))]
    (tmp_path / "images" / "000000.0.parquet").unlink()
    again = shards(tmp_path)
    again.recover(listed)
    assert again.counts(planned=1).pending == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4))
def test_planned_is_always_done_and_failed_and_pending(generations: list[tuple[int, int]]) -> None:
    """Whatever the order in which generations are seen, rows failed before are counted once."""
    made = Shards.__new__(Shards)
    made.commits = {}
    from visionprefer.shards import Commit

    planned = sum(generations[0]) + 5
    left = planned
    for generation, (done, failed) in enumerate(generations):
        done = min(done, left)
        failed = min(failed, left - done)
        made.add(Commit("000000", generation, done, failed, "", 0))
        left -= done
        counts = made.counts(planned)
        assert sum(counts) == planned
        assert counts.failed == failed
