"""Prompts and images as a backbone wants them."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict

from visionprefer.reward.squares import squares


class InputSizes(BaseModel):
    """What a backbone takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text_length: int  # tokens; longer prompts are cut
    image_size: int  # pixels on each side
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]


class Inputs:
    """Makes tensors of prompts and images. It knows no weights."""

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
        """Images as `squares.squares` makes them: uint8 [N, 3, size, size].

        Raises:
            InputError: if an image is far too narrow.
        """
        return torch.from_numpy(squares(images, self.sizes.image_size))

    def normalised(self, squares_NCHW: torch.Tensor) -> torch.Tensor:
        """Squares with the backbone's mean and deviation taken out: float32 [N, 3, size, size]."""
        mean, std = (
            torch.tensor(values, device=squares_NCHW.device).view(3, 1, 1)
            for values in (self.sizes.image_mean, self.sizes.image_std)
        )
        return (squares_NCHW.float() / 255 - mean) / std
