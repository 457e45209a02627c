"""Images and prompts as a UNet gets them. Encoded once and kept: a denoising error needs no pixel and no word.

Shapes: B samples, T tokens, D dimensions; C channels, H rows, W columns of latents.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image

from visionprefer.errors import InputError
from visionprefer.images import embeddings_of


class Condition(NamedTuple):
    """What a UNet is told of prompts.

    Attributes:
        hidden_BTD: states of the text encoder's tokens; of both encoders side by side in SDXL.
        pooled_BD: SDXL's summary of the prompt; None for SD1 and SD2.
        time_ids_B6: SDXL's sizes in pixels: height and width of the original, crop from the top and the left, height
            and width wanted. None for SD1 and SD2.
    """

    hidden_BTD: torch.Tensor
    pooled_BD: torch.Tensor | None = None
    time_ids_B6: torch.Tensor | None = None

    def repeated(self, times: int) -> "Condition":
        """The same conditions so often, one after the other: [times · B]."""
        return Condition._make(part if part is None else torch.cat([part] * times) for part in self)

    def part(self, rows: slice) -> "Condition":
        """Some of the conditions."""
        return Condition._make(part if part is None else part[rows] for part in self)

    def beside(self, other: "Condition") -> "Condition":
        """These, then others of the same kind of pipeline."""
        return Condition._make(
            None if mine is None or theirs is None else torch.cat([mine, theirs])
            for mine, theirs in zip(self, other, strict=True)
        )

    def to(self, device: torch.device) -> "Condition":
        """The same conditions on a device."""
        return Condition._make(part if part is None else part.to(device) for part in self)

    def as_arguments(self) -> dict[str, Any]:
        """Keyword arguments of the UNet's call."""
        if self.pooled_BD is None:
            return {"encoder_hidden_states": self.hidden_BTD}
        added = {"text_embeds": self.pooled_BD, "time_ids": self.time_ids_B6}
        return {"encoder_hidden_states": self.hidden_BTD, "added_cond_kwargs": added}


@torch.no_grad()
def encode_prompts(pipeline: Any, prompts: Sequence[str], height: int, width: int) -> Condition:
    """Prompts as a Stable Diffusion pipeline, 1, 2 or XL, encodes them.

    Args:
        pipeline: on its device.
        prompts: those that are longer than the encoder reads are cut, as in generating.
        height, width: of the images, pixels.

    Raises:
        InputError: if the pipeline's prompts are encoded in another way.
    """
    names = embeddings_of(pipeline)
    if not names:
        raise InputError(
            f"model is a {type(pipeline).__name__}, which takes other embeddings than Stable Diffusion. Write a Stable "
            "Diffusion 1, 2 or XL"
        )
    encoded = pipeline.encode_prompt(
        prompt=list(prompts),
        device=pipeline.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )
    found = dict(zip(names, encoded, strict=True))
    return condition_of(found["prompt_embeds"], found.get("pooled_prompt_embeds"), height, width)


def encode_empty(pipeline: Any, count: int, height: int, width: int) -> Condition:
    """What guidance leads away from where no negative prompt is given, as the pipeline itself takes it.

    Args:
        pipeline, height, width: see `encode_prompts`.
        count: how many of it.
    """
    found = encode_prompts(pipeline, [""] * count, height, width)
    if found.pooled_BD is None or not pipeline.config.get("force_zeros_for_empty_prompt"):
        return found
    return found._replace(hidden_BTD=torch.zeros_like(found.hidden_BTD), pooled_BD=torch.zeros_like(found.pooled_BD))


def condition_of(hidden_BTD: torch.Tensor, pooled_BD: torch.Tensor | None, height: int, width: int) -> Condition:
    """The condition of images of this size in pixels, made and seen whole; see Condition."""
    if pooled_BD is None:
        return Condition(hidden_BTD)
    return Condition(
        hidden_BTD, pooled_BD, pooled_BD.new_tensor([[height, width, 0, 0, height, width]] * len(pooled_BD))
    )


@torch.no_grad()
def encode_images(pipeline: Any, images: Sequence[Image.Image]) -> torch.Tensor:
    """Images as scaled latents: float32 [B, C, H, W].

    The mean of the encoder's distribution is taken where the reference implementation draws from it anew at each step:
    its deviation is far smaller than the latents', and a mean can be kept. The autoencoder is in float32 from then
    on, since SDXL's gives NaN in float16.

    Raises:
        InputError: if the images differ in size, or a side is no multiple of the autoencoder's factor.
    """
    sizes = {image.size for image in images}
    if len(sizes) > 1:
        told = ", ".join(f"{width} × {height}" for width, height in sorted(sizes))
        raise InputError(f"the images of a batch are {told} pixels: make or resize them all to one size")
    if odd := [side for side in images[0].size if side % pipeline.vae_scale_factor]:
        raise InputError(
            f"an image has a side of {odd[0]} pixels: resize the images to multiples of {pipeline.vae_scale_factor}"
        )
    vae = pipeline.vae.to(torch.float32)
    pixels_B3HW = pipeline.image_processor.preprocess([image.convert("RGB") for image in images]).to(vae.device)
    latents_BCHW: torch.Tensor = vae.encode(pixels_B3HW).latent_dist.mode() * vae.config.scaling_factor
    return latents_BCHW
