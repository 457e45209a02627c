"""Models in buckets are brought to the machine that loads them, on servers of S3 and of Google Cloud Storage."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from visionprefer.buckets import brought_here
from visionprefer.errors import InputError
from visionprefer.models import find_model
from visionprefer.shards import Shards
from visionprefer.store import Store

ONE = pa.schema([("x", pa.int64())])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "visionprefer"


def test_a_folder_of_this_machine_is_itself() -> None:
    assert brought_here("runs/dpo") == Path("runs/dpo")


def test_a_model_in_a_bucket_is_the_model_that_was_put_there(any_bucket: str, tiny_sd: Path) -> None:
    Store(f"{any_bucket}/models/tiny").add_folder(tiny_sd)
    there, here = find_model(f"{any_bucket}/models/tiny", "diffusers"), find_model(str(tiny_sd), "diffusers")
    assert (there.digest, there.label) == (here.digest, "tiny")
    assert Path(there.location).is_dir()


def test_a_file_that_does_not_fit_on_the_way_comes_whole(any_bucket: str) -> None:
    """A client that asks about a file while it is sent waited for ever, where a server answers one after another."""
    weights = os.urandom(30_000_000)
    store = Store(f"{any_bucket}/models/large")
    store.write("weights", weights)
    assert (brought_here(store.root) / "weights").read_bytes() == weights


def test_it_is_copied_once_and_again_when_it_has_changed(any_bucket: str, cache: Path) -> None:
    store = Store(f"{any_bucket}/models/small")
    store.write("part/weights", b"one")
    store.write("config.json", b"{}")
    first = brought_here(store.root)
    assert (first / "part" / "weights").read_bytes() == b"one"
    (first / "part" / "weights").write_bytes(b"here")
    assert brought_here(store.root) == first
    assert (first / "part" / "weights").read_bytes() == b"here"
    store.write("part/weights", b"other")
    assert (brought_here(store.root) / "part" / "weights").read_bytes() == b"other"
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 2


@pytest.mark.parametrize("name", ["s3://bucket/none", "s3://none/none", "nonsense://bucket/model"])
def test_what_is_not_there_is_told(bucket: str, name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: .*Write "):
        brought_here(name)


def test_what_was_committed_is_found_there_and_what_is_damaged_is_set_aside(any_bucket: str) -> None:
    store = Store(f"{any_bucket}/run")
    shards = Shards(store, "images", ONE)
    commits = [shards.write(unit, 0, ONE.empty_table(), pa.table({"x": [1]}, ONE)) for unit in ("000000", "000001")]
    listed = [list(commit) for commit in commits]
    assert shards.recover(listed) == []
    assert shards.counts(2) == (0, 2, 0)
    store.write("images/000001.0.parquet", b"PAR1")
    assert shards.recover(listed) == ["images/000001.0.parquet"]
    assert shards.counts(2) == (0, 1, 1)
    assert store.read("damaged/images/000001.0.parquet") == b"PAR1"
    with pytest.raises(FileNotFoundError):
        store.read("images/000001.0.parquet")


def test_folders_of_a_bucket_go_with_all_that_is_in_them(any_bucket: str) -> None:
    store = Store(f"{any_bucket}/out")
    store.write("checkpoints/one/state", b"1")
    store.write("training.json", b"{}")
    store.delete_folder("checkpoints")
    store.delete_folder("checkpoints")
    assert store.names("") == ["training.json"]


def test_a_folder_is_seen_by_what_lies_in_it(any_bucket: str) -> None:
    """Else a run would be begun among the files of something else."""
    store = Store(f"{any_bucket}/else")
    assert store.names("") == []
    store.write("checkpoints/one/state", b"1")
    store.write("other", b"1")
    assert store.names("") == ["checkpoints", "other"]
    assert store.names("checkpoints") == ["one"]
