"""Scores that are the cosine of CLIP's embeddings of image and prompt: CLIP score, PickScore and, of checkpoints in
another layout, HPS v2.

Shapes: N images with a prompt each, D width of the embedding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor, CLIPModel

from visionprefer import devices
from visionprefer.errors import InputError
from visionprefer.models import Model, find_model, is_builtin
from visionprefer.reward.inputs import Inputs, InputSizes
from visionprefer.schema import content_id

CLIP_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"  # what PickScore and HPS v2 are fine-tuned from


class CosineScorer:
    """scale · cos(image, prompt)."""

    def __init__(
        self,
        name: str,
        judge: str,
        weights_digest: str,
        clip: CLIPModel,
        inputs: Inputs,
        scale: float,
        prepare: Callable[[Image.Image, int], Image.Image] | None = None,
        device: str = "auto",
        batch_size: int = 32,
    ) -> None:
        """
        Args:
            name: of the score.
            judge: name of the model.
            weights_digest: of the model's weights.
            clip: the model.
            inputs: that it takes.
            scale: of the cosine.
            prepare: what is done to an image before it is scaled and cropped to the given size; None: nothing.
            device: "auto", "cpu" or "cuda".
            batch_size: images that share a forward pass.
        """
        self.name, self.judge = name, judge
        self.digest = content_id(name, weights_digest, inputs_digest(inputs), scale)
        self.device, _ = devices.choose(device, "auto", on_gpu="float32")
        self.clip = clip.to(self.device).eval()
        self.inputs, self.scale, self.prepare, self.batch_size = inputs, scale, prepare, batch_size

    @torch.inference_mode()
    def score(self, prompts: Sequence[str], images: Sequence[Image.Image]) -> list[float]:
        """Score each image for the prompt at the same place."""
        found: list[float] = []
        for start in range(0, len(images), self.batch_size):
            chosen = slice(start, start + self.batch_size)
            ids, mask = self.inputs.tokens(prompts[chosen])
            seen = self.clip(
                pixel_values=self._pixels(images[chosen]).to(self.device),
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
            )
            cosine_N = (seen.image_embeds * seen.text_embeds).sum(dim=1)  # both have length 1
            found += (self.scale * cosine_N).tolist()
        return found

    def _pixels(self, images: Sequence[Image.Image]) -> torch.Tensor:
        if self.prepare:
            images = [self.prepare(image, self.inputs.sizes.image_size) for image in images]
        return self.inputs.normalised(self.inputs.squares(images))


def load_clip(location: str, processor: str | None = None, device: str = "auto") -> CosineScorer:
    """CLIP score: 100 · cos(image, prompt), of any CLIP.

    Args:
        location: folder, hub id or builtin: name of a CLIPModel.
        processor: where its tokenizer and image processor lie; default: beside it.
        device: "auto", "cpu" or "cuda".

    References: AGFSync (arXiv 2403.13352) Eq. 3; CLIPScore (arXiv 2104.08718), here without its prefix "A photo
    depicts", its factor of 2.5 and its floor at 0.

    Raises:
        InputError: if there is no CLIP, or no processor.
    """
    clip, model = read_clip(location)
    inputs = read_inputs(processor or location, clip.config)
    return CosineScorer("clip", model.label, model.digest, clip, inputs, 100.0, device=device)


def load_pickscore(location: str, processor: str | None = None, device: str = "auto") -> CosineScorer:
    """PickScore: exp(logit_scale) · cos(image, prompt).

    Args:
        location: yuvalkirstain/PickScore_v1, or a folder of it.
        processor: where the tokenizer and image processor of CLIP-H lie; default: `CLIP_H`.
        device: "auto", "cpu" or "cuda".

    References: Pick-a-Pic (arXiv 2305.01569) section 4.

    Raises:
        InputError: if there is no CLIP, or no processor.
    """
    clip, model = read_clip(location)
    inputs = read_inputs(processor or CLIP_H, clip.config)
    scale = float(clip.logit_scale.detach().exp())
    return CosineScorer("pickscore", model.label, model.digest, clip, inputs, scale, device=device)


def read_clip(location: str) -> tuple[CLIPModel, Model]:
    """A CLIPModel in float32, and which one it is. Raises InputError if there is none or weights are missing."""
    model = find_model(location, "transformers")
    try:
        kind = AutoConfig.from_pretrained(model.location, revision=model.revision).model_type
        if kind != "clip":
            raise InputError(f"scorer: {location!r} is a {kind} model. Write the folder or hub id of a CLIP")
        clip, about = CLIPModel.from_pretrained(
            model.location, revision=model.revision, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"scorer: {location!r} cannot be loaded as a CLIP: {error}") from error
    if missing := sorted(about["missing_keys"]):
        raise InputError(f"scorer: {location!r} lacks {len(missing)} weights, such as {missing[0]}")
    return clip, model


def read_inputs(location: str, config: Any) -> Inputs:
    """What a CLIP of this configuration takes, by the processor in a folder or of a hub id. Raises InputError."""
    place = find_model(location, "transformers").location if is_builtin(location) else location
    try:
        processor = AutoProcessor.from_pretrained(place)
        tokenizer, image_processor = processor.tokenizer, processor.image_processor
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"scorer: {location!r} has no CLIP processor that can be loaded: {error}. "
            "Write a folder or hub id with a tokenizer and an image processor"
        ) from error
    sizes = InputSizes(
        text_length=config.text_config.max_position_embeddings,
        image_size=config.vision_config.image_size,
        image_mean=tuple(image_processor.image_mean),
        image_std=tuple(image_processor.image_std),
    )
    return Inputs(sizes, tokenizer)


def inputs_digest(inputs: Inputs) -> str:
    """Changes whenever a prompt or an image would become another tensor."""
    return content_id(inputs.sizes.model_dump(mode="json"), inputs.tokenizer.backend_tokenizer.to_str())
