"""ImageReward as a scorer. What its checkpoints compute is tested with the reward models."""

from pathlib import Path

import pytest
import torch
from run_by_hand import picture
from transformers import BlipConfig

from visionprefer.errors import InputError
from visionprefer.imagebytes import open_image
from visionprefer.random_backbones import letters_tokenizer
from visionprefer.reward.backbones import Blip
from visionprefer.reward.imagereward import MEAN, STD
from visionprefer.reward.inputs import Inputs, InputSizes
from visionprefer.reward.vpscore import Head
from visionprefer.scorers.named import load_scorer

SIZE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 1}
THEIRS = {  # our names, and those of the published checkpoint
    "vision_model.embeddings.class_embedding": "visual_encoder.cls_token",
    "vision_model.embeddings.position_embedding": "visual_encoder.pos_embed",
    "vision_model.embeddings.patch_embedding": "visual_encoder.patch_embed.proj",
    "vision_model.post_layernorm": "visual_encoder.norm",
    "vision_model.encoder.layers": "visual_encoder.blocks",
    "layer_norm": "norm",
    "self_attn.projection": "attn.proj",
    "self_attn.qkv": "attn.qkv",
}


def test_it_scores_as_its_parts_do(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = letters_tokenizer()
    blip, head = Blip(blip_config(len(tokenizer))).eval(), Head(64).eval()
    file = tmp_path / "ImageReward.pt"
    torch.save(
        {f"blip.{theirs(name)}": weight for name, weight in blip.state_dict().items()}
        | {f"mlp.{name}": weight for name, weight in head.state_dict().items()},
        file,
    )
    tokenizer.save_pretrained(tmp_path / "bert")
    scorer = load_scorer(f"imagereward={file},{tmp_path / 'bert'}", device="cpu")
    prompts, images = ["a cat", "two dogs"], [open_image(picture(name)) for name in "ab"]
    inputs = Inputs(
        InputSizes(
            text_length=35,
            image_size=32,
            image_mean=(0.48145466, 0.4578275, 0.40821073),
            image_std=(0.26862954, 0.26130258, 0.27577711),
        ),
        tokenizer,
    )
    with torch.inference_mode():
        raw = head(blip(inputs.normalised(inputs.squares(images)), *inputs.tokens(prompts)))
    assert scorer.score(prompts, images) == pytest.approx(((raw - MEAN) / STD).tolist(), rel=1e-4)
    assert (scorer.name, scorer.judge) == ("imagereward", "ImageReward")
    with pytest.raises(
        InputError, match=r"has no tokenizer that can be loaded: (.|\n)*Write the folder or hub id of BERT"
    ):
        load_scorer(f"imagereward={file},{tmp_path}")


def blip_config(words: int) -> BlipConfig:
    return BlipConfig(
        vision_config={**SIZE, "image_size": 32, "patch_size": 8, "initializer_range": 0.1, "layer_norm_eps": 1e-6},
        text_config={**SIZE, "vocab_size": words, "encoder_hidden_size": 64, "max_position_embeddings": 64},
    )


def theirs(name: str) -> str:
    for ours, published in THEIRS.items():
        if not name.startswith("text_encoder."):
            name = name.replace(ours, published)
    return name
