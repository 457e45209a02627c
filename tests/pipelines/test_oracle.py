"""A run with built-in models ends with the oracle's word, and nothing that trains or selects hears it."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from run_by_hand import RECIPE, SCORES, build_run

from visionprefer.export import export
from visionprefer.recipe import Recipe
from visionprefer.run_folder import RunFolder
from visionprefer.store import Store
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.run import _derive

SAYS_WHAT_THE_ORACLE_SAID = {"oracle.parquet", "statistics.json", "report.html", "manifest.json", "README.md"}


def derived(folder: Path, judge: str) -> tuple[RunFolder, str]:
    """A run whose paid-for tables are there and whose derived tables are made anew, and what was said meanwhile."""
    recipe = Recipe.model_validate(RECIPE.model_dump() | {"judge": {"model": judge}})
    if not folder.exists():
        build_run(folder, SCORES, recipe)
    store, said = Store(folder), io.StringIO()
    manifest = store.manifest() | {"recipe": recipe.model_dump(mode="json")}
    del manifest["derived"]
    store.write_manifest(manifest)
    _derive(store, manifest, Progress(Console(file=said, width=200)))
    return RunFolder(store), said.getvalue()


def files(folder: Path) -> dict[str, bytes]:
    found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    return {name: data for name, data in found.items() if Path(name).name not in SAYS_WHAT_THE_ORACLE_SAID}


def test_every_image_has_a_row(tmp_path: Path) -> None:
    run, said = derived(tmp_path / "run", "builtin:judge")
    oracle = run.oracle()
    assert oracle is not None
    assert sorted(oracle["image_id"].to_pylist()) == sorted(run.images.table(["image_id"])["image_id"].to_pylist())
    assert {row["prompt_id"] for row in oracle.to_pylist() if row["applicable"]} == {"p0"}  # "a red circle"
    assert "asking the oracle about 11 images" in said
    assert json.loads(run.store.read("statistics.json"))["oracle"]["images"] == 4
    assert b"The judge against the oracle" in run.store.read("report.html")


def test_it_says_how_far_the_oracle_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """11 images in shards of 4, 4 and 3, or so: their sum counts."""
    monkeypatch.setattr("visionprefer_pipelines.run.SECONDS_BETWEEN_LINES", 0.0)
    _, said = derived(tmp_path / "run", "builtin:judge")
    assert said.rstrip().endswith("the oracle has seen 11")


def test_a_run_lacks_its_oracle_only_if_it_was_never_asked(tmp_path: Path) -> None:
    run, _ = derived(tmp_path / "run", "builtin:judge")
    run.store.delete("oracle.parquet")
    assert not run.is_finished
    run, said = derived(tmp_path / "run", "owner/judge")
    assert run.is_finished
    assert run.oracle() is None
    assert "oracle" not in said


def test_another_judge_leaves_no_old_word_behind(tmp_path: Path) -> None:
    derived(tmp_path / "run", "builtin:judge")
    derived(tmp_path / "run", "owner/judge")
    assert not (tmp_path / "run" / "oracle.parquet").exists()


@pytest.mark.parametrize("layout", ["hf", "pickapic", "hpdv2"])
def test_what_is_trained_on_is_the_same_with_and_without_it(tmp_path: Path, layout: str) -> None:
    """Tables and exports, byte for byte; the dataset card alone may tell how right the judge was."""
    for name, judge in {"with": "builtin:judge", "without": "owner/judge"}.items():
        run, _ = derived(tmp_path / name, judge)
        export(run, layout, str(tmp_path / name / "export"))  # type: ignore[arg-type]
    assert (tmp_path / "with" / "oracle.parquet").exists()
    of_run = files(tmp_path / "with")
    assert of_run == files(tmp_path / "without")
    assert {"preferences.parquet", "judgements.parquet"} < set(of_run)
    assert any(name.startswith("training/") for name in of_run)
    assert any(name.startswith("export/") for name in of_run)
