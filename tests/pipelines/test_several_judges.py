"""Several judges in one folder: each keeps its replies, and the preferences may be those of all of them."""

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console
from run_by_hand import JUDGE, RECIPE, SCORES, answer, build_run, table

from visionprefer.recipe import Recipe
from visionprefer.run_folder import RunFolder
from visionprefer.schema import REPLIES
from visionprefer.shards import Shards
from visionprefer.store import Store
from visionprefer_pipelines import cli
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.run import _derive

SECOND = "ba9876543210"
OPINION = {"0-0": [4, 4, 4, 4], "0-1": [5, 5, 5, 5], "0-2": [1, 1, 1, 1], "0-3": [1, 1, 1, 1]}  # of "a red circle"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that a second judge has judged too, as far as `OPINION` goes; it has the same name."""
    run = build_run(tmp_path / "run", SCORES)
    rows = [row for row in run.plan().to_pylist() if row["image_id"] in OPINION]
    given = [answer(row, OPINION[row["image_id"]]) | {"judge_digest": SECOND} for row in rows]
    replies = Shards(run.store, f"replies/{SECOND}", REPLIES)
    replies.add(replies.write("000000.0", 0, table(given, REPLIES), table([], REPLIES)))
    manifest = run.store.manifest()
    manifest["judges"][SECOND] = {"model": "judge", "digest": SECOND + "0" * 20}
    manifest["shards"][replies.folder] = [list(commit) for commit in replies.commits.values()]
    run.store.write_manifest(manifest)
    return tmp_path / "run"


def derived(folder: Path, judges: str) -> RunFolder:
    recipe = Recipe.model_validate(RECIPE.model_dump() | {"preferences": {"judges": judges}})
    store = Store(folder)
    manifest = store.manifest() | {"recipe": recipe.model_dump(mode="json")}
    store.write_manifest(manifest)
    return _derive(store, manifest, Progress(Console(file=io.StringIO())))


def labels(run: RunFolder) -> dict[str, float]:
    """Who is preferred of images 0 and others of "a red circle", overall."""
    rows = run.preferences().to_pylist()
    of_circle = [row for row in rows if row["aspect"] == "overall" and row["image_id_0"] == "0-0"]
    return {row["image_id_1"]: row["label"] for row in of_circle}


def test_the_current_judge_the_mean_or_a_vote(folder: Path) -> None:
    """The first gives 4.5, 3, 3, 1.5; the second 4, 5, 1, 1."""
    assert labels(derived(folder, "current")) == {"0-1": 1.0, "0-2": 1.0, "0-3": 1.0}
    assert labels(derived(folder, "mean")) == {"0-1": 1.0, "0-2": 1.0, "0-3": 1.0}  # 4.25 against 4
    run = derived(folder, "vote")
    assert labels(run) == {"0-1": 0.5, "0-2": 1.0, "0-3": 1.0}  # they disagree on 0-1
    assert run.judgements().num_rows == 4 * (10 + 4)
    assert set(run.judgements()["judge"].to_pylist()) == {f"judge ({JUDGE})", f"judge ({SECOND})"}  # models of one name
    assert all(judge in run.store.read("report.html").decode() for judge in (JUDGE, SECOND))
    assert run.preferences().num_rows == derived(folder, "current").preferences().num_rows


def test_how_far_they_agree_is_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["visionprefer", "judge", "compare", str(folder)])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().out
    assert ended.value.code in (None, 0)
    assert "All 2 judges" in said
    assert SECOND in said  # their names are one: the ids tell them apart
    assert max(map(len, said.splitlines())) <= 85


def test_one_judge_alone_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build_run(tmp_path / "run", SCORES)
    monkeypatch.setattr(sys, "argv", ["visionprefer", "judge", "compare", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "another judge into the same folder" in capsys.readouterr().err
