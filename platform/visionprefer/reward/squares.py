"""Images as the squares that backbones look at. Nothing here needs torch: tasks that only decode start sooner."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from visionprefer.errors import InputError

NARROWEST = 50


def squares(images: Sequence[Image.Image], size: int) -> np.ndarray:
    """Images scaled by their shorter edge (bicubic) and cropped to the middle square: uint8 [N, 3, size, size].

    Transparent parts become white.

    Raises:
        InputError: if an image is more than NARROWEST times as long as it is wide, or the other way round.

    References: the transform of CLIP (github.com/openai/CLIP), which BLIP and ImageReward use too.
    """
    pixels_NHWC = np.stack([np.asarray(_square(_opaque(image), size)) for image in images])
    return np.ascontiguousarray(pixels_NHWC.transpose(0, 3, 1, 2))


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
