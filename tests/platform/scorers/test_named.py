"""Scorers as they are written on the command line."""

import json
import re
from pathlib import Path

import pytest

from visionprefer.errors import InputError
from visionprefer.scorers.named import LOADERS, load_scorer


def test_a_name_a_place_and_what_is_needed_beside_it(tiny_clip: Path, tiny_llava: Path, tmp_path: Path) -> None:
    (tmp_path / "questions.json").write_text(json.dumps({"a cat": ["Is it a cat?"]}))
    for text in (
        f"clip={tiny_clip}",
        "clip=builtin:blocks-clip",
        f"pickscore={tiny_clip},{tiny_clip}",
        f"vqa={tiny_llava}",
        f"vqa={tiny_llava},{tmp_path / 'questions.json'}",
    ):
        scorer = load_scorer(text, device="cpu")
        assert scorer.name == text.partition("=")[0]
        assert scorer.judge
        assert scorer.digest
    assert load_scorer(f"small-1.0:clip={tiny_clip}").name == "small-1.0"


@pytest.mark.parametrize("text", ["clip", "clip=", "aesthetic=a.pth", "=a.pth", "../clip:clip=a"])
def test_what_is_written_otherwise_is_told(text: str) -> None:
    with pytest.raises(InputError, match=rf"--scorer {re.escape(text)}: write NAME=LOCATION.*: {', '.join(LOADERS)}"):
        load_scorer(text)
