"""Checkpoints in ImageReward's layout, loaded as a VP-Score with one score.

References: ImageReward (arXiv 2304.05977), github.com/THUDM/ImageReward; its BLIP names weights as timm and BERT do.
"""

import re
from pathlib import Path
from typing import Any

from transformers import BlipConfig

from visionprefer.errors import InputError
from visionprefer.reward.backbones import Blip
from visionprefer.reward.checkpoint import Weights, count_layers, read_weights
from visionprefer.reward.inputs import InputSizes
from visionprefer.reward.vpscore import VPScore, VPScoreConfig
from visionprefer.schema import OVERALL

MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the released model's scores
HEAD_WIDTH = 64  # of each attention head, in BLIP of any size
_MEAN_OF_PIXELS = (0.48145466, 0.4578275, 0.40821073)  # CLIP's
_STD_OF_PIXELS = (0.26862954, 0.26130258, 0.27577711)
_NAMES = (  # theirs and ours
    (r"^blip\.visual_encoder\.cls_token$", "backbone.vision_model.embeddings.class_embedding"),
    (r"^blip\.visual_encoder\.pos_embed$", "backbone.vision_model.embeddings.position_embedding"),
    (r"^blip\.visual_encoder\.patch_embed\.proj\.", "backbone.vision_model.embeddings.patch_embedding."),
    (r"^blip\.visual_encoder\.norm\.", "backbone.vision_model.post_layernorm."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.norm(\d)\.", r"backbone.vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"backbone.vision_model.encoder.layers.\1.self_attn.qkv."),
    (
        r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj\.",
        r"backbone.vision_model.encoder.layers.\1.self_attn.projection.",
    ),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.mlp\.", r"backbone.vision_model.encoder.layers.\1.mlp."),
    (r"^blip\.text_encoder\.", "backbone.text_encoder."),
    (r"^mlp\.layers\.", "heads.0.layers."),
)


def load_imagereward(file: Path, tokenizer: Any, mean: float = MEAN, std: float = STD) -> VPScore:
    """Load a checkpoint. It scores as ImageReward does; `save_pretrained` keeps it as a VP-Score.

    Args:
        file: ImageReward.pt, or the same in safetensors.
        tokenizer: BERT's (bert-base-uncased), which the checkpoint does not hold.
        mean, std: of its raw scores, by which they are normalised.

    Raises:
        InputError: if the file is not such a checkpoint.
    """
    weights = read_weights(file)
    found = {_renamed(name): weight for name, weight in weights.items() if not name.endswith("position_ids")}
    try:
        config = _config(found)
    except KeyError as error:
        raise InputError(f"{file} is no ImageReward checkpoint: it has no weight {error}") from error
    sizes = InputSizes(
        text_length=35,
        image_size=config.vision_config.image_size,
        image_mean=_MEAN_OF_PIXELS,
        image_std=_STD_OF_PIXELS,
    )
    model = VPScore(VPScoreConfig(scores=(OVERALL,), inputs=sizes), Blip(config), config, tokenizer)
    missing, unknown = model.load_state_dict(found, strict=False)
    missing = [name for name in missing if not name.startswith("doubt.") and name not in ("mean", "std")]
    if missing or unknown:
        raise InputError(f"{file} is no ImageReward checkpoint: it lacks {missing[:3]} and has also {unknown[:3]}")
    model.mean.fill_(mean)
    model.std.fill_(std)
    return model.eval()


def _renamed(name: str) -> str:
    for theirs, ours in _NAMES:
        name, count = re.subn(theirs, ours, name)
        if count:
            return name
    return name


def _config(weights: Weights) -> BlipConfig:
    """The architecture, from the shapes of the weights."""
    vision, text = "backbone.vision_model.", "backbone.text_encoder."
    width = weights[vision + "embeddings.position_embedding"].shape[2]
    patch = weights[vision + "embeddings.patch_embedding.weight"].shape[2]
    words, text_width = weights[text + "embeddings.word_embeddings.weight"].shape
    return BlipConfig(
        vision_config={
            "hidden_size": width,
            "intermediate_size": weights[vision + "encoder.layers.0.mlp.fc1.weight"].shape[0],
            "num_hidden_layers": count_layers(weights, vision + "encoder.layers."),
            "num_attention_heads": width // HEAD_WIDTH,
            "patch_size": patch,
            "image_size": patch * round((weights[vision + "embeddings.position_embedding"].shape[1] - 1) ** 0.5),
            "layer_norm_eps": 1e-6,
        },
        text_config={
            "vocab_size": words,
            "hidden_size": text_width,
            "encoder_hidden_size": weights[text + "encoder.layer.0.crossattention.self.key.weight"].shape[1],
            "intermediate_size": weights[text + "encoder.layer.0.intermediate.dense.weight"].shape[0],
            "num_hidden_layers": count_layers(weights, text + "encoder.layer."),
            "num_attention_heads": text_width // HEAD_WIDTH,
            "max_position_embeddings": weights[text + "embeddings.position_embeddings.weight"].shape[0],
        },
    )
