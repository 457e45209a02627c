"""A folder goes on with the recipe it was begun with, wherever its inputs lie and whatever the hub says since."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from PIL import Image

from visionprefer import models
from visionprefer.errors import InputError
from visionprefer.recipe import Recipe
from visionprefer.store import Store
from visionprefer_pipelines.preparation import check, prepare


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str | None, str]:
    """What commits the hub gives for revisions; models on it are owner/…"""
    commits: dict[str | None, str] = {None: "c0", "main": "c0"}
    monkeypatch.setattr(
        huggingface_hub.HfApi,
        "model_info",
        lambda self, name, revision, timeout: SimpleNamespace(sha=commits[revision]),
    )
    return commits


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "prompts.txt").write_text("a cat\na dog on a hill\n")
    return {
        "name": "trial",
        "prompts": {"path": str(tmp_path / "prompts.txt")},
        "images": {"models": [{"model": "owner/draws"}]},
        "judge": {"model": "owner/judges", "revision": "main"},
    }


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for name, caption in {"a": "a cat", "b": "a dog"}.items():
        Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / f"{name}.png")
        (tmp_path / "pictures" / f"{name}.txt").write_text(caption)
    return tmp_path / "pictures"


def of_pictures(pictures: Path) -> Recipe:
    return Recipe.model_validate(
        {"name": "trial", "images": {"existing": str(pictures)}, "judge": {"model": "owner/judges"}}
    )


def test_a_run_stays_at_the_commits_it_began_with(hub: dict, data: dict, tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    first = prepare(Recipe.model_validate(data), store)
    assert [{k: v for k, v in model.items() if k != "digest"} for model in first.manifest["models"]] == [
        {"name": "owner/draws", "revision": None, "commit": "c0"},
        {"name": "owner/judges", "revision": "main", "commit": "c0"},
    ]
    hub.update({None: "c1", "main": "c1"})
    again = prepare(Recipe.model_validate(data), store)
    assert (again.models, again.judge) == (first.models, first.judge)
    assert store.manifest()["models"] == first.manifest["models"]

    data["judge"]["revision"] = None
    other = prepare(Recipe.model_validate(data), store)
    assert other.judge.revision == "c1"
    assert "another judge than last time" in other.notes[0]

    data["images"]["models"][0]["revision"] = "main"
    with pytest.raises(InputError, match=r"another recipe \(images.models.0 is another model or was changed\)"):
        prepare(Recipe.model_validate(data), store)


def test_a_folder_has_no_commit(hub: dict, data: dict, tmp_path: Path, tiny_sd: Path) -> None:
    data["images"]["models"] = [{"model": str(tiny_sd)}]
    models = prepare(Recipe.model_validate(data), Store(tmp_path / "out")).manifest["models"]
    assert [model["commit"] for model in models] == [None, "c0"]


def test_other_prompts_are_told_without_digests(hub: dict, data: dict, tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    prepare(Recipe.model_validate(data), store)
    (tmp_path / "prompts.txt").rename(tmp_path / "moved.txt")
    data["prompts"]["path"] = str(tmp_path / "moved.txt")
    prepare(Recipe.model_validate(data), store)
    (tmp_path / "moved.txt").write_text("a cow")
    data["seed"] = 1
    with pytest.raises(InputError, match=r"\(the content of prompts.path changed; seed was 0, and is now 1\)"):
        prepare(Recipe.model_validate(data), store)


def test_pictures_may_move_and_not_change(hub: dict, pictures: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    before = prepare(of_pictures(pictures), store).manifest["plan"]
    ids = store.read_table("plan/00000.parquet")["image_id"]
    moved = pictures.rename(tmp_path / "moved")
    assert prepare(of_pictures(moved), store).manifest["plan"] == before
    plan = store.read_table("plan/00000.parquet")
    assert plan["image_id"] == ids
    assert plan["source"].to_pylist() == [str(moved / "a.png"), str(moved / "b.png")]
    Image.new("RGB", (99, 99)).save(moved / "a.png")
    with pytest.raises(InputError, match=r"another recipe \(the content of images.existing changed\)"):
        prepare(of_pictures(moved), store)


def test_a_check_says_what_there_is_to_do(hub: dict, data: dict, pictures: Path, tmp_path: Path) -> None:
    assert check(Recipe.model_validate(data))[-1] == "2 prompts kept, 0 rejected; 8 images to make and judge"
    (pictures / "b.txt").unlink()
    assert check(of_pictures(pictures))[-1] == "1 prompts kept, 1 rejected; 1 images to take over and judge"
    data["prompts"]["path"] = "/no/prompts.txt"
    with pytest.raises(InputError, match=r"/no/prompts\.txt"):
        check(Recipe.model_validate(data))
    (pictures / "a.txt").unlink()
    with pytest.raises(InputError, match=r"images\.existing"):
        check(of_pictures(pictures))


def test_prompts_that_builtin_models_do_not_know_are_told_at_once(
    hub: dict, data: dict, tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "BUILTIN_MODELS", tiny_sd.parent)
    (tmp_path / "prompts.txt").write_text("a cat\na red circle\n")
    assert prepare(Recipe.model_validate(data), Store(tmp_path / "any")).notes == []
    data["images"]["models"] = [{"model": f"builtin:{tiny_sd.name}"}]
    prepared = prepare(Recipe.model_validate(data), Store(tmp_path / "out"))
    assert prepared.models[0].label == tiny_sd.name
    assert "1 of 2 prompts are outside the blocks world" in prepared.notes[0]
    assert "1 of 2 prompts are outside the blocks world" in check(Recipe.model_validate(data))[0]
