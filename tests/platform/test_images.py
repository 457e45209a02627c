"""Real diffusers pipelines, small and with random weights: same seed, same bytes, and a failure is a row."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from visionprefer.errors import InputError
from visionprefer.images import GenerateImages, load_pipeline
from visionprefer.models import find_model
from visionprefer.plan import plan_generation
from visionprefer.recipe import ImageModel, ImageSettings
from visionprefer.schema import FAILED_IMAGES, IMAGES, PROMPTS, content_id


def prompts(*texts: str) -> pa.Table:
    rows = [{"prompt_id": content_id("prompt", t), "prompt": t, "split": "train", "source": ""} for t in texts]
    return pa.Table.from_pylist(rows, schema=PROMPTS)


def stage(*folders: Path, steps: int = 2, guidance: Any = 3.0, **changes: Any) -> tuple[GenerateImages, Any]:
    """A stage, and the function that plans for it."""
    models = [ImageModel(model=str(f), num_inference_steps=steps, guidance_scale=guidance) for f in folders]
    settings = ImageSettings(models=models, **({"batch_size": 4, "images_per_prompt": 2} | changes))
    found = [find_model(str(folder), "diffusers") for folder in folders]
    return GenerateImages(settings, found), lambda *texts: plan_generation(prompts(*texts), settings, found, 0).rows


def by_id(table: pa.Table) -> dict[str, bytes]:
    return {row["image_id"]: row["image"]["bytes"] for row in table.to_pylist()}


@pytest.mark.parametrize("kind", ["tiny_sd", "tiny_sdxl"])
def test_every_planned_row_becomes_an_image(kind: str, request: pytest.FixtureRequest) -> None:
    generate, plan = stage(request.getfixturevalue(kind), guidance=[1.0, 4.0])
    planned = plan("a cat", "a dog", "")
    done, failed = generate(planned)
    assert (done.schema, failed.schema) == (IMAGES, FAILED_IMAGES)
    assert done.num_rows == 6
    assert set(done["image_id"].to_pylist()) == set(planned["image_id"].to_pylist())
    row = done.to_pylist()[0]
    image = Image.open(io.BytesIO(row["image"]["bytes"]))
    assert (image.format, image.size, image.mode) == ("PNG", (row["width"], row["height"]), "RGB")
    assert row["image"]["path"] == f"{row['image_id']}.png"
    assert (row["device"], row["dtype"], row["unsafe"]) == ("cpu", "float32", None)
    assert len(set(by_id(done).values())) == 6


def test_bytes_do_not_depend_on_who_shares_the_batch_or_on_the_order(tiny_sd: Path, tiny_sdxl: Path) -> None:
    generate, plan = stage(tiny_sd, tiny_sdxl)
    planned = plan("a", "b", "c")
    together = by_id(generate(planned)[0])
    alone: dict[str, bytes] = {}
    for i in reversed(range(planned.num_rows)):
        alone |= by_id(generate(planned.slice(i, 1))[0])
    assert alone == together


def test_it_is_the_picture_that_the_pipeline_itself_makes(tiny_sd: Path) -> None:
    """With a batch of one and the planned seed, diffusers alone gives the same pixels."""
    import torch

    generate, plan = stage(tiny_sd, batch_size=1)
    planned = plan("a cat")
    done, _ = generate(planned)
    row = next(row for row in done.to_pylist() if row["candidate"] == 0)
    pipeline = load_pipeline(find_model(str(tiny_sd), "diffusers"), generate.device, generate.dtype)
    expected = pipeline(
        "a cat", guidance_scale=3.0, num_inference_steps=2, generator=torch.Generator().manual_seed(row["seed"])
    ).images[0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))), np.asarray(expected))


@pytest.mark.parametrize("kind", ["tiny_sd", "tiny_sdxl"])
def test_noise_on_the_embedding_moves_all_candidates_but_the_first(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    plain, plan_plain = stage(folder)
    noisy, plan_noisy = stage(folder, prompt_embedding_noise=0.5)
    planned = plan_noisy("a cat")
    noise = {row["candidate"]: row["image"]["bytes"] for row in noisy(planned)[0].to_pylist()}
    quiet_rows = [row | {"prompt_embedding_noise": 0.0} for row in planned.to_pylist()]
    quiet_table = plain(pa.Table.from_pylist(quiet_rows, schema=planned.schema))[0]
    quiet = {row["candidate"]: row["image"]["bytes"] for row in quiet_table.to_pylist()}
    assert noise[0] == quiet[0]
    assert noise[1] != quiet[1]
    assert plan_plain("a cat")["image_id"].to_pylist() != planned["image_id"].to_pylist()


def test_size_negative_prompt_and_format_are_kept_to(tiny_sd: Path) -> None:
    generate, plan = stage(tiny_sd, height=32, width=48, negative_prompt="ugly", format="webp")
    done, _ = generate(plan("a cat"))
    row = done.to_pylist()[0]
    image = Image.open(io.BytesIO(row["image"]["bytes"]))
    assert (image.format, image.size) == ("WEBP", (48, 32))


def _broken(generate: GenerateImages, spoil: Any) -> None:
    """Load the stage's pipeline and spoil what it returns."""
    (digest,) = generate.models
    pipeline = generate._pipeline(digest)

    class Spoilt:
        def __call__(self, **arguments: Any) -> Any:
            return spoil(pipeline, arguments)

    generate._loaded = (digest, Spoilt())


