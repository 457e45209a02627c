"""Datasets on the hub, as far as that can be seen without it."""

from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import filter_repo_objects
from published import pair, pickapic

from visionprefer.errors import InputError
from visionprefer.importing import LAYOUTS, import_dataset
from visionprefer.importing.source import patterns
from visionprefer.store import Store

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub's client, which may not ask the hub."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("revision", ["", "@main"])
def test_a_dataset_of_the_hub_is_taken_at_its_commit(cache: Path, tmp_path: Path, revision: str) -> None:
    folder = cache / "datasets--me--pairs"
    pickapic(folder / "snapshots" / COMMIT, {"test": [pair("a cat", "x1", "y1", 1.0)]})
    file = next((folder / "snapshots").rglob("*.parquet"))  # as the client leaves it: a link to the content
    (folder / "blobs").mkdir()
    file.rename(folder / "blobs" / "content")
    file.symlink_to(folder / "blobs" / "content")
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(COMMIT)
    assert import_dataset("pickapic", f"hf://datasets/me/pairs{revision}", str(tmp_path / "ours")).kept == 1


def test_a_dataset_in_a_bucket_is_fetched(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = pickapic(tmp_path / "theirs", {"test": [pair("a cat", "x1", "y1", 1.0)]})
    Store(f"{bucket}/pairs").add_folder(folder)
    assert import_dataset("pickapic", f"{bucket}/pairs", str(tmp_path / "ours")).kept == 1
    with pytest.raises(InputError, match=r"s3://bucket/gone: there is no such folder"):
        import_dataset("pickapic", f"{bucket}/gone", str(tmp_path / "ours"))


def test_a_dataset_that_the_hub_does_not_give_is_told(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hf://datasets/me/gone: the hub has or gives no such dataset"):
        import_dataset("pickapic", "hf://datasets/me/gone", str(tmp_path / "ours"))
    for source in ("hf://me/pairs", "hf:me/pairs", "hf://datasets/me", "hf://datasets/me/pairs/data/a.parquet"):
        with pytest.raises(InputError, match=r"not a dataset on the hub. Write hf://datasets/OWNER/NAME"):
            import_dataset("pickapic", source, str(tmp_path / "ours"))


@pytest.mark.parametrize(
    ("layout", "split", "fetched", "left"),
    [
        ("pickapic", "test", ["data/test-00000-of-00014-a.parquet"], ["data/test_unique-0.parquet", "README.md"]),
        ("pickapic", "test_unique", ["data/test_unique-00000-of-00001-a.parquet"], ["data/test-0.parquet"]),
        ("hpdv2", "test", ["test.json", "test.tar.gz"], ["train.json", "train.tar.gz", "HPDv2.py"]),
        (
            "imagerewarddb",
            "train",
            ["metadata-train.parquet", "images/train/train_1.zip", "images/train/train_32.zip"],
            ["metadata-test.parquet", "images/test/test_1.zip", "ImageRewardDB.py"],
        ),
    ],
)
def test_no_more_is_fetched_than_the_splits_take(layout: str, split: str, fetched: list[str], left: list[str]) -> None:
    wanted = patterns(LAYOUTS[layout], [split])
    assert list(filter_repo_objects([*fetched, *left], allow_patterns=wanted)) == fetched
