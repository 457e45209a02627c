"""Prompts that are longer than an image model reads are counted before it learns."""

import io
from pathlib import Path

from rich.console import Console

from visionprefer.models import find_model
from visionprefer_pipelines.policies import tell_of_long_prompts
from visionprefer_pipelines.progress import Progress


def told(folder: Path, prompts: list[str]) -> str:
    console = Console(file=io.StringIO(), width=300)
    with Progress(console) as progress:
        tell_of_long_prompts(find_model(str(folder), "diffusers"), prompts, progress)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_prompts_beyond_the_token_limit_are_counted(tiny_sd: Path, tiny_sdxl: Path) -> None:
    for folder in (tiny_sd, tiny_sdxl):
        said = told(folder, ["a", "a" * 200, "b" * 300, ""])
        assert "2 of 4 prompts are longer than the 77 tokens that " in said
        assert "the longest 302" in said


def test_where_all_are_short_nothing_is_said(tiny_sd: Path) -> None:
    assert told(tiny_sd, ["a", "a red circle"]) == ""
