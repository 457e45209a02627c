"""Exports are read by those who would read them: datasets, pandas, duckdb, json and PIL."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from datasets import load_dataset
from PIL import Image

from visionprefer.errors import InputError
from visionprefer.export import export
from visionprefer.layouts import parts, pickapic
from visionprefer.run_folder import RunFolder

PICKAPIC_V2 = {
    "are_different", "best_image_uid", "caption", "created_at", "has_label", "image_0_uid", "image_0_url",
    "image_1_uid", "image_1_url", "jpg_0", "jpg_1", "label_0", "label_1", "model_0", "model_1", "ranking_id",
    "user_id", "num_example_per_prompt",
}  # fmt: skip


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def stored(run: RunFolder) -> dict[str, bytes]:
    """The bytes of each image as the run holds them."""
    rows = run.images.table(["image_id", "image"]).to_pylist()
    return {row["image_id"]: row["image"]["bytes"] for row in rows}


def loaded(out: Path, config: str | None = None, split: str = "train") -> Any:
    return load_dataset(str(out), config, split=split, cache_dir=str(out.parent / "cache"))


def header(out: Path) -> dict[str, Any]:
    _, yaml_part, _ = (out / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return dict(yaml.safe_load(yaml_part))


def test_what_is_named_is_what_is_there(run: RunFolder, out: Path) -> None:
    for to in ("hf", "pickapic", "hpdv2"):
        files = export(run, to, str(out / to))
        assert sorted(str(f.relative_to(out / to)) for f in (out / to).rglob("*") if f.is_file()) == files


def test_hf_loads_and_images_decode(run: RunFolder, out: Path, stored: dict[str, bytes]) -> None:
    export(run, "hf", str(out))
    training = loaded(out, "training")
    assert training["prompt"] == ["a red circle"]  # `two alike` ties, `one alone` has no pair
    [row] = training
    assert [image.size for image in row["images"]] == [(64, 64)] * 4
    assert list(row["images"][0].getdata()) == list(Image.open(io.BytesIO(stored["0-0"])).convert("RGB").getdata())
    assert {"aspect": "overall", "chosen": 0, "rejected": 3, "margin": 3.0} in row["pairs"]

    images = loaded(out, "images", "held_out")
    assert sorted(images["image_id"]) == ["1-0", "1-2", "1-3"]
    assert images[0]["image"].size == (64, 64)
    assert len(loaded(out, "images")) == 8


def test_hf_tables_hold_every_row_once(run: RunFolder, out: Path) -> None:
    export(run, "hf", str(out))
    for config, table in {"judgements": run.judgements(), "preferences": run.preferences()}.items():
        splits = [loaded(out, config, split).to_list() for split in ("train", "held_out")]
        assert {row["prompt_id"] for row in splits[1]} == {"p1"}
        assert sorted(splits[0] + splits[1], key=str) == sorted(table.to_pylist(), key=str)


def test_hf_default_is_training(run: RunFolder, out: Path) -> None:
    export(run, "hf", str(out))
    assert "pairs" in loaded(out).column_names


def test_pickapic(run: RunFolder, out: Path, stored: dict[str, bytes]) -> None:
    export(run, "pickapic", str(out))
    train, test = pd.read_parquet(out / "data/train-00000.parquet"), pd.read_parquet(out / "data/test-00000.parquet")
    assert set(train.columns) == PICKAPIC_V2
    # Overall: a red circle 4.5, 3, 3, 1.5; two alike 3, 3; the held-out prompt 2, 5, 2 (candidate 1 failed).
    labels = ["caption", "image_0_uid", "image_1_uid", "label_0", "label_1", "best_image_uid"]
    assert train[labels].to_numpy().tolist() == [
        ["a red circle", "0-0", "0-1", 1, 0, "0-0"],
        ["a red circle", "0-0", "0-2", 1, 0, "0-0"],
        ["a red circle", "0-0", "0-3", 1, 0, "0-0"],
        ["a red circle", "0-1", "0-2", 0.5, 0.5, "tie"],
        ["a red circle", "0-1", "0-3", 1, 0, "0-1"],
        ["a red circle", "0-2", "0-3", 1, 0, "0-2"],
        ["two alike", "2-0", "2-1", 0.5, 0.5, "tie"],
    ]
    assert test[labels[1:]].to_numpy().tolist() == [
        ["1-0", "1-2", 0, 1, "1-2"],
        ["1-0", "1-3", 0.5, 0.5, "tie"],
        ["1-2", "1-3", 1, 0, "1-2"],
    ]
    assert train["num_example_per_prompt"].tolist() == [6] * 6 + [1]
    assert [*train["ranking_id"], *test["ranking_id"]] == list(range(10))
    assert train["model_0"][0] == "owner/small"
    assert train["model_1"][0] == "large"
    for i in (0, 1):
        both = pd.concat([train, test])
        assert [stored[uid] for uid in both[f"image_{i}_uid"]] == both[f"jpg_{i}"].tolist()
    assert Image.open(io.BytesIO(loaded(out, split="test")[0]["jpg_1"])).size == (64, 64)


def test_hpdv2(run: RunFolder, out: Path, stored: dict[str, bytes]) -> None:
    export(run, "hpdv2", str(out))
    train, test = (json.loads((out / f"{split}.json").read_text(encoding="utf-8")) for split in ("train", "test"))
    assert [(row["image_path"], row["human_preference"]) for row in train] == [
        (["0-0.png", "0-1.png"], [1, 0]),
        (["0-0.png", "0-2.png"], [1, 0]),
        (["0-0.png", "0-3.png"], [1, 0]),
        (["0-1.png", "0-3.png"], [1, 0]),
        (["0-2.png", "0-3.png"], [1, 0]),
    ]
    assert all(row["file_path"] == row["image_path"] for row in train)
    [ranking] = test
    assert ranking["prompt"] == run.prompts()["prompt"][1].as_py()
    assert ranking["image_path"] == ["1-0.png", "1-2.png", "1-3.png"]
    assert ranking["rank"] == [2, 1, 2]
    assert {path.name for path in (out / "train").iterdir()} == {"0-0.png", "0-1.png", "0-2.png", "0-3.png"}
    assert (out / "test/1-2.png").read_bytes() == stored["1-2"]
    assert Image.open(out / "test/1-2.png").size == (64, 64)
    assert loaded(out, "pairs")["human_preference"] == [[1, 0]] * 5
    assert loaded(out, "rankings", "test")["rank"] == [[2, 1, 2]]


def test_preference_for_the_second_image(make_run: Callable[..., RunFolder], out: Path) -> None:
    run = make_run({"worse, better": ("train", [[1, 1, 1, 1], [4, 4, 4, 4]])})
    export(run, "hpdv2", str(out))
    [pair] = json.loads((out / "train.json").read_text())
    assert pair["human_preference"] == [0, 1]
    assert json.loads((out / "test.json").read_text()) == []


@pytest.mark.parametrize("to", ["hf", "pickapic", "hpdv2"])
def test_card_counts_what_is_there_and_says_what_is_not(run: RunFolder, out: Path, to: Any) -> None:
    export(run, to, str(out))
    card = (out / "README.md").read_text(encoding="utf-8")
    assert header(out)["license"] == "other"
    assert header(out)["size_categories"] == ["n<1K"]
    assert "Of 12 images planned 1 failed, and of 11 replies of the judge 1;" in card
    for said in ("owner/small", "prompt_following 0.25", "derived-digest", "opinions of a model", "{prompt}"):
        assert said in card
    assert "somebody" not in card  # folders of the machine that ran it
    counts = {"hf": "images, train | 8", "hpdv2": "ties left out of train.json | 2", "pickapic": "ties among them | 3"}
    assert f"| {counts[to]} |" in card


@pytest.mark.parametrize("to", ["hf", "pickapic"])
def test_rows_go_into_parts_and_all_are_read(
    run: RunFolder, out: Path, to: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    export(run, to, str(out))
    folder, rows = ("images", 8) if to == "hf" else ("data", 7)
    assert len(list((out / folder).glob("train-*.parquet"))) > 1
    assert len(loaded(out, "images" if to == "hf" else None)) == rows


@pytest.mark.parametrize("to", ["hf", "pickapic", "hpdv2"])
def test_memory_does_not_grow_with_the_run(
    make_run: Callable[..., RunFolder], out: Path, to: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 1 << 20)
    monkeypatch.setattr(pickapic, "PROMPTS_AT_ONCE", 2)
    peaks = []
    for prompts in (12, 48):
        given = {f"prompt {i}": ("train", [[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]) for i in range(prompts)}
        run = make_run(given, padding=200_000)
        usual = pa.default_memory_pool()
        counted = pa.proxy_memory_pool(usual)
        pa.set_memory_pool(counted)
        try:
            for number in range(4):  # one takes up to 40 % less, as Arrow's threads let go of a buffer sooner or later
                export(run, to, f"{out}-{prompts}-{number}")
        finally:
            pa.set_memory_pool(usual)
        peaks.append(counted.max_memory())
    assert peaks[1] < 2 * peaks[0]  # four times the rows


def test_existing_images_keep_their_format_and_name(make_run: Callable[..., RunFolder], out: Path) -> None:
    run = make_run()
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(jpeg, "jpeg")
    for commit in run.images.commits.values():
        table = run.store.read_table(f"images/{commit.shard}.parquet")
        taken_in = {"image": {"bytes": jpeg.getvalue(), "path": None}, "source": "/home/somebody/pictures/red.jpg"}
        rows = [row | taken_in for row in table.to_pylist()]
        run.store.write_table(f"images/{commit.shard}.parquet", table.from_pylist(rows, schema=table.schema), 16)
    export(run, "hpdv2", str(out))
    assert (out / "train/0-0.jpg").read_bytes() == jpeg.getvalue()
    export(run, "hf", str(out))
    images = loaded(out, "images")
    assert images[0]["image"].size == (8, 8)
    assert set(images["source"]) == {"red.jpg"}


def test_an_earlier_export_is_replaced(run: RunFolder, out: Path, make_run: Callable[..., RunFolder]) -> None:
    export(run, "hpdv2", str(out))
    files = export(make_run({"other": ("train", [[1, 1, 1, 1], [4, 4, 4, 4]])}), "pickapic", str(out))
    assert sorted(str(f.relative_to(out)) for f in out.rglob("*") if f.is_file()) == files


def test_other_peoples_folders_are_left_alone(run: RunFolder, out: Path) -> None:
    (out / "mine").mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds other things \(mine\).*Write a new folder"):
        export(run, "hf", str(out))
    with pytest.raises(InputError, match="other things"):
        export(run, "hf", run.store.root)
    assert run.images.table(["image_id"]).num_rows == 11


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"layout": "xml"}'])
def test_a_file_of_the_marks_name_is_no_mark(run: RunFolder, out: Path, content: str) -> None:
    out.mkdir()
    (out / "export.json").write_text(content)
    with pytest.raises(InputError, match="other things"):
        export(run, "hf", str(out))


def test_a_cloned_repository_counts_as_empty(run: RunFolder, out: Path) -> None:
    (out / ".git").mkdir(parents=True)
    (out / ".gitattributes").write_text("*.parquet filter=lfs\n")
    export(run, "hf", str(out))
    assert (out / ".gitattributes").exists()


def test_a_run_without_preferences_is_told(make_run: Callable[..., RunFolder], out: Path) -> None:
    run = make_run({"one": ("train", [[4, 4, 4, 4]])})
    with pytest.raises(InputError, match="has no preferences"):
        export(run, "hf", str(out))
    assert not out.exists()


def test_an_unfinished_run_is_told(run: RunFolder, out: Path) -> None:
    del run.manifest["derived"]
    with pytest.raises(InputError, match="not finished"):
        export(run, "hf", str(out))
    assert not out.exists()


def test_the_runs_own_files_are_plain_parquet(run: RunFolder, out: Path) -> None:
    root = run.store.root
    images = pd.concat(pd.read_parquet(file) for file in sorted(Path(root, "images").glob("*.parquet")))
    assert sorted(images["image_id"]) == sorted(by_duckdb("SELECT image_id", f"{root}/images/*.parquet"))
    assert Image.open(io.BytesIO(images["image"].iloc[0]["bytes"])).size == (64, 64)
    preferences = pd.read_parquet(f"{root}/preferences.parquet")
    assert by_duckdb("SELECT count(*)", f"{root}/preferences.parquet", "GROUP BY aspect") == [10] * 5
    assert len(preferences) == 50
    export(run, "hf", str(out))
    assert by_duckdb("SELECT len(images)", f"{out}/training/*.parquet", "ORDER BY prompt") == [3, 4]


def by_duckdb(select: str, files: str, rest: str = "") -> list[Any]:
    return [value for (value,) in duckdb.sql(f"{select} FROM '{files}' {rest}").fetchall()]