def test_nan_and_black_images_are_failed_rows(tiny_sd: Path) -> None:
    def spoil(pipeline: Any, arguments: dict) -> Any:
        output = pipeline(**arguments)
        output.images[0] = np.nan
        output.images[1] = 0
        return output

    generate, plan = stage(tiny_sd)
    _broken(generate, spoil)
    done, failed = generate(plan("a", "b"))
    assert done.num_rows == 2
    assert "NaN or infinity in 12288 of 12288 values" in failed["error"][0].as_py()
    assert failed["error"][1].as_py() == "the model returned a black image"


def test_a_model_with_nan_weights_gives_failed_rows(tiny_sd: Path) -> None:
    import torch

    generate, plan = stage(tiny_sd)
    (digest,) = generate.models
    with torch.no_grad():
        next(generate._pipeline(digest).unet.parameters()).fill_(float("nan"))
    done, failed = generate(plan("a", "b"))
    assert (done.num_rows, failed.num_rows) == (0, 4)
    assert all("NaN" in reason for reason in failed["error"].to_pylist())


def test_a_prompt_that_raises_fails_alone(tiny_sd: Path) -> None:
    def spoil(pipeline: Any, arguments: dict) -> Any:
        if "bad" in arguments["prompt"]:
            raise RuntimeError("no memory")
        return pipeline(**arguments)

    generate, plan = stage(tiny_sd)
    planned = plan("a", "bad", "b")
    expected = by_id(generate(planned)[0])
    _broken(generate, spoil)
    done, failed = generate(planned)
    assert failed["prompt"].to_pylist() == ["bad", "bad"]
    assert set(failed["error"].to_pylist()) == {"RuntimeError: no memory"}
    assert by_id(done).items() <= expected.items()


@pytest.mark.parametrize(
    ("error", "batch_size", "told"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", 4, "Write images.batch_size=2 and another --out"),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory", 1, "Write a smaller images.height"),
        ("DefaultCPUAllocator: not enough memory: you tried to allocate", 4, "images.batch_size=2"),
    ],
)
def test_too_little_memory_is_told_and_fails_no_row(tiny_sd: Path, error: str, batch_size: int, told: str) -> None:
    import torch

    def spoil(pipeline: Any, arguments: dict) -> Any:
        raise torch.OutOfMemoryError(error) if "CUDA" in error else RuntimeError(error)

    generate, plan = stage(tiny_sd, batch_size=batch_size)
    _broken(generate, spoil)
    with pytest.raises(InputError, match=f"images.batch_size is {batch_size}, and cpu has too little memory.*{told}"):
        generate(plan("a"))


@pytest.mark.parametrize("others", ["FluxPipeline", "PixArtAlphaPipeline", "StableDiffusion3Pipeline", "LCMPipe"])
def test_noise_on_embeddings_of_another_layout_is_told_when_the_model_is_loaded(
    tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, others: str
) -> None:
    import diffusers

    kind = getattr(diffusers, others, type("LCMPipe", (), {"__call__": lambda self, prompt: None}))
    monkeypatch.setattr("visionprefer.images.load_pipeline", lambda *_: kind.__new__(kind))
    generate, plan = stage(tiny_sd, prompt_embedding_noise=0.1)
    with pytest.raises(InputError, match=f"images.prompt_embedding_noise is 0.1, and .* is a {others}.*Write 0"):
        generate(plan("a"))


def test_the_safety_checkers_word_is_kept(tiny_sd: Path) -> None:
    def spoil(pipeline: Any, arguments: dict) -> Any:
        output = pipeline(**arguments)
        output.nsfw_content_detected = [True, True, False, False]
        output.images[0] = 0
        return output

    generate, plan = stage(tiny_sd)
    _broken(generate, spoil)
    done, failed = generate(plan("a", "b"))
    assert failed["error"].to_pylist() == ["withheld by the pipeline's safety checker"]
    assert done["unsafe"].to_pylist() == [True, False, False]


def test_a_real_safety_checker_is_asked(tiny_sd_with_safety_checker: Path) -> None:
    """This one's thresholds are such that it flags everything."""
    generate, plan = stage(tiny_sd_with_safety_checker)
    done, failed = generate(plan("a"))
    assert done.num_rows == 0
    assert set(failed["error"].to_pylist()) == {"withheld by the pipeline's safety checker"}


def test_a_folder_that_diffusers_cannot_load_is_told(tiny_sd: Path, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "NoSuchPipeline"}')
    generate, _ = stage(tiny_sd)
    with pytest.raises(InputError, match=r"model .* cannot be loaded as a diffusers pipeline"):
        load_pipeline(find_model(str(tmp_path), "diffusers"), generate.device, generate.dtype)


@pytest.mark.slow
def test_the_true_architecture_of_sd15_draws_in_bfloat16(tmp_path: Path) -> None:
    """860 million random weights, two steps at 256 pixels."""
    from visionprefer.random_models import stable_diffusion

    folder = stable_diffusion(tmp_path / "sd15", size="sd15", dtype="bfloat16")
    generate, plan = stage(
        folder, guidance=1.0, height=256, width=256, dtype="bfloat16", batch_size=1, images_per_prompt=1
    )
    done, failed = generate(plan("a cat"))
    assert failed.to_pylist() == []
    assert (done["width"][0].as_py(), done["dtype"][0].as_py()) == (256, "bfloat16")
    assert generate._pipeline(next(iter(generate.models))).unet.num_parameters() == 859_520_964
