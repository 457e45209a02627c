"""HPS v2 and v2.1: checkpoints in open_clip's layout of ViT-H-14, as a transformers CLIPModel.

References: HPS v2 (arXiv 2306.09341), github.com/tgxs002/HPSv2; github.com/mlfoundations/open_clip.
"""

import re
from pathlib import Path

import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from visionprefer.errors import InputError
from visionprefer.reward.checkpoint import Weights, count_layers, file_digest, find_file, read_weights
from visionprefer.scorers.clip import CLIP_H, CosineScorer, read_inputs

VISION_HEAD_WIDTH, TEXT_HEAD_WIDTH = 80, 64  # of each attention head in ViT-H-14
_PROJECTIONS = ("visual_projection.weight", "text_projection.weight")
_NAMES = (  # theirs and ours
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^text_projection$", "text_projection.weight"),
    (r"(layers\.\d+)\.ln_([12])\.", r"\1.layer_norm\2."),
    (r"(layers\.\d+)\.attn\.", r"\1.self_attn."),
    (r"(layers\.\d+)\.mlp\.c_fc\.", r"\1.mlp.fc1."),
    (r"(layers\.\d+)\.mlp\.c_proj\.", r"\1.mlp.fc2."),
)


def load_hpsv2(location: str, processor: str | None = None, device: str = "auto") -> CosineScorer:
    """HPS v2: cos(image, prompt), without a scale. Images are padded to squares, not cropped.

    Args:
        location: HPS_v2_compressed.pt or HPS_v2.1_compressed.pt, or xswu/HPSv2/HPS_v2.1_compressed.pt of the hub.
        processor: where the tokenizer and image processor of CLIP-H lie; default: `CLIP_H`.
        device: "auto", "cpu" or "cuda".

    Raises:
        InputError: if the file is not such a checkpoint, or there is no processor.
    """
    file = find_file(location)
    clip = clip_of_open_clip(read_weights(file), file)
    inputs = read_inputs(processor or CLIP_H, clip.config)
    return CosineScorer("hpsv2", file.stem, file_digest(file), clip, inputs, 1.0, padded, device)


def clip_of_open_clip(weights: Weights, file: Path) -> CLIPModel:
    """A CLIPModel in float32 with the weights of open_clip's ViT-H-14, or of a smaller model of its head widths.

    Raises:
        InputError: naming the file, if weights are missing or unknown.
    """
    found = renamed(weights)
    wanted = f"{file} is no checkpoint of HPS v2 in open_clip's layout"
    try:
        clip, about = CLIPModel.from_pretrained(
            None, config=_config(found), state_dict=found, dtype=torch.float32, output_loading_info=True
        )
    except KeyError as error:
        raise InputError(f"{wanted}: it has no weight {error}") from error
    except (ValueError, IndexError, RuntimeError) as error:  # of shapes that do not fit together
        raise InputError(f"{wanted}: {error}") from error
    missing, unknown = sorted(about["missing_keys"]), sorted(about["unexpected_keys"])
    if missing or unknown:
        raise InputError(f"{wanted}: it lacks {missing[:3]} and has also {unknown[:3]}")
    return clip


def renamed(weights: Weights) -> Weights:
    """Weights by the names and in the shapes that transformers' CLIPModel gives them.

    Its projections are matrices of linear layers, the transposes of open_clip's; and open_clip stacks the matrices of
    queries, keys and values.
    """
    found: Weights = {}
    for name, weight in weights.items():
        name = name.removeprefix("module.")  # of a model saved while it trained on several GPUs
        for theirs, ours in _NAMES:
            name = re.sub(theirs, ours, name)
        if stacked := re.fullmatch(r"(.+\.self_attn\.)in_proj_(weight|bias)", name):
            for part, of_part in zip("qkv", weight.chunk(3), strict=True):
                found[f"{stacked[1]}{part}_proj.{stacked[2]}"] = of_part.clone()
        else:
            found[name] = weight.mT.contiguous() if name in _PROJECTIONS else weight
    return found


def padded(image: Image.Image, size: int) -> Image.Image:
    """An image scaled by its longer edge (bicubic), in the middle of a black square of `size` pixels.

    References: the transform that HPS v2 scores with, resize_longest_max of its copy of open_clip.
    """
    width, height = image.size
    scale = size / max(width, height)
    scaled = image.convert("RGB").resize(
        (max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BICUBIC
    )
    square = Image.new("RGB", (size, size))
    square.paste(scaled, ((size - scaled.width) // 2, (size - scaled.height) // 2))
    return square


def _config(weights: Weights) -> CLIPConfig:
    """The architecture, from the shapes of the weights."""
    vision, text = "vision_model.", "text_model."
    words, text_width = weights[text + "embeddings.token_embedding.weight"].shape
    patches, width = weights[vision + "embeddings.position_embedding.weight"].shape
    patch = weights[vision + "embeddings.patch_embedding.weight"].shape[2]
    dimension = weights["visual_projection.weight"].shape[0]
    shared = {"hidden_act": "gelu", "projection_dim": dimension}
    return CLIPConfig(
        projection_dim=dimension,
        vision_config={
            **shared,
            "hidden_size": width,
            "intermediate_size": weights[vision + "encoder.layers.0.mlp.fc1.weight"].shape[0],
            "num_hidden_layers": count_layers(weights, vision + "encoder.layers."),
            "num_attention_heads": width // VISION_HEAD_WIDTH,
            "patch_size": patch,
            "image_size": patch * round((patches - 1) ** 0.5),
        },
        text_config={
            **shared,
            "vocab_size": words,
            "hidden_size": text_width,
            "intermediate_size": weights[text + "encoder.layers.0.mlp.fc1.weight"].shape[0],
            "num_hidden_layers": count_layers(weights, text + "encoder.layers."),
            "num_attention_heads": text_width // TEXT_HEAD_WIDTH,
            "max_position_embeddings": weights[text + "embeddings.position_embedding.weight"].shape[0],
            "bos_token_id": words - 2,  # the two last words of CLIP's vocabulary
            "eos_token_id": words - 1,
            "pad_token_id": words - 1,
        },
    )
