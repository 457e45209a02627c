"""The command as people type it: help, recipes, and a sentence where a traceback would be."""

import io
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pytest
import yaml
from rich.console import Console
from run_by_hand import with_oracle

from visionprefer.run_folder import RunFolder
from visionprefer.shards import Counts
from visionprefer_pipelines import cli
from visionprefer_pipelines.progress import Progress

Said = tuple[int, str, str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs `visionprefer …`; gives its exit code and what it wrote to stdout and stderr."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["visionprefer", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        written = capsys.readouterr()
        return int(ended.value.code or 0), written.out, written.err

    return run


def test_help_names_the_commands(command: Callable[..., Said]) -> None:
    code, out, _ = command("--help")
    assert code == 0
    assert all(name in out for name in ("run", "show", "export", "report", "recipe"))


def test_a_recipe_is_shown_with_every_default(command: Callable[..., Said]) -> None:
    code, out, _ = command("recipe", "show", "quickstart", "--set", "seed=7")
    assert code == 0
    shown = yaml.safe_load(out)
    assert shown["seed"] == 7
    assert shown["preferences"]["pairs"] == "all"


@pytest.mark.parametrize("name", ["llava-onevision", "qwen2.5-vl", "qwen3-vl"])
def test_recipes_of_large_judges_judge_the_images_that_are_named(command: Callable[..., Said], name: str) -> None:
    code, out, _ = command("recipe", "show", name, "--set", "images.existing=mine")
    assert code == 0
    recipe = yaml.safe_load(out)
    assert recipe["images"]["existing"] == "mine"
    assert recipe["judge"]["engine"] == "vllm"


def test_the_schema_is_json(command: Callable[..., Said]) -> None:
    _, out, _ = command("recipe", "schema")
    assert json.loads(out)["properties"]["judge"]


def test_a_recipe_is_checked_with_what_it_names(
    command: Callable[..., Said], tmp_path: Path, tiny_sd: Path, tiny_llava: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog\na CAT\n")
    recipe = {
        "name": "trial",
        "prompts": {"path": "prompts.txt"},
        "images": {"models": [{"model": str(tiny_sd)}]},
        "judge": {"model": str(tiny_llava)},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    code, out, _ = command("recipe", "check", tmp_path / "recipe.yaml")
    assert code == 0
    assert "2 prompts kept, 1 rejected; 8 images to make and judge" in out
    (tiny_sd / "unet").rename(tiny_sd / "away")
    try:
        code, _, err = command("recipe", "check", tmp_path / "recipe.yaml")
    finally:
        (tiny_sd / "away").rename(tiny_sd / "unet")
    assert code == 2
    assert "lacks a part: model_index.json names unet, and there is no such folder" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "nowhere.yaml", "--out", "out"], "no recipe at 'nowhere.yaml'. Write the path of a YAML file"),
        (["run", "quickstart", "--out", "out", "--set", "images.batchsize=3"], "did you mean batch_size?"),
        (["run", "quickstart", "--out", "ftp://host/out"], "Write a folder, s3://"),
        (["show", "nowhere"], "no run at"),
        (["export", "nowhere", "--to", "hf"], "no run at"),
        (["report", "nowhere"], "no run at"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    command: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = command(*arguments)
    assert code == 2
    assert told in err
    assert "Traceback" not in err


def test_an_unknown_layout_is_a_usage_error(command: Callable[..., Said], run: RunFolder) -> None:
    code, _, err = command("export", run.store.root, "--to", "csv")
    assert code == 2
    assert "'hf'" in err


def test_a_finished_run_is_shown_reported_and_exported(command: Callable[..., Said], run: RunFolder) -> None:
    root = run.store.root
    code, out, _ = command("show", root)
    assert code == 0
    assert "done + 1 failed" in out
    assert max(map(len, out.splitlines())) <= 80
    assert command("report", root)[0] == 0
    assert (Path(root) / "report.html").stat().st_size > 1000
    code, out, _ = command("export", root, "--to", "hf")
    assert code == 0
    assert (Path(root) / "export" / "hf" / "README.md").exists()


def test_a_judge_is_audited(command: Callable[..., Said], run: RunFolder) -> None:
    code, _, err = command("judge", "audit", run.store.root)
    assert (code, "--against FILE" in err) == (2, True)
    known = run.preferences()
    turned = known.set_column(known.column_names.index("label"), "label", pc.subtract(1.0, known["label"]))
    run.store.write_table("turned.parquet", turned)
    code, out, _ = command("judge", "audit", run.store.root, "--against", f"{run.store.root}/turned.parquet")
    assert code == 0
    assert "0.0 %" in out  # everything is the other way round
    assert f"{run.store.root}/audit.html" in out
    assert max(map(len, out.splitlines())) <= 110
    assert Path(run.store.root, "audit.html").is_file()


def test_a_run_of_builtin_models_says_how_right_they_were_and_where_they_know_nothing(
    command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, make_run: Callable[..., RunFolder]
) -> None:
    # The judge gave to "a red circle" 4.5, 3, 3, 1.5 overall; the third image is wrong, and no worse for the judge.
    seen = {"0-0": [5, 5, 5, 5], "0-1": [5, 5, 5, 5], "0-2": [4, 5, 5, 5], "0-3": [3, 5, 5, 5], "1-0": None}
    run = with_oracle(make_run(judge={"model": "builtin:judge"}), seen)
    monkeypatch.setattr("visionprefer_pipelines.run.run", lambda *_: run)
    code, out, _ = command("run", "quickstart", "--out", run.store.root)
    assert code == 0
    assert "fully right 50% of the images of large, 50% of the images of owner/small\n" in out
    assert "the judge   orders 90% of 5 pairs as the oracle does, overall\n" in out  # 0 and 1 above 2, above 3; one tie
    outside = "Warning: 3 of 4 prompts are outside the blocks world, which is all that the built-in models know"
    assert outside in out
    _, out, _ = command("show", run.store.root)
    assert outside in out
    assert all(title in out for title in ("The judge against the oracle", "Images that are fully right"))


@pytest.mark.parametrize("retry", [[], ["--retry-failed"]])
def test_a_stopped_run_says_how_to_go_on_with_all_its_options(
    command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, retry: list[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("visionprefer_pipelines.run.run", stopped)
    change = "images.models=[{model: a b}]"
    options = ["--out", "my runs/[red]:cat:", "--set", change, "--set", "seed=7", "--address", "head:6379", *retry]
    code, out, _ = command("run", "quickstart", *options)
    assert code == 130
    assert shlex.split(out.splitlines()[-1]) == ["visionprefer", "run", "quickstart", *options]


def test_a_finished_run_says_what_can_be_typed_next(
    command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, run: RunFolder
) -> None:
    monkeypatch.setattr("visionprefer_pipelines.run.run", lambda *_: run)
    monkeypatch.setattr(run.store, "root", "my runs/[bold]x")
    code, out, _ = command("run", "quickstart", "--out", "my runs/[bold]x", "--address", "head:6379")
    assert code == 0
    assert "  my runs/[bold]x/report.html\n" in out
    typed = [shlex.split(line)[1:] for line in out.splitlines() if line.startswith("  visionprefer")]
    assert typed == [
        ["show", "my runs/[bold]x"],
        ["export", "my runs/[bold]x", "--to", "hf"],
        ["run", "quickstart", "--out", "my runs/[bold]x", "--address", "head:6379", "--retry-failed"],
    ]


@pytest.mark.parametrize(
    ("images", "replies", "again", "told"),
    [
        (Counts(0, 0, 9), Counts(0, 0, 9), 0, ["· 9 images and 9 replies to go"]),
        (Counts(9, 0, 0), Counts(9, 0, 0), 0, ["· 9 of 9 images and 9 replies are there already"]),
        (
            Counts(5, 4, 0),
            Counts(3, 2, 0),  # about the five that are done
            6,
            ["· 5 of 9 images and 3 replies are there already", "· 6 failed rows are taken up again"],
        ),
    ],
)
def test_the_start_tells_only_what_there_is(images: Counts, replies: Counts, again: int, told: list[str]) -> None:
    written = io.StringIO()
    Progress(Console(file=written, width=200)).start(images, replies, again)
    assert written.getvalue().splitlines() == told


def test_the_bar_of_replies_fills_though_images_failed() -> None:
    with Progress(Console(file=io.StringIO(), force_terminal=True)) as progress:
        progress.start(Counts(0, 0, 9), Counts(0, 0, 9))
        progress.update(Counts(5, 4, 0), Counts(4, 1, 0))
        assert progress._bars
        assert progress._bars.finished
