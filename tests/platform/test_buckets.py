"""Models in buckets are brought to the machine that loads them, on an S3 server."""

from pathlib import Path

import pytest

from visionprefer.buckets import brought_here
from visionprefer.errors import InputError
from visionprefer.models import find_model
from visionprefer.store import Store


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "visionprefer"


def test_a_folder_of_this_machine_is_itself() -> None:
    assert brought_here("runs/dpo") == Path("runs/dpo")


def test_a_model_in_a_bucket_is_the_model_that_was_put_there(bucket: str, tiny_sd: Path) -> None:
    Store(f"{bucket}/models/tiny").add_folder(tiny_sd)
    there, here = find_model(f"{bucket}/models/tiny", "diffusers"), find_model(str(tiny_sd), "diffusers")
    assert (there.digest, there.label) == (here.digest, "tiny")
    assert Path(there.location).is_dir()


def test_it_is_copied_once_and_again_when_it_has_changed(bucket: str, cache: Path) -> None:
    store = Store(f"{bucket}/models/small")
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


def test_folders_of_a_bucket_go_with_all_that_is_in_them(bucket: str) -> None:
    store = Store(f"{bucket}/out")
    store.write("checkpoints/one/state", b"1")
    store.write("training.json", b"{}")
    store.delete_folder("checkpoints")
    store.delete_folder("checkpoints")
    assert store.names("") == ["training.json"]
