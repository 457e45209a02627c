"""The judge's eyes, for models that learn after it: they know what lies in each patch, and how cleanly it is formed.

BLIP (arXiv 2201.12086, section 4.1) starts from a vision transformer that can tell pictures apart; so do these.
"""

from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import layer_norm, mse_loss
from transformers import BlipVisionConfig, BlipVisionModel, LlavaForConditionalGeneration

from visionprefer.blocksworld.training import data, loop

STEPS = 600
BATCH = 32


def of_the_judge(folder: Path) -> Any:
    """The vision tower of a judge's folder, a CLIPVisionModel in fp32."""
    judge = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return judge.model.vision_tower.requires_grad_(False).to(data.DEVICE)


def as_blip_config(tower: Any) -> dict[str, Any]:
    """The config of BLIP's vision model that has the tower's layers."""
    of_layers = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act")
    config = {name: getattr(tower.config, name) for name in (*of_layers, "image_size", "patch_size")}
    # BlipVisionConfig's own range is 1e-10: eyes that see nothing for thousands of steps.
    return {**config, "layer_norm_eps": tower.config.layer_norm_eps, "initializer_range": 0.02}


def as_blip(tower: Any, pool: data.Pool, folder: Path, seed: int) -> BlipVisionModel:
    """BLIP's vision model that sees what a CLIP's tower sees.

    The layers are the same; but CLIP normalises its patches before the first, so the copy learns to do without.
    """
    blip = BlipVisionModel(BlipVisionConfig(**as_blip_config(tower)))
    blip.load_state_dict(_renamed(tower.state_dict()), strict=False)

    def loss(step: int) -> torch.Tensor:
        pixels = data.scaled(pool.pictures[data.batch(BATCH, len(pool.pictures), step, seed)])
        seen = tower(pixel_values=pixels).last_hidden_state
        return mse_loss(blip(pixel_values=pixels).last_hidden_state, layer_norm(seen, seen.shape[-1:]))

    loop.train(blip, loss, folder=folder, steps=STEPS, learning_rate=1e-3, average=0.99)
    return blip


def _renamed(clip: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of CLIP's vision model under the names that BLIP's has for them."""
    named = {}
    for name, weight in clip.items():
        if name.endswith("q_proj.weight") or name.endswith("q_proj.bias"):
            parts = [clip[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            named[name.replace("q_proj", "qkv")] = torch.cat(parts)
        elif name == "embeddings.class_embedding":
            named[name] = weight[None, None]
        elif name == "embeddings.position_embedding.weight":
            named["embeddings.position_embedding"] = weight[None]
        elif not any(part in name for part in ("k_proj", "v_proj", "layrnorm", "post_layernorm", "position_ids")):
            named[name.replace("out_proj", "projection")] = weight
    return named
