"""Images and prompts are encoded as the pipelines do it, for SD and SDXL alike; mixed sizes are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image

from visionprefer.align.encoding import Condition, encode_images, encode_prompts
from visionprefer.blocksworld.renderer import compose, draw
from visionprefer.blocksworld.scenes import sample
from visionprefer.devices import choose
from visionprefer.errors import InputError
from visionprefer.images import load_pipeline
from visionprefer.models import find_model


def pipeline_of(name: str | Path) -> object:
    return load_pipeline(find_model(str(name), "diffusers"), *choose("cpu", "float32", on_gpu="float32"))


def test_latents_decode_to_the_images_that_they_were() -> None:
    import random

    chance = random.Random(0)
    images = [draw(compose(sample("training", chance), chance)) for _ in range(4)]
    pipeline = pipeline_of("builtin:blocks-sd")
    latents = encode_images(pipeline, images)
    with torch.no_grad():
        decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    shown = pipeline.image_processor.postprocess(decoded, output_type="np")
    differences = np.abs(shown - np.stack([np.asarray(image) / 255 for image in images]))
    assert differences.mean() < 0.02
    assert latents.std().item() == pytest.approx(1, abs=0.3)


def test_a_pipeline_that_is_given_the_encoded_prompt_makes_the_same_image(tiny_sd: Path, tiny_sdxl: Path) -> None:
    for folder in (tiny_sd, tiny_sdxl):
        pipeline = pipeline_of(folder)
        prompts = ["a red circle", "a blue ring left of a green cross on black"]
        condition = encode_prompts(pipeline, prompts, 64, 64)
        given = {"prompt_embeds": condition.hidden_BTD}
        if condition.pooled_BD is not None:
            given["pooled_prompt_embeds"] = condition.pooled_BD
        settings = {"guidance_scale": 1.0, "num_inference_steps": 2, "output_type": "np", "height": 64, "width": 64}
        by_words, by_codes = (
            pipeline(**what, **settings, generator=torch.Generator().manual_seed(0)).images
            for what in ({"prompt": prompts}, given)
        )
        assert np.array_equal(by_words, by_codes)


def test_sdxl_is_told_the_sizes_that_its_pipeline_tells_it(tiny_sdxl: Path) -> None:
    pipeline = pipeline_of(tiny_sdxl)
    assert isinstance(pipeline, StableDiffusionXLPipeline)
    condition = encode_prompts(pipeline, ["a", "b"], 48, 64)
    wanted = pipeline._get_add_time_ids((48, 64), (0, 0), (48, 64), torch.float32, 32)
    assert condition.time_ids_B6 is not None
    assert torch.equal(condition.time_ids_B6, wanted.expand(2, 6))


def test_conditions_are_repeated_one_after_the_other(tiny_sd: Path, tiny_sdxl: Path) -> None:
    for folder in (tiny_sd, tiny_sdxl):
        condition = encode_prompts(pipeline_of(folder), ["a", "b"], 64, 64)
        for part, twice in zip(condition, condition.repeated(2), strict=True):
            assert (part is None) == (twice is None)
            assert part is None or torch.equal(twice, torch.cat([part, part]))
    assert Condition(torch.zeros(1, 2, 3)).as_arguments().keys() == {"encoder_hidden_states"}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([(64, 64), (64, 32)], "64 × 32, 64 × 64 pixels: make or resize them all to one size"),
        ([(64, 60)], "a side of 60 pixels: resize the images to multiples of 8"),
    ],
)
def test_images_of_wrong_sizes_are_refused(tiny_sd: Path, sizes: list[tuple[int, int]], message: str) -> None:
    pipeline = pipeline_of(tiny_sd)
    assert isinstance(pipeline, StableDiffusionPipeline)
    with pytest.raises(InputError, match=message):
        encode_images(pipeline, [Image.new("RGB", size) for size in sizes])


def test_a_pipeline_with_other_embeddings_is_refused() -> None:
    with pytest.raises(InputError, match=r"model is a FluxPipeline, which takes other.*Write a Stable Diffusion"):
        encode_prompts(FluxPipeline.__new__(FluxPipeline), ["a ring"], 64, 64)
