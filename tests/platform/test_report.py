"""The report shows what was judged, and nothing in it is executed or fetched."""

import base64
import html
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from run_by_hand import with_oracle

from visionprefer.errors import InputError
from visionprefer.gallery import THUMBNAIL_BYTES, Gallery
from visionprefer.report import report, write_report
from visionprefer.run_folder import RunFolder


class Tags(HTMLParser):
    """All tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def figures(page: str, section: str) -> list[tuple[str, list[str]]]:
    """Which image each figure of a section shows, and the numbers below it."""
    section = page[page.index(f'id="{section}"') :]
    blocks = section[: section.index("<h2", 1)].split("<figure")[1:]
    alts = [html.unescape(re.search(r'alt="([^"]*)"', block)[1]) for block in blocks]  # type: ignore[index]
    return list(zip(alts, [re.findall(r"<(?:b|span)>([\d.–]+)</", block) for block in blocks], strict=True))


def with_images(run: RunFolder, data: bytes) -> RunFolder:
    """The run with this in place of every image."""
    for commit in run.images.commits.values():
        table = run.store.read_table(f"images/{commit.shard}.parquet")
        rows = [row | {"image": {"bytes": data, "path": None}} for row in table.to_pylist()]
        run.store.write_table(f"images/{commit.shard}.parquet", table.from_pylist(rows, schema=table.schema), 16)
    return run


def test_every_image_stands_with_its_scores(run: RunFolder) -> None:
    shown = dict(figures(report(run), "prompts"))
    assert len(shown) == 11
    assert shown["image 0 for: a red circle"] == ["4.50", "5", "4", "4", "5"]
    assert shown["image 1 for: a red circle"] == ["3.00", "3", "3", "3", "3"]
    assert shown["image 3 for: a red circle"] == ["1.50", "1", "1", "2", "2"]
    assert shown["image 0 for: one alone"] == ["4.00", "4", "4", "4", "4"]
    assert shown["image 1 for: one alone"] == ["–"]


def test_images_stand_from_best_to_worst(run: RunFolder) -> None:
    shown = [alt for alt, _ in figures(report(run), "prompts") if "red circle" in alt]
    assert shown == [f"image {candidate} for: a red circle" for candidate in (0, 1, 2, 3)]


def test_best_against_worst_begins_with_the_largest_margin(run: RunFolder) -> None:
    nasty = run.prompts()["prompt"][1].as_py()
    assert figures(report(run), "contrasts") == [
        ("image 0 for: a red circle", ["4.50"]),
        ("image 3 for: a red circle", ["1.50"]),
        (f"image 2 for: {nasty}", ["5.00"]),
        (f"image 3 for: {nasty}", ["2.00"]),
    ]


def test_counts_failures_and_rationales_are_there(run: RunFolder) -> None:
    text = " ".join(Tags(report(run)).text.split())
    for said in (
        "12 in = 11 done + 1 failed",
        "11 in = 10 done + 1 failed",
        "10 pairs = 7 choices + 3 ties",
        "One circle, and it is red.",
        "RuntimeError: out of memory",
        "the reply holds no JSON object",
        "<b>I would rather not</b>",
        "duplicate: of prompts.txt:1",
        "Win rate by guidance scale",
    ):
        assert said in text


def test_words_of_others_stay_words(run: RunFolder) -> None:
    page = report(run)
    tags = Tags(page)
    assert '<script>alert("prompt")</script> & a "blue" square' in tags.text
    assert "<script>alert('rationale')</script> **not bold**" in tags.text
    assert "script" not in tags.tags
    assert "<script" not in page
    assert not [name for name, _ in tags.attributes if name.startswith("on")]


def test_nothing_is_fetched(run: RunFolder) -> None:
    page = report(run)
    tags = Tags(page)
    places = [value for name, value in tags.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert places
    assert all(place.startswith(("data:image/webp;base64,", "#")) for place in places)
    assert not re.search(r"https?://|url\(|@import", page)
    assert not tags.tags & {"script", "link", "iframe", "object", "form"}
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page


def test_pictures_are_small_whatever_they_were(run: RunFolder) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 600, 3), dtype=np.uint8)
    png = io.BytesIO()
    Image.fromarray(noise).save(png, "png")
    uris = re.findall(r'src="data:image/webp;base64,([^"]+)"', report(with_images(run, png.getvalue())))
    assert len(uris) == 15  # 11 in the grid, 4 best against worst
    assert 'class="crisp"' not in report(run)
    for data in map(base64.b64decode, uris):
        assert len(data) <= THUMBNAIL_BYTES
        assert Image.open(io.BytesIO(data)).size == (256, 128)


def test_small_pictures_are_kept_without_loss(run: RunFolder) -> None:
    stored = {row["image_id"]: row["image"]["bytes"] for row in run.images.table(["image_id", "image"]).to_pylist()}
    gallery = Gallery(run)
    shown = gallery.thumbnails(gallery.judged(["p0"])["p0"])
    assert set(shown) == {"0-0", "0-1", "0-2", "0-3"}
    for image_id, copied in shown.items():
        assert (copied.width, copied.height) == (64, 64)
        copy = Image.open(io.BytesIO(base64.b64decode(copied.uri.partition(",")[2]))).convert("RGB")
        assert copy.tobytes() == Image.open(io.BytesIO(stored[image_id])).convert("RGB").tobytes()


def test_small_pictures_are_shown_crisp(run: RunFolder) -> None:
    page = report(run)
    assert page.count('<img class="crisp"') == page.count("<img") == 15
    assert ".crisp { image-rendering: pixelated; }" in page


def test_the_oracle_stands_under_every_picture(run: RunFolder) -> None:
    seen = {"0-0": [3, 5, 4, 1], "0-1": [5] * 4, "0-2": [5] * 4, "0-3": [5] * 4, "2-0": None, "2-1": None}
    page = report(with_oracle(run, seen))
    under = [figure.split("</figure>")[0] for figure in page.split("<figure")[1:]]
    said = {re.search(r'alt="([^"]*)"', figure)[1]: " ".join(Tags(figure).text.split()) for figure in under}  # type: ignore[index]
    assert (
        "oracle: 2 of 4 facts hold. Fact 0 of <b>four</b> does not hold. Fact 1 of <b>four</b> does not hold."
        in said["image 0 for: a red circle"]
    )
    assert "oracle: all 4 facts hold" in said["image 3 for: a red circle"]
    assert "oracle: not applicable" in said["image 1 for: two alike"]
    assert "oracle" not in said["image 0 for: one alone"]
    best, worst = (figure for figure in under[:2])  # best against worst
    assert "2 of 4 facts hold" in best
    assert "all 4 facts hold" in worst


def test_the_oracles_scores_are_marked_on_the_bars(run: RunFolder) -> None:
    page = report(with_oracle(run, {"0-0": [3, 5, 4, 1], "0-1": [5] * 4}))
    figure = next(figure for figure in page.split("<figure") if "oracle: 2 of 4" in figure and "<dl" in figure)
    assert re.findall(r'<u style="--part:([\d.]+)" title="oracle: (\d)">', figure) == [
        ("0.5000", "3"),
        ("1.0000", "5"),
        ("0.7500", "4"),
        ("0.0000", "1"),
    ]


def test_the_judge_stands_against_the_oracle(run: RunFolder) -> None:
    """By prompt_following the judge gave 5 and 3, the oracle 3 and 5."""
    text = " ".join(Tags(report(with_oracle(run, {"0-0": [3, 5, 5, 5], "0-1": [5] * 4, "2-0": None}))).text.split())
    assert "pairs that the judge orders as the oracle does prompt following 0 % of 1 overall 0 % of 1" in text
    assert "images that are fully right large 100 % of 1 owner/small 0 % of 1" in text
    assert "Images that it says nothing of: 1." in text
    assert "judge's ties" in text


def test_a_run_without_an_oracle_does_not_speak_of_one(run: RunFolder) -> None:
    assert "oracle" not in Tags(report(run)).text.replace(".oracle", "")


def test_prompts_outside_the_blocks_world_are_told(run: RunFolder, make_run: Callable[..., RunFolder]) -> None:
    told = "3 of 4 prompts are outside the blocks world"
    assert told in report(make_run(judge={"model": "builtin:judge"}))
    assert told not in report(run)


def test_an_image_that_cannot_be_decoded_is_told(run: RunFolder) -> None:
    page = report(with_images(run, b"no image"))
    assert page.count("this image cannot be decoded") == 15
    assert "4.50" in page


def test_prompts_are_spread_over_the_margins(make_run: Callable[..., RunFolder]) -> None:
    # Margins 0 … 4 and, for the last prompt, none.
    scores: dict[str, Any] = {f"margin {m}": ("train", [[1, 1, 1, 1], [1 + m, 1 + m, 1 + m, 1 + m]]) for m in range(5)}
    run = make_run({**scores, "no margin": ("train", [[3, 3, 3, 3]])})
    gallery = Gallery(run)
    assert gallery.spread(100, 100) == ["p4", "p3", "p2", "p1", "p0", "p5"]
    assert gallery.spread(3, 100) == ["p4", "p2", "p5"]
    assert gallery.spread(100, 4) == ["p4", "p5"]  # two prompts of two pictures
    assert gallery.contrasts(100) == ["p4", "p3", "p2", "p1"]
    assert "3 of 6 prompts, spread evenly" in report(run, most_prompts=3)


def test_the_middle_of_many_images_is_left_out(make_run: Callable[..., RunFolder]) -> None:
    run = make_run({"many": ("train", [*([1 + i % 5] * 4 for i in range(14)), *[[]] * 6])})
    page = report(run)
    overall = [numbers[0] for _, numbers in figures(page, "prompts")]
    assert overall == ["5.00"] * 2 + ["4.00"] * 3 + ["3.00"] + ["2.00"] * 3 + ["1.00"] * 3
    assert "8 more images are not shown" in page
    assert [numbers for _, numbers in figures(page, "contrasts")] == [["5.00"], ["1.00"]]


def test_a_run_without_a_single_score_has_a_report(make_run: Callable[..., RunFolder]) -> None:
    page = report(make_run({"unlucky": ("train", [[], None, []])}))
    assert page.count("not judged") == 2
    assert "Best against worst" not in page


def test_a_run_without_a_single_image_has_a_report(make_run: Callable[..., RunFolder]) -> None:
    assert "0 of 0 prompts" in report(make_run({"unlucky": ("train", [None, None])}))


def test_where_it_is_written(run: RunFolder, tmp_path: Path) -> None:
    assert write_report(run) == f"{run.store.root}/report.html"
    place = tmp_path / "new" / "r.html"
    assert write_report(run, str(place)) == str(place)
    assert place.read_bytes() == Path(run.store.root, "report.html").read_bytes()


def test_an_unfinished_run_is_told(run: RunFolder) -> None:
    del run.manifest["derived"]
    with pytest.raises(InputError, match="not finished"):
        report(run)
