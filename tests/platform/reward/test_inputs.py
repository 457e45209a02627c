"""Images of any mode and shape become the squares that CLIP's own transform gives; prompts have one length."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPTokenizer

from visionprefer.random_models import clip_tokenizer
from visionprefer.reward.inputs import Inputs, InputSizes


@pytest.fixture
def inputs() -> Inputs:
    sizes = InputSizes(text_length=20, image_size=32, image_mean=(0.5, 0.4, 0.3), image_std=(0.5, 0.5, 0.25))
    return Inputs(sizes, clip_tokenizer())


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(64, 64), (100, 40), (33, 77), (32, 32), (8, 20)])
def test_squares_are_those_of_the_published_transform(inputs: Inputs, size: tuple[int, int]) -> None:
    """Scaled by the shorter edge with Pillow's bicubic filter, then the middle is cut out, as torchvision does it."""
    image = noise(*size)
    short = min(size)
    scaled = image.resize(tuple(int(32 * side / short) for side in size), Image.Resampling.BICUBIC)
    left, top = (round((side - 32) / 2.0) for side in scaled.size)
    expected = np.asarray(scaled)[top : top + 32, left : left + 32]
    assert np.array_equal(inputs.squares([image])[0].permute(1, 2, 0).numpy(), expected)


def test_the_mean_and_deviation_of_each_channel_are_taken_out(inputs: Inputs) -> None:
    pixels = inputs.normalised(inputs.squares([Image.new("RGB", (40, 40), (255, 0, 51))]))
    assert pixels[0, :, 5, 5].tolist() == pytest.approx([1.0, -0.8, -0.4], abs=1e-6)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1", "I;16"])
def test_any_mode_is_taken(inputs: Inputs, mode: str) -> None:
    image = noise(40, 40).convert("I").convert("I;16") if mode == "I;16" else noise(40, 40).convert(mode)
    assert inputs.squares([image]).shape == (1, 3, 32, 32)


def test_what_is_transparent_is_white(inputs: Inputs) -> None:
    assert (inputs.squares([Image.new("RGBA", (32, 32), (255, 0, 0, 0))]) == 255).all()


def test_tokens_do_not_depend_on_who_shares_the_batch(inputs: Inputs) -> None:
    assert isinstance(inputs.tokenizer, CLIPTokenizer)
    alone, together = inputs.tokens(["a cat"])[0], inputs.tokens(["a cat", "a very long prompt " * 20])[0]
    assert together.shape == (2, 20)
    assert torch.equal(alone[0], together[0])
