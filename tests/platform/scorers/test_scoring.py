"""A scorer's word on the images of a run, written once each, failures among them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageStat
from run_by_hand import NASTY, image_id

from visionprefer.errors import InputError
from visionprefer.run_folder import RunFolder
from visionprefer.schema import IMAGES, JUDGEMENTS
from visionprefer.scorers import scoring
from visionprefer.scorers.clip import load_clip
from visionprefer.scorers.scoring import Written, file_of, write_scores
from visionprefer.shards import Commit


class Redness:
    """The mean of the red of an image, and no number for prompts of two words."""

    name, judge, digest = "redness", "red", "1"

    def __init__(self, digest: str = "1", lasts: int = 10**9) -> None:
        self.digest, self.lasts = digest, lasts
        self.asked: list[str] = []

    def score(self, prompts: Sequence[str], images: Sequence[Image.Image]) -> list[float]:
        if len(self.asked) >= self.lasts:
            raise MemoryError("out of memory")
        self.asked += prompts
        red = [ImageStat.Stat(image.convert("RGB")).mean[0] for image in images]
        return [value if len(prompt.split()) != 2 else float("nan") for prompt, value in zip(prompts, red, strict=True)]


def rows(run: RunFolder, name: str = "redness") -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in run.store.read_table(file_of(name)).to_pylist()}


def with_broken_image(run: RunFolder, image: str) -> RunFolder:
    """The run, in which an image's bytes are none."""
    for shard, commit in run.images.commits.items():
        table = run.store.read_table(f"images/{shard}.parquet")
        held = table.to_pylist()
        for row in held:
            if row["image_id"] == image:
                row["image"]["bytes"] = b"\x89PNG torn"
        sha, size = run.store.write_table(f"images/{shard}.parquet", table.from_pylist(held, schema=IMAGES))
        run.images.commits[shard] = Commit(*commit[:4], sha, size)
    return run


def test_each_image_has_a_row_a_judgement_or_why_there_is_none(run: RunFolder) -> None:
    broken = image_id("a red circle", 1)
    written = write_scores(with_broken_image(run, broken), Redness())
    assert written == Written(done=6, failed=5, before=0)  # of 11 images; four have prompts of two words
    table = run.store.read_table(file_of("redness"))
    assert table.column_names == [*JUDGEMENTS.names, "error"]
    assert table.select(JUDGEMENTS.names).schema.equals(JUDGEMENTS)
    found = rows(run)
    assert found[image_id(NASTY, 0)] | {"score": None} == {
        "image_id": "1-0",
        "prompt_id": "p1",
        "scorer": "redness",
        "score": None,
        "rank": None,
        "rationale": None,
        "judge": "red",
        "repeat": 0,
        "position": 0,
        "request_id": None,
        "error": None,
    }
    assert found[image_id(NASTY, 0)]["score"] > 0
    assert found[broken]["score"] is None
    assert found[broken]["error"].startswith(("broken image", "not an image"))
    assert found[image_id("two alike", 0)]["score"] is None
    assert found[image_id("two alike", 0)]["error"] == "the scorer gave nan"


def test_what_is_there_is_not_scored_again_but_for_another_scorer(run: RunFolder) -> None:
    write_scores(run, Redness())
    before = run.store.read(file_of("redness"))
    again = Redness()
    assert write_scores(run, again) == Written(done=7, failed=4, before=11)
    assert again.asked == []
    assert run.store.read(file_of("redness")) == before
    other = Redness(digest="2")
    assert write_scores(run, other).before == 0
    assert len(other.asked) == 11


def test_after_a_crash_it_goes_on(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "PAUSE", 0.0)
    monkeypatch.setattr(scoring, "AT_ONCE", 2)
    told: list[tuple[int, int]] = []
    with pytest.raises(MemoryError):
        write_scores(run, Redness(lasts=4), lambda *count: told.append(count))
    there = len(rows(run))
    assert told[-1] == (there, 11)
    assert 4 <= there < 11
    again = Redness()
    assert write_scores(run, again).before == there
    assert len(again.asked) == 11 - there
    assert len(rows(run)) == 11
    monkeypatch.undo()
    at_once = rows(run)
    run.store.delete(file_of("redness"))
    write_scores(run, Redness())
    assert rows(run) == at_once


def test_a_real_scorer_writes_its_numbers(run: RunFolder, tiny_clip: Path) -> None:
    scorer = load_clip(str(tiny_clip), device="cpu")
    assert write_scores(run, scorer) == Written(done=11, failed=0, before=0)
    [picture] = [row for row in run.images.table().to_pylist() if row["image_id"] == image_id("a red circle", 2)]
    found = rows(run, "clip")[picture["image_id"]]
    [expected] = scorer.score(["a red circle"], [scoring.open_image(picture["image"]["bytes"])])
    assert found["score"] == pytest.approx(expected, rel=1e-5)
    assert found["judge"] == "tiny-clip"


def test_a_run_without_images_and_a_torn_file_are_told(run: RunFolder, make_run: Callable[..., RunFolder]) -> None:
    run.store.write(file_of("redness"), b"torn")
    with pytest.raises(InputError, match="is damaged"):
        write_scores(run, Redness())
    empty = make_run({"a red circle": ("train", [None])})
    with pytest.raises(InputError, match=r"there is no image to score\. Write the folder of a run that has some"):
        write_scores(empty, Redness())
