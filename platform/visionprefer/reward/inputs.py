"""Prompts and images as a backbone wants them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict

from visionprefer.errors import InputError

NARROWEST = 50


class InputSizes(BaseModel):
    """What a backbone takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text_length: int  # tokens; longer prompts are cut
    image_size: int  # pixels on each side
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]


class Inputs:
    """Makes tensors of prompts and images. It knows no weights, so that it can be sent to where images are decoded."""

    def __init__(self, sizes: InputSizes, tokenizer: Any) -> None:
        self.sizes = sizes
        self.tokenizer = tokenizer

    def tokens(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts as input_ids and attention_mask, int64 [N, text_length] each.

        All are padded to the same length: then a score does not depend on who shares the batch.
        """
        length = self.sizes.text_length
        encoded = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return encoded.input_ids, encoded.attention_mask

    def squares(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Images scaled by their shorter edge (bicubic) and cropped to the middle square: uint8 [N, 3, size, size].

        Transparent parts become white.

        Raises:
            InputError: if an image is more than NARROWEST times as long as it is wide, or the other way round.

        References: the transform of CLIP (github.com/openai/CLIP), which BLIP and ImageReward use too.
        """
        size = self.sizes.image_size
        pixels_NHWC = np.stack([np.asarray(_square(_opaque(image), size)) for image in images])
        return torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2)

    def normalised(self, squares_NCHW: torch.Tensor) -> torch.Tensor:
        """Squares with the backbone's mean and deviation taken out: float32 [N, 3, size, size]."""
        mean, std = (
            torch.tensor(values, device=squares_NCHW.device).view(3, 1, 1)
            for values in (self.sizes.image_mean, self.sizes.image_std)
        )
        return (squares_NCHW.float() / 255 - mean) / std


def _square(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    short = min(width, height)
    if max(width, height) > NARROWEST * short:  # scaled by its shorter edge, it would fill the memory
        raise InputError(f"too narrow: {width} × {height} pixels; one edge is at most {NARROWEST} times the other")
    scaled = max(size, int(size * width / short)), max(size, int(size * height / short))
    image = image.resize(scaled, Image.Resampling.BICUBIC)
    left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
