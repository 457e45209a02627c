"""What VP-Score reads prompts and images with: BLIP, or CLIP as the paper's ablation.

Shapes: N images with a prompt each, L tokens, P patches, D width.
"""

from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoProcessor,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    BlipTextModel,
    BlipVisionModel,
    CLIPModel,
)

from visionprefer.errors import InputError

BLIP_TEXT_LENGTH = 35  # tokens, as in ImageReward
BLIPS = {  # of the hub, and where the text encoder lies in each
    "BlipForImageTextRetrieval": (BlipForImageTextRetrieval, "text_encoder"),
    "BlipForQuestionAnswering": (BlipForQuestionAnswering, "text_encoder"),
    "BlipForConditionalGeneration": (BlipForConditionalGeneration, "text_decoder.bert"),
}


class Blip(torch.nn.Module):
    """BLIP's image encoder, and its text encoder that attends to the image; the feature is the state of [CLS].

    References: BLIP (arXiv 2201.12086) section 3.1; ImageReward (arXiv 2304.05977) section 3.2.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.vision_model = BlipVisionModel(config.vision_config)
        self.text_encoder = BlipTextModel(config.text_config, add_pooling_layer=False)
        self.width = config.text_config.hidden_size
        self.text_length = min(BLIP_TEXT_LENGTH, config.text_config.max_position_embeddings)

    def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        """Features [N, D] of images [N, 3, H, W] and their prompts [N, L]."""
        image_NPD = self.vision_model(pixel_values=pixel_values).last_hidden_state
        return self.text_encoder(
            input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=image_NPD
        ).last_hidden_state[:, 0]

    def layers(self) -> list[list[torch.nn.Module]]:
        """What can be frozen from the bottom up: of each encoder its embeddings, then its layers."""
        return [
            [self.vision_model.embeddings, *self.vision_model.encoder.layers],
            [self.text_encoder.embeddings, *self.text_encoder.encoder.layer],
        ]


class Clip(torch.nn.Module):
    """CLIP's two embeddings and their product: the head is linear, and alone it could not compare the two."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.clip = CLIPModel(config)
        self.width = 3 * config.projection_dim
        self.text_length = config.text_config.max_position_embeddings

    def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        """Features [N, D] of images [N, 3, H, W] and their prompts [N, L]."""
        found = self.clip(pixel_values=pixel_values, input_ids=input_ids, attention_mask=attention_mask)
        image_ND, text_ND = found.image_embeds, found.text_embeds
        scale = image_ND.shape[1] ** 0.5  # both have length 1: as large as BLIP's states
        return torch.cat([image_ND * scale, text_ND * scale, image_ND * text_ND * scale**2], dim=1)

    def layers(self) -> list[list[torch.nn.Module]]:
        """What can be frozen from the bottom up: of each encoder its embeddings, then its layers."""
        encoders = self.clip.vision_model, self.clip.text_model
        return [[encoder.embeddings, *encoder.encoder.layers] for encoder in encoders]


def backbone_of(config: Any) -> "Blip | Clip":
    """A backbone with random weights. Raises InputError if the configuration is of neither kind."""
    match config.model_type:
        case "blip":
            return Blip(config)
        case "clip":
            return Clip(config)
    raise InputError(
        f"backbone: a {config.model_type} model cannot be one. Write the folder or hub id of a BLIP or CLIP"
    )


def load_backbone(location: str, revision: str | None = None) -> tuple["Blip | Clip", Any]:
    """A backbone with its trained weights in float32, and its configuration.

    Raises:
        InputError: if there is none at this place, or weights that it needs are missing.
    """
    try:
        config = AutoConfig.from_pretrained(location, revision=revision)
        backbone = backbone_of(config)
        kind = (config.architectures or ["of no kind that it names"])[0]
        if isinstance(backbone, Blip) and kind not in BLIPS:
            raise InputError(f"backbone: {location!r} is a {kind}. Write a BLIP of one of these: {', '.join(BLIPS)}")
        model_class, text_encoder = BLIPS.get(kind, (CLIPModel, ""))
        model, about = model_class.from_pretrained(
            location, revision=revision, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise InputError(f"backbone: {location!r} cannot be loaded: {error}") from error
    if missing := sorted(about["missing_keys"]):
        raise InputError(f"backbone: {location!r} lacks {len(missing)} weights, such as {missing[0]}")
    if isinstance(backbone, Clip):
        backbone.clip = model
    else:
        backbone.vision_model, backbone.text_encoder = model.vision_model, model.get_submodule(text_encoder)
    return backbone, config


def load_processors(location: str, revision: str | None = None) -> tuple[Any, Any]:
    """The tokenizer and the image processor beside a backbone. Raises InputError if there is none."""
    try:
        processor = AutoProcessor.from_pretrained(location, revision=revision)
    except (OSError, ValueError) as error:
        raise InputError(f"backbone: {location!r} has no processor that can be loaded: {error}") from error
    return processor.tokenizer, processor.image_processor
