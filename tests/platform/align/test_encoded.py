"""The training table is encoded once, survives its file, and gives each epoch one pair of each prompt."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from visionprefer.align.encoded import ENCODED, Shapes, common_shapes, encode, pair_batch, shapes_of
from visionprefer.align.encoding import encode_images, encode_prompts
from visionprefer.align.recipe import DPORecipe
from visionprefer.errors import InputError
from visionprefer.run_folder import RunFolder
from visionprefer.schema import TRAINING
from visionprefer.store import Store

RECIPE = DPORecipe(name="r", model="m")


def picture(shade: int, size: tuple[int, int] = (64, 64)) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 255 - shade, 90)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def row(prompt_id: str, images: list[dict[str, Any]], split: str = "train", aspect: str = "overall") -> dict[str, Any]:
    pairs = [{"aspect": aspect, "chosen": 1, "rejected": 0, "margin": 1.0}]
    ids = [f"{prompt_id}-{index}" for index in range(len(images))]
    about = {"prompt_id": prompt_id, "prompt": f"a {prompt_id}", "split": split, "image_ids": ids}
    return about | {"images": images, "pairs": pairs}


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=TRAINING)


@pytest.fixture(params=["tiny_sd", "tiny_sdxl"])
def pipeline(request: pytest.FixtureRequest) -> Any:
    return DiffusionPipeline.from_pretrained(request.getfixturevalue(request.param))


def test_what_is_read_again_is_what_the_pipeline_encodes(pipeline: Any, tmp_path: Path) -> None:
    images = [picture(shade) for shade in (0, 80, 160)]
    rows = [row("ring", images), row("hidden", images, "held_out"), row("cross", images[::-1])]
    store = Store(tmp_path)
    store.write_table("encoded.parquet", encode(table(*rows), pipeline))
    read = store.read_table("encoded.parquet")
    assert read.schema.names == ENCODED.names
    assert read["prompt_id"].to_pylist() == ["ring", "cross"]
    shapes = shapes_of(read)
    assert shapes is not None
    batch = pair_batch(read, shapes, RECIPE, epoch=0)
    assert batch is not None
    assert batch.prompt_ids == ["ring", "cross"]

    latents = encode_images(pipeline, [Image.open(io.BytesIO(image["bytes"])) for image in images])
    assert torch.allclose(batch.chosen_PCHW, latents[[1, 1]], rtol=1e-3, atol=1e-3)
    assert torch.allclose(batch.rejected_PCHW, latents[[0, 2]], rtol=1e-3, atol=1e-3)
    wanted = encode_prompts(pipeline, ["a ring", "a cross"], 64, 64)
    for code, whole in zip(batch.condition, wanted, strict=True):
        assert (code is None) == (whole is None)
        if code is not None:
            assert code.dtype == torch.float32
            assert torch.allclose(code, whole, rtol=1e-2, atol=1e-2)


def test_the_training_table_of_a_run_is_encoded(make_run: Callable[..., RunFolder], tiny_sd: Path) -> None:
    scores = {f"prompt {n}": ("train", [[score] * 4 for score in (1, 4, 5)]) for n in range(3)}
    run = make_run(scores)
    rows = pa.concat_tables(run.store.read_table(file) for file in run.training_files())
    found = encode(rows, DiffusionPipeline.from_pretrained(tiny_sd))
    shapes = shapes_of(found)
    assert shapes is not None
    seen = set()
    for epoch in range(20):
        batch = pair_batch(found, shapes, RECIPE, epoch)
        assert batch is not None
        assert len(batch.prompt_ids) == 3
        seen |= {np.round((chosen - rejected).sum().item(), 3) for chosen, rejected in zip(*batch[1:3], strict=True)}
    assert len(seen) >= 3  # pairs of a prompt


def test_prompts_without_a_pair_are_left_out(tiny_sd: Path) -> None:
    rows = table(row("ring", [picture(1), picture(2)]), row("cross", [picture(1), picture(2)], aspect="fidelity"))
    found = encode(rows, DiffusionPipeline.from_pretrained(tiny_sd))
    shapes = shapes_of(found)
    assert shapes is not None
    batch = pair_batch(found, shapes, RECIPE, epoch=0)
    assert batch is not None
    assert batch.prompt_ids == ["ring"]
    assert pair_batch(found, shapes, RECIPE.model_copy(update={"aspect": "aesthetic"}), epoch=0) is None


def test_a_table_without_training_prompts_has_no_shapes(tiny_sd: Path) -> None:
    found = encode(table(row("ring", [picture(1)], "held_out")), DiffusionPipeline.from_pretrained(tiny_sd))
    assert found.num_rows == 0
    assert shapes_of(found) is None


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([picture(1), {"bytes": b"no picture", "path": None}], "an image of prompt cross: "),
        ([picture(1, (32, 64)), picture(2, (32, 64))], "prompt cross are 32 × 64 pixels, and those of others 64 × 64"),
        ([picture(1, (32, 64)), picture(2)], "32 × 64, 64 × 64 pixels: make or resize them all to one size"),
    ],
)
def test_images_that_cannot_share_a_step_are_told(tiny_sd: Path, images: list[dict[str, Any]], message: str) -> None:
    rows = table(row("ring", [picture(1), picture(2)]), row("cross", images))
    with pytest.raises(InputError, match=message):
        encode(rows, DiffusionPipeline.from_pretrained(tiny_sd))


def test_tables_of_images_of_different_sizes_have_nothing_in_common() -> None:
    small = Shapes((77, 8), None, (4, 8, 8), (64, 64))
    large = small._replace(latents=(4, 16, 8), size=(128, 64))
    assert common_shapes([None, small, small]) == small
    assert common_shapes([None]) is None
    with pytest.raises(InputError, match=r"the images of the run are 64 × 128 and 64 × 64 pixels: make or resize"):
        common_shapes([small, None, large])
