"""An import as its readers see it, and what is left of one that was stopped."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from published import hpdv2, imagerewarddb, pair, pickapic, picture, rated, read_back, told_pairs
from rich.console import Console

from visionprefer.errors import InputError
from visionprefer.export import export
from visionprefer.importing import comparisons, import_dataset, taking
from visionprefer.importing import pickapic as pickapic_layout
from visionprefer.report import report
from visionprefer.reward import testing
from visionprefer.reward.recipe import RewardRecipe
from visionprefer.reward.steps import groups_of, prepared, serves
from visionprefer.reward.vpscore import VPScore
from visionprefer.run_folder import RunFolder
from visionprefer.shards import Counts
from visionprefer.statistics import statistics
from visionprefer.store import Store
from visionprefer_pipelines.show import show

MANY = [pair(f"prompt {n // 5}", f"x{n}", f"y{n // 2}", (1.0, 0.0, 0.5)[n % 3]) for n in range(200)]


def ranked(folder: Path, prompts: int = 12) -> Path:
    """ImageRewardDB with three images a prompt; of every fourth prompt they are published for testing."""
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for n in range(prompts):
        split = "test" if n % 4 == 0 else "train"
        splits[split] += [
            rated(str(n), f"prompt {n}", f"{split}_1/{n}-{rank}", rank, 8 - rank, 8 - 2 * rank, 4) for rank in (1, 2, 3)
        ]
    return imagerewarddb(folder, splits)


def test_readers_of_runs_read_an_import(tmp_path: Path) -> None:
    import_dataset("imagerewarddb", str(ranked(tmp_path / "theirs")), str(tmp_path / "ours"))
    run = RunFolder(Store(tmp_path / "ours"))
    assert run.is_finished
    assert run.counts() == {"images": Counts(36, 0, 0), "replies": Counts(0, 0, 0)}
    assert run.plan(["image_id"])["image_id"].to_pylist() == run.images.table(["image_id"])["image_id"].to_pylist()
    assert run.plan()["model"].null_count == run.plan()["seed"].null_count == 36
    assert run.rejected_prompts().num_rows == 0
    assert run.judges() == {} and list(run.counted_judges().values()) == ["annotators of ImageRewardDB"]
    assert run.recipe.images.existing == str(tmp_path / "theirs")
    assert not (tmp_path / "ours" / "importing").exists()

    [file] = run.training_files()
    rows = run.store.read_table(file).to_pylist()
    assert [row["split"] for row in rows].count("held_out") == 3
    first = rows[0]  # prompt 1, of which the first rank is the first image
    overall = [(one["chosen"], one["rejected"], one["margin"]) for one in first["pairs"] if one["aspect"] == "overall"]
    assert (first["prompt"], overall) == ("prompt 1", [(0, 1, 1.0), (0, 2, 2.0), (1, 2, 1.0)])
    assert {one["aspect"] for row in rows for one in row["pairs"]} == {"overall", "prompt_following"}
    assert [image["bytes"] for image in first["images"]] == [picture(f"1-{rank}", "WEBP") for rank in (1, 2, 3)]


def test_a_reward_model_reads_and_is_tested_on_an_import(tmp_path: Path, tiny_blip: Path) -> None:
    import_dataset("imagerewarddb", str(ranked(tmp_path / "theirs")), str(tmp_path / "ours"))
    run = RunFolder(Store(tmp_path / "ours"))
    recipe = RewardRecipe(name="r", backbone=str(tiny_blip), scores=("overall", "prompt_following"), validation=0.4)
    groups = groups_of(run.store, run.training_files(), recipe)
    model = VPScore.from_backbone(str(tiny_blip), None, recipe.scores, 0)
    group = next(iter(groups["training"]))
    found = prepared(run.store.read_row_group(*group), model.inputs.sizes.image_size, recipe, "training")
    rows = run.store.read_row_group(*group).to_pylist()
    assert found.num_rows == sum(serves(row, "training", recipe) for row in rows) > 0
    scored = testing.score_run(model, run, "held_out")
    figures = testing.test(model, scored, run.preferences(), "tiny", "judge")
    assert (figures.images, figures.aspects["overall"].pairs, figures.aspects["prompt_following"].pairs) == (9, 9, 9)
    assert {"ImageReward", "HPD v2"} < set(figures.protocols)


def test_it_is_shown_reported_and_published_again(tmp_path: Path) -> None:
    folder = pickapic(tmp_path / "theirs", {"train": MANY[:9], "test": MANY[100:106]})
    import_dataset("pickapic", str(folder), str(tmp_path / "ours"))
    console = Console(record=True, width=200)
    show(str(tmp_path / "ours"), console)
    assert "25 planned = 25 done + 0 failed" in console.export_text()
    run = RunFolder(Store(tmp_path / "ours"))
    prompts_with_choice = sum(run.store.footer(file)[0] for file in run.training_files())
    assert statistics(run).prompts_without_choice == run.prompts().num_rows - prompts_with_choice
    assert "annotators of Pick-a-Pic" in report(run)
    # As Pick-a-Pic again, it is the same pairs.
    export(run, "pickapic", str(tmp_path / "again"))
    import_dataset("pickapic", str(tmp_path / "again"), str(tmp_path / "ours-again"))
    first, again = (
        sorted((split, prompt, label) for split, prompt, _, _, label in told_pairs(tmp_path / name))
        for name in ("ours", "ours-again")
    )
    assert first == again and len(first) == 15


def test_an_import_that_was_stopped_goes_on_and_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(pickapic(tmp_path / "theirs", {"train": MANY[:150], "test": MANY[150:]}, row_group_size=100))
    import_dataset("pickapic", folder, str(tmp_path / "whole"))
    read: list[int] = []
    items, left = pickapic_layout._items, iter(range(3))

    def counted(*args: Any) -> Iterator[Any]:
        if next(left, None) is None:
            raise KeyboardInterrupt
        read.append(args[1] + args[2])
        yield from items(*args)

    monkeypatch.setattr(pickapic_layout, "_items", counted)
    with pytest.raises(KeyboardInterrupt):
        import_dataset("pickapic", folder, str(tmp_path / "stopped"))
    assert not (tmp_path / "stopped/manifest.json").exists()
    # The last unit lost its images: it is made again, as is what follows.
    (tmp_path / "stopped/images/000002.0.parquet").write_bytes(b"torn")
    left = iter(range(100))
    said: list[str] = []
    import_dataset("pickapic", folder, str(tmp_path / "stopped"), say=said.append)
    assert said[0] == "2 units of rows are there already"
    assert read == [0, 64, 100, 100, 0]  # of train in two row groups, then of test
    whole, stopped = read_back(tmp_path / "whole"), read_back(tmp_path / "stopped")
    assert whole == stopped and len(whole["preferences"]) == 200
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("whole", "stopped")]
    assert manifests[0] == manifests[1]

    said.clear()
    again = import_dataset("pickapic", folder, str(tmp_path / "stopped"), say=said.append)
    assert said == [f"{tmp_path / 'stopped'} is imported already"]
    assert again == (200, 0, 40, len(whole["images"]), 200, 66)


def test_the_folder_moves_and_another_import_is_not_mixed_in(tmp_path: Path) -> None:
    folder = pickapic(tmp_path / "theirs", {"train": MANY[:4], "test": MANY[100:104]})
    out = str(tmp_path / "ours")
    import_dataset("pickapic", str(folder), out)
    folder = folder.rename(tmp_path / "moved")
    assert import_dataset("pickapic", str(folder), out).kept == 8
    with pytest.raises(InputError, match=r"a run or another import is there. Write another --out"):
        import_dataset("pickapic", str(folder), out, splits=["train"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    with pytest.raises(InputError, match="the folder holds other things"):
        import_dataset("pickapic", str(folder), str(tmp_path / "full"))


def test_a_source_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no such folder. Write the dataset's, or hf://datasets/OWNER/NAME"):
        import_dataset("hpdv2", str(tmp_path / "gone"), str(tmp_path / "out"))
    with pytest.raises(InputError, match="not a dataset on the hub"):
        import_dataset("hpdv2", "hf://models/x", str(tmp_path / "out"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"none of train.json, test.json. Write the folder of its repository"):
        import_dataset("hpdv2", str(tmp_path / "empty"), str(tmp_path / "out"))
    folder = hpdv2(tmp_path / "theirs", [{"prompt": None}], [], {})
    with pytest.raises(InputError, match=r"none of 1 rows fits. The first, train.json#0: The prompt is null. Mend it"):
        import_dataset("hpdv2", str(folder), str(tmp_path / "out"))
    folder = hpdv2(tmp_path / "without-rows", [], [], {})
    with pytest.raises(InputError, match="its files hold no row"):
        import_dataset("hpdv2", str(folder), str(tmp_path / "none"))


def test_memory_holds_no_more_than_a_unit_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pickapic(tmp_path / "theirs", {"train": MANY}, row_group_size=50)
    most: list[int] = []
    take = taking.Taker.take

    def watched(taker: taking.Taker, unit: comparisons.Unit) -> taking.Taken:
        taken = take(taker, unit)
        most.append(taken.images.num_rows)
        return taken

    monkeypatch.setattr(taking.Taker, "take", watched)
    import_dataset("pickapic", str(folder), str(tmp_path / "ours"))
    assert len(most) == 4 and max(most) <= 100
