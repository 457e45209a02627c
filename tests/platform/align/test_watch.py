"""What is lost by other scores while one is maximised is seen."""

import io
from typing import Any

from PIL import Image

from visionprefer.align.watch import Spread, fallen, grid, plot, spreads


def test_missing_scores_change_no_mean() -> None:
    assert spreads({"a": [1.0, None, 3.0], "b": [None, None]}) == {"a": Spread(2.0, 1.0)}


def test_a_score_has_fallen_if_it_lost_so_many_deviations() -> None:
    first = {"a": Spread(2.0, 0.5), "b": Spread(2.0, 2.0), "gone": Spread(1.0, 1.0)}
    now = {"a": Spread(1.4, 9.0), "b": Spread(1.4, 0.1), "new": Spread(-9.0, 1.0)}
    assert fallen(first, now, by=1.0) == ["a"]
    assert fallen(first, now, by=0.1) == ["a", "b"]
    assert fallen(first, first, by=0.1) == []


def test_a_grid_shows_the_first_images_in_rows() -> None:
    images = [Image.new("RGB", (4, 2), (shade, 0, 0)) for shade in range(40)]
    sheet = Image.open(io.BytesIO(grid(images)))
    assert sheet.size == (32, 8)
    assert [sheet.getpixel(place)[0] for place in ((0, 0), (31, 0), (0, 2), (31, 7))] == [0, 7, 8, 31]
    few = Image.open(io.BytesIO(grid(images[:3])))
    assert few.size == (32, 2)
    assert few.getpixel((31, 0)) == (255, 255, 255)


def test_the_course_is_plotted_with_or_without_other_scores() -> None:
    rows: list[dict[str, Any]] = [{"rollout": n + 1, "reward": n / 10 or None, "watched": None} for n in range(5)]
    without = Image.open(io.BytesIO(plot(rows)))
    rows[0]["watched"] = {"a": [2.0, 0.5], "constant": [1.0, 0.0]}
    rows[-1]["watched_after"] = {"a": [1.0, 0.5]}
    beside = Image.open(io.BytesIO(plot(rows)))
    assert beside.width == without.width
    assert beside.height > without.height
