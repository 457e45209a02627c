"""The oracle's table: a row for every image, and nothing said of those that it cannot know."""

import io
import random
import sys

import pyarrow as pa
import pytest
from run_by_hand import table

from visionprefer.blocksworld.oracle_table import oracle_table
from visionprefer.blocksworld.renderer import compose, draw
from visionprefer.blocksworld.wording import understand
from visionprefer.errors import InputError
from visionprefer.schema import ASPECTS, IMAGES, ORACLE

SHOWN = "a red circle left of a blue square on white"


def picture(prompt: str) -> bytes:
    description = understand(prompt)
    assert description
    written = io.BytesIO()
    draw(compose(description, random.Random(0), unasked_mark=0)).save(written, "png")
    return written.getvalue()


def images(*prompts: str, data: bytes | None = None) -> pa.Table:
    """Images that all show SHOWN, as answers to these prompts."""
    shown = {"bytes": data or picture(SHOWN), "path": None}
    rows = [
        {"image_id": f"i{n}", "prompt_id": f"p{n}", "prompt": prompt, "image": shown}
        for n, prompt in enumerate(prompts)
    ]
    return table(rows, IMAGES)


def test_what_is_seen_stands_in_a_row() -> None:
    told = oracle_table(
        [images(SHOWN, "a red circle right of a blue square"), images("two red circles, white background")]
    )
    assert told.schema == ORACLE
    right, wrong, others = told.to_pylist()
    assert (right["image_id"], right["prompt_id"], right["applicable"], right["fully_right"]) == (
        "i0",
        "p0",
        True,
        True,
    )
    assert (right["facts"], right["facts_held"], right["faults"], right["prompt_following"]) == (5, 5, [], 5)
    assert all(1 <= right[aspect] <= 5 for aspect in ASPECTS)
    assert (wrong["fully_right"], wrong["facts"], wrong["facts_held"]) == (False, 4, 3)
    [fault] = wrong["faults"]
    assert "should be right of" in fault
    assert (others["facts"], others["facts_held"], len(others["faults"])) == (3, 2, 1)


@pytest.mark.parametrize(
    "unknown", [images("a cat on a windowsill"), images(SHOWN, data=b"no image")], ids=["another world", "no image"]
)
def test_where_it_is_not_applicable_all_else_is_null(unknown: pa.Table) -> None:
    [row] = oracle_table([unknown]).to_pylist()
    said = {name: value for name, value in row.items() if value is not None}
    assert said == {"image_id": "i0", "prompt_id": "p0", "applicable": False}


def test_many_processes_say_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [images(SHOWN, "a red circle right of a blue square"), images("two red circles, white background")]
    here = oracle_table(parts)
    monkeypatch.setattr("visionprefer.blocksworld.oracle_table._FEW", 1)
    assert oracle_table(parts) == here


def test_a_run_without_images_has_an_empty_table() -> None:
    assert oracle_table([]) == ORACLE.empty_table()


def test_a_base_install_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "visionprefer.blocksworld.oracle", raising=False)
    monkeypatch.delitem(sys.modules, "visionprefer.blocksworld.sight", raising=False)
    monkeypatch.setitem(sys.modules, "skimage.color", None)
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    with pytest.raises(InputError, match=r"pip install 'visionprefer\[local\]'"):
        oracle_table([images(SHOWN)])
