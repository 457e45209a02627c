"""A model is a folder with all its parts or a hub id at a commit, and its digest follows what it computes."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from visionprefer import models
from visionprefer.errors import InputError
from visionprefer.models import find_model

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What find_model looks at in a pipeline of one part with weights and one without."""
    for name, content in {
        "model_index.json": json.dumps(
            {"_class_name": "P", "unet": ["diffusers", "U"], "scheduler": ["d", "S"], "checker": [None, None]}
        ),
        "scheduler/scheduler_config.json": "{}",
        "unet/config.json": "{}",
        WEIGHTS: "weights",
    }.items():
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_text(content)
    return tmp_path / "model"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is where nobody listens."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")


def test_a_folder_is_found_by_its_content_wherever_it_lies(folder: Path) -> None:
    model = find_model(str(folder), "diffusers")
    assert (model.location, model.revision, model.label) == (str(folder), None, "model")
    moved = find_model(str(folder.rename(folder.parent / "moved")), "diffusers")
    assert moved.digest == model.digest
    assert find_model(moved.location, "diffusers", variant="fp16").digest != model.digest


def test_true_folders_are_found(tiny_sdxl: Path, tiny_llava: Path) -> None:
    assert find_model(str(tiny_sdxl), "diffusers").label == "tiny-sdxl"
    assert find_model(str(tiny_llava), "transformers").label == "tiny-llava"
    with pytest.raises(InputError, match=r"not a transformers model: it has no config\.json"):
        find_model(str(tiny_sdxl), "transformers")


def test_other_weights_are_another_model_and_another_readme_is_not(folder: Path) -> None:
    digest = find_model(str(folder), "diffusers").digest
    (folder / "README.md").write_text("notes")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "lock").write_text("")
    assert find_model(str(folder), "diffusers").digest == digest
    (folder / WEIGHTS).write_text("weightz")
    assert find_model(str(folder), "diffusers").digest != digest


@pytest.mark.parametrize(
    ("lacking", "told"),
    [
        ("", "there is no such folder. Write the path of a model folder, or OWNER/NAME"),
        ("model_index.json", "is not a diffusers pipeline: it has no model_index.json"),
        ("scheduler", "model_index.json names scheduler, and there is no such folder"),
        (WEIGHTS, r"no weights \(\*.safetensors\) in .*unet"),
    ],
)
def test_what_a_folder_lacks_is_told(folder: Path, lacking: str, told: str) -> None:
    gone = folder / lacking
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(InputError, match=f"model '.*model'.*{told}"):
        find_model(str(folder), "diffusers")


def test_an_index_that_is_not_json_is_told(folder: Path) -> None:
    (folder / "model_index.json").write_text("{")
    with pytest.raises(InputError, match=r"model_index\.json is not JSON"):
        find_model(str(folder), "diffusers")


def test_a_hub_id_is_resolved_to_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    commits = {None: "c0", "main": "c0", "old": "c1"}
    monkeypatch.setattr(
        huggingface_hub.HfApi,
        "model_info",
        lambda self, name, revision, timeout: SimpleNamespace(sha=commits[revision]),
    )
    model = find_model("owner/name", "diffusers")
    assert (model.location, model.revision, model.label) == ("owner/name", "c0", "owner/name")
    assert find_model("owner/name", "diffusers", "main") == model
    old = find_model("owner/name", "diffusers", "old")
    assert old.revision == "c1"
    assert old.digest != model.digest


def test_a_commit_that_is_known_is_not_asked_for(offline: None) -> None:
    assert find_model("owner/name", "diffusers", "main", commit="c0").revision == "c0"


def test_out_of_reach_of_the_hub_the_cache_says_the_commit(
    offline: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "snapshots" / "c7"))
    assert find_model("owner/name", "diffusers").revision == "c7"


def test_a_hub_id_out_of_reach_and_not_cached_is_told(offline: None) -> None:
    with pytest.raises(InputError, match=r"model 'no-owner/no-name'.*Connection refused.*Write the path"):
        find_model("no-owner/no-name", "diffusers")


@pytest.fixture
def builtin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of built-in models: "model" and "other"."""
    monkeypatch.setattr(models, "BUILTIN_MODELS", folder.parent)
    shutil.copytree(folder, folder.parent / "other")
    (folder.parent / "README.md").write_text("no model")
    return folder.parent


def test_a_builtin_model_is_an_ordinary_folder(builtin: Path) -> None:
    model = find_model("builtin:model", "diffusers", variant="fp16")
    assert (model.label, model.location, model.revision) == ("model", str(builtin / "model"), None)
    assert model.digest == find_model(str(builtin / "model"), "diffusers", variant="fp16").digest
    with pytest.raises(InputError, match=r"is not a transformers model: it has no config\.json"):
        find_model("builtin:model", "transformers")


def test_a_builtin_model_lies_where_the_package_does(builtin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent to a worker is its name: the package may be installed elsewhere there."""
    model = find_model("builtin:model", "diffusers")
    assert not any(str(builtin) in str(field) for field in model)
    monkeypatch.setattr(models, "BUILTIN_MODELS", Path("/elsewhere"))
    assert model.location == "/elsewhere/model"


def test_a_wrong_name_is_told_with_the_right_ones(builtin: Path) -> None:
    with pytest.raises(InputError, match=r"'builtin:modell'.*Write one of builtin:model, builtin:other$"):
        find_model("builtin:modell", "diffusers")


def lora(tmp_path: Path, base: Path) -> Path:
    """Weights that were trained on a base, as `visionprefer dpo` leaves them."""
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "pytorch_lora_weights.safetensors").write_text("lora")
    recipe = {"model": str(base), "revision": None, "variant": None}
    about = {"model_digest": find_model(str(base), "diffusers").digest, "model_revision": None, "recipe": recipe}
    (tmp_path / "lora" / "training.json").write_text(json.dumps({"trained_on": about}))
    return tmp_path / "lora"


def test_lora_weights_are_a_model_with_their_base(folder: Path, tmp_path: Path) -> None:
    trained = lora(tmp_path, folder)
    model = find_model(str(trained), "diffusers")
    assert model.label == "lora"
    assert model.base == find_model(str(folder), "diffusers")
    (trained / "pytorch_lora_weights.safetensors").write_text("others")
    assert find_model(str(trained), "diffusers").digest != model.digest


def test_lora_weights_without_their_base_are_told(folder: Path, tmp_path: Path) -> None:
    trained = lora(tmp_path, folder)
    (folder / WEIGHTS).write_text("other weights")
    with pytest.raises(InputError, match="is not what it was when they were trained"):
        find_model(str(trained), "diffusers")
    (trained / "training.json").unlink()
    with pytest.raises(InputError, match=r"no training\.json beside them says of which model"):
        find_model(str(trained), "diffusers")
