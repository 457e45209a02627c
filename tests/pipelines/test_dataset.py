"""Whole runs through Ray Data: what fails becomes rows, what is there is not made again, and errors teach."""

import importlib.util
import io
import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from visionprefer.errors import InputError
from visionprefer.recipe import Recipe
from visionprefer.run_folder import RunFolder
from visionprefer.schema import ASPECTS
from visionprefer.store import Store
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.run import run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_ray")]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path, tiny_llava: Path) -> Recipe:
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    prompts.write_text("a red cat\na blue dog\na green bird\n")
    model = {"model": str(tiny_sd), "num_inference_steps": 2, "guidance_scale": [1.0, 4.0]}
    return Recipe.model_validate(
        {
            "name": "trial",
            "prompts": {"path": str(prompts), "held_out": 0.5},
            "images": {"models": [model], "images_per_prompt": 2, "batch_size": 2, "block_size": 2},
            "judge": {"model": str(tiny_llava), "temperature": 1.0, "rationale_length": 10, "max_new_tokens": 200},
        }
    )


def changed(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with other fields: stage__field=value."""
    data = recipe.model_dump()
    for place, value in changes.items():
        *parents, last = place.split("__")
        target = data
        for parent in parents:
            target = target[parent]
        target[last] = value
    return Recipe.model_validate(data)


def go(recipe: Recipe, out: Path, **options: Any) -> tuple[RunFolder, str]:
    console = Console(file=io.StringIO(), width=200)
    with Progress(console) as progress:
        folder = run(recipe, str(out), progress, **options)
    return folder, console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def _once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("once") / "out"


@pytest.fixture
def made(recipe: Recipe, _once: Path, one_ray: None, tmp_path: Path) -> Path:
    """The folder of a finished run."""
    if not _once.exists():
        go(recipe, _once)
    return shutil.copytree(_once, tmp_path / "out")


def written_at(out: Path, pattern: str) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in out.glob(pattern)}


def test_a_run_another_judge_other_preferences(recipe: Recipe, tmp_path: Path) -> None:
    """Another judge makes no new image; other weights ask no judge; nothing new does nothing."""
    out = tmp_path / "out"
    folder, told = go(recipe, out)
    assert [tuple(c) for c in folder.counts().values()] == [(6, 0, 0), (6, 0, 0)]
    assert "images are generated in float32 on cpu" in told
    assert "runs in float32 on cpu" in told
    assert Counter(folder.judgements()["scorer"].to_pylist()) == dict.fromkeys(ASPECTS, 6)
    assert folder.preferences().num_rows == 3 * 5
    assert json.loads((out / "statistics.json").read_text())
    assert "a red cat" in (out / "report.html").read_text()

    images, replies, derived = (written_at(out, p) for p in ("images/*", "replies/*/*", "*.parquet"))
    go(recipe, out)
    assert written_at(out, "*.parquet") == derived

    go(changed(recipe, preferences__weights={"aesthetic": 1.0}), out)
    assert written_at(out, "replies/*/*") == replies
    assert written_at(out, "preferences.parquet") != {k: v for k, v in derived.items() if "preferences" in k}

    folder, told = go(changed(recipe, judge__repeats=2), out)
    assert "another judge than last time" in told
    assert written_at(out, "images/*") == images
    assert written_at(out, "replies/*/*").items() > replies.items()
    assert tuple(folder.counts()["replies"]) == (12, 0, 0)
    judged = folder.judgements()
    assert Counter(judged["scorer"].to_pylist()) == dict.fromkeys(ASPECTS, 12)
    given = judged.group_by(["image_id", "scorer"]).aggregate([("score", "mean"), ("repeat", "count_distinct")])
    assert set(given["repeat_count_distinct"].to_pylist()) == {2}
    means = {(row["image_id"], row["scorer"]): row["score_mean"] for row in given.to_pylist()}
    for pair in folder.preferences().to_pylist():
        assert pair["aspect"] == "overall" or pair["score_0"] == means[pair["image_id_0"], pair["aspect"]]
    assert {found["pairs"] for found in json.loads((out / "statistics.json").read_text())["self_consistency"]} == {3}


def test_lost_and_damaged_shards_are_made_again_and_paid_replies_are_kept(recipe: Recipe, made: Path) -> None:
    out, before = made, RunFolder(Store(made))
    images = {row["image_id"]: row["image"]["bytes"] for row in before.images.table().to_pylist()}
    raw = before.replies.table().sort_by("request_id")
    (out / "images/000000.0.parquet").unlink()
    damaged = out / "images/000001.0.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    folder, told = go(recipe, out)
    assert "images/000001.0.parquet is damaged" in told
    assert {row["image_id"]: row["image"]["bytes"] for row in folder.images.table().to_pylist()} == images
    assert folder.replies.table().sort_by("request_id").equals(raw)
    assert [tuple(c) for c in folder.counts().values()] == [(6, 0, 0), (6, 0, 0)]


def test_no_derived_table_is_made_of_a_shard_that_changed_behind_our_back(recipe: Recipe, made: Path) -> None:
    """Its size is what it was, and nobody has read it since."""
    out, before = made, RunFolder(Store(made))
    images = {row["image_id"]: row["image"]["bytes"] for row in before.images.table().to_pylist()}
    shard = out / "images/000000.0.parquet"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    reweighted = changed(recipe, preferences__weights={"aesthetic": 1.0})
    with pytest.raises(InputError, match=r"images/000000.0.parquet changed after it was written. Run again"):
        go(reweighted, out)
    folder, _ = go(reweighted, out)
    assert {row["image_id"]: row["image"]["bytes"] for row in folder.images.table().to_pylist()} == images
    assert [tuple(c) for c in folder.counts().values()] == [(6, 0, 0), (6, 0, 0)]


def test_a_folder_of_another_recipe_is_refused_and_left_alone(recipe: Recipe, made: Path) -> None:
    before = written_at(made, "**/*.parquet")
    with pytest.raises(InputError, match=r"another recipe \(images.batch_size was 2, and is now 3; seed was 0, and is"):
        go(changed(recipe, images__batch_size=3, seed=7), made)
    assert written_at(made, "**/*.parquet") == before


def test_a_folder_with_other_things_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").touch()
    with pytest.raises(InputError, match=r"the folder holds other things \(prompts.txt\)"):
        go(recipe, tmp_path)


def test_prose_becomes_failed_rows_that_can_be_taken_up_again(recipe: Recipe, made: Path) -> None:
    prose = changed(recipe, judge__structured=False, judge__max_new_tokens=20)
    folder, _ = go(prose, made)
    assert tuple(folder.counts()["replies"]) == (0, 6, 0)
    failed = folder.replies.failed()
    assert failed is not None
    assert all(failed["raw"].to_pylist())
    assert all("reply" in reason for reason in failed["error"].to_pylist())
    assert folder.preferences().num_rows == 0
    first = set(failed["raw"].to_pylist())

    folder, _ = go(prose, made, retry_failed=True)
    failed = folder.replies.failed()
    assert failed is not None
    assert tuple(folder.counts()["replies"]) == (0, 6, 0)
    assert Counter(ids[0] for ids in failed["image_ids"].to_pylist()) == dict.fromkeys(
        folder.images.table(["image_id"])["image_id"].to_pylist(), 1
    )
    assert not first & set(failed["raw"].to_pylist())


def test_a_judge_that_writes_white_space_for_ever(recipe: Recipe, made: Path, tmp_path: Path, tiny_llava: Path) -> None:
    """This one can say nothing else: the grammar makes it a judge all the same, and without it rows fail."""
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny_llava, tmp_path / "white")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (space,) = tokenizer("\n", add_special_tokens=False).input_ids
    settings = json.loads((folder / "generation_config.json").read_text())
    settings["suppress_tokens"] = [token for token in range(len(tokenizer)) if token != space]
    (folder / "generation_config.json").write_text(json.dumps(settings))
    white = changed(recipe, judge__model=str(folder), judge__structured=False, judge__max_new_tokens=20)
    run_folder, _ = go(white, made)
    failed = run_folder.replies.failed()
    assert failed is not None
    assert set(failed["error"].to_pylist()) == {"cut off after 20 tokens: the reply is white space"}
    assert tuple(run_folder.counts()["replies"]) == (0, 6, 0)


def test_a_model_that_returns_nan_and_a_good_one(recipe: Recipe, tmp_path: Path, tiny_sd: Path) -> None:
    """The failed images are never judged, and are taken up again alone when the model is mended."""
    import torch
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(tiny_sd, tmp_path / "broken")
    weights = load_file(broken / "unet" / "diffusion_pytorch_model.safetensors")
    save_file(
        {k: torch.full_like(v, float("nan")) for k, v in weights.items()},
        broken / "unet" / "diffusion_pytorch_model.safetensors",
    )
    models = [{"model": str(m), "num_inference_steps": 2, "share": 0.5} for m in (tiny_sd, broken)]
    mixed = changed(recipe, images__models=models, images__images_per_prompt=6)
    folder, _ = go(mixed, tmp_path / "out")
    images, replies = folder.counts().values()
    assert images.done + images.failed == 18
    assert images.failed > 0
    assert tuple(replies) == (images.done, 0, 0)
    failed = folder.images.failed()
    assert failed is not None
    assert set(failed["model"].to_pylist()) == {"broken"}
    assert all("NaN" in reason for reason in failed["error"].to_pylist())

    again, told = go(mixed, tmp_path / "out", retry_failed=True)
    assert tuple(again.counts()["images"]) == tuple(images)
    assert f"{images.done} of 18 images and {images.done} replies are there already" in told
    second = again.images.failed()
    assert second is not None
    assert sorted(second["image_id"].to_pylist()) == sorted(failed["image_id"].to_pylist())


def test_images_that_exist_are_judged(recipe: Recipe, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i, caption in enumerate(["a cat", "a dog", "A cat", "a bird"]):
        Image.new("RGB", (40, 30), (i * 60, 0, 0)).save(pictures / f"{i}.png")
        (pictures / f"{i}.txt").write_text(caption)
    (pictures / "3.png").write_bytes((pictures / "3.png").read_bytes()[:50])
    Image.new("RGB", (8, 8)).save(pictures / "uncaptioned.png")
    existing = changed(recipe, images__existing=str(pictures), images__models=[], prompts__path=None)
    folder, _ = go(existing, tmp_path / "out")
    assert [tuple(c) for c in folder.counts().values()] == [(3, 1, 0), (3, 0, 0)]
    stored = {row["source"]: row["image"]["bytes"] for row in folder.images.table().to_pylist()}
    assert stored == {str(pictures / f"{i}.png"): (pictures / f"{i}.png").read_bytes() for i in range(3)}
    cats = {row["prompt_id"] for row in folder.preferences().to_pylist()}
    assert len(cats) == 1
    rejected = folder.rejected_prompts().to_pylist()
    assert [(Path(row["source"]).name, row["reason"][:10]) for row in rejected] == [("uncaptioned.png", "no caption")]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"images__models": [{"model": "/no/such/folder"}]}, "model '/no/such/folder': there is no such folder"),
        ({"judge__model": "nonsense"}, "model 'nonsense': there is no such folder. Write .* OWNER/NAME"),
        ({"prompts__path": "/no/prompts.txt"}, "/no/prompts.txt"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_made(
    recipe: Recipe, tmp_path: Path, change: dict, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        go(changed(recipe, **change), tmp_path / "out")
    assert Store(tmp_path / "out").names("") == []


def test_a_model_that_cannot_be_loaded_is_told_and_the_run_goes_on_later(
    recipe: Recipe, tmp_path: Path, tiny_llava: Path
) -> None:
    """Its folder looks complete, so that only loading it shows that the weights are none."""
    broken = shutil.copytree(tiny_llava, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"model: .*broken.* cannot be loaded as an image-text-to-text model"):
        go(changed(recipe, judge__model=str(broken)), tmp_path / "out")
    made = written_at(tmp_path / "out", "images/*")
    folder, _ = go(recipe, tmp_path / "out")
    assert [tuple(c) for c in folder.counts().values()] == [(6, 0, 0), (6, 0, 0)]
    assert made.items() <= written_at(tmp_path / "out", "images/*").items()


def test_a_full_disk_stops_the_run_and_loses_nothing(recipe: Recipe, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        with pytest.raises(InputError, match=r"No space left on device.*Make room"):
            go(changed(recipe, images__images_per_prompt=8), small / "out")
        done = written_at(small / "out", "images/*.parquet")
        subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True)
        folder, _ = go(changed(recipe, images__images_per_prompt=8), small / "out")
        assert [tuple(c) for c in folder.counts().values()] == [(24, 0, 0), (24, 0, 0)]
        assert done.items() <= written_at(small / "out", "images/*.parquet").items()
        assert not list((small / "out").rglob(".*.parquet.*"))
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is there")
def test_without_vllm_its_engine_says_what_to_install(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"vllm is not installed.*visionprefer\[vllm\]"):
        go(changed(recipe, judge__engine="vllm"), tmp_path / "out")
    assert not list((tmp_path / "out").glob("images/*"))
