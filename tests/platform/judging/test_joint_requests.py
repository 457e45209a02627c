"""What is shown together follows from which images there are, and from nothing else."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from visionprefer.judging import joint_requests
from visionprefer.judging.joint_requests import plan_requests, read_images, sizes, write_requests
from visionprefer.schema import FAILED_IMAGES, IMAGES, PLAN
from visionprefer.shards import Shards
from visionprefer.store import Store

PROMPTS, EACH = 40, 4


def row(image: int) -> dict[str, Any]:
    prompt = f"p{image % PROMPTS:02}"
    return {"image_id": f"i{image}", "prompt_id": prompt, "prompt": f"thing {prompt}", "candidate": image // PROMPTS}


def table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([dict.fromkeys(schema.names) | row for row in rows], schema=schema)


PLANNED = table([row(image) for image in range(PROMPTS * EACH)], PLAN)


@pytest.fixture
def images(tmp_path: Path) -> Shards:
    """Every prompt's images lie in four shards. Image 3 failed, and all of the last prompt."""
    shards = Shards(Store(tmp_path), "images", IMAGES)
    for unit in range(EACH):
        rows = [row(image) for image in range(unit * PROMPTS, (unit + 1) * PROMPTS)]
        failed = [one for one in rows if one["image_id"] == "i3" or one["prompt_id"] == f"p{PROMPTS - 1}"]
        done = [one | {"image": {"bytes": one["image_id"].encode(), "path": None}} for one in rows if one not in failed]
        shards.add(shards.write(f"{unit:06}", 0, table(done, IMAGES), table(failed, FAILED_IMAGES)))
    return shards


def test_all_images_that_are_there_are_shown_once_and_some_once_more_in_reverse(images: Shards) -> None:
    requests = plan_requests(PLANNED, images, swapped=0.5)
    orders: dict[tuple[str, int], list[str]] = {}
    for one in requests.to_pylist():
        orders.setdefault((one["prompt_id"], one["repeat"]), []).append(one["image_id"])
    first = {prompt: order for (prompt, repeat), order in orders.items() if not repeat}
    again = {prompt: order for (prompt, repeat), order in orders.items() if repeat}
    assert len(first) == PROMPTS - 1
    assert len(first["p03"]) == EACH - 1
    assert all(first[prompt] == order[::-1] for prompt, order in again.items())
    assert 0.25 < len(again) / len(first) < 0.75
    leading = [order.index(min(order, key=lambda image: int(image[1:]))) for order in first.values()]
    assert set(leading) == {0, 1, 2, 3}  # the first candidate stands anywhere
    assert sum(sizes(requests).values()) == len(orders)


def test_a_worker_reads_the_images_of_its_unit_in_the_order_shown(
    images: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint_requests, "UNITS_PER_FILE", 2)
    requests = plan_requests(PLANNED, images, swapped=0.5)
    write_requests(images.store, requests)
    for unit in sizes(requests):
        found = read_images(images.store, unit, ["image_id", "prompt_id", "prompt", "image"])
        wanted = [one for one in requests.to_pylist() if one["unit"] == unit]
        assert found.select(["prompt_id", "repeat", "image_id"]).to_pylist() == [
            {name: one[name] for name in ("prompt_id", "repeat", "image_id")} for one in wanted
        ]
        assert [image["bytes"].decode() for image in found["image"].to_pylist()] == found["image_id"].to_pylist()


def test_an_image_more_makes_another_unit_of_its_prompts_and_leaves_the_others(images: Shards) -> None:
    before = sizes(plan_requests(PLANNED, images, swapped=0))
    made = table([row(3) | {"image": {"bytes": b"", "path": None}}], IMAGES)
    images.add(images.write("000000", 1, made, table([], FAILED_IMAGES)))
    after = sizes(plan_requests(PLANNED, images, swapped=0))
    assert len(before.keys() - after.keys()) == len(after.keys() - before.keys()) == 1
