"""At full size the models of the recipes are those that were published, down to the last weight.

All on the meta device, which has no memory.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    BlipConfig,
    BlipForImageTextRetrieval,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from visionprefer.align.policy import Policy
from visionprefer.random_backbones import _BLIPS
from visionprefer.random_models import _text_encoder, _unet, _vae


@pytest.fixture(autouse=True)
def _no_memory() -> Iterator[None]:
    with torch.device("meta"):
        yield


def count(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("size", "weights", "lora"),
    [("sd15", 859_520_964, 797_184), ("sd21", 865_910_724, 829_952), ("sdxl", 2_567_463_684, 5_806_080)],
)
def test_unets_and_lora_of_rank_4(size: str, weights: int, lora: int) -> None:
    unet = _unet(size)
    assert count(unet) == weights
    policy = Policy(SimpleNamespace(unet=unet), lora_rank=4)
    assert sum(weight.numel() for weight in policy.learnt) == lora


def test_autoencoder_and_text_encoders() -> None:
    """SD's and SDXL's autoencoder; CLIP ViT-L, and OpenCLIP's ViT-H but for its last layer, and ViT-bigG."""
    assert count(_vae("full")) == 83_653_863
    assert count(_text_encoder("clip-l")) == 123_060_480
    assert count(_text_encoder("clip-h")) == 340_387_840
    assert count(_text_encoder("clip-bigg", projected=True)) == 694_659_840


def test_the_judge() -> None:
    """Qwen2.5-VL 7B, whose index of weights on the hub tells 16,584,333,312 bytes of bfloat16."""
    text = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
    text |= {"num_key_value_heads": 4, "vocab_size": 152064}
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    assert 2 * count(Qwen2_5_VLForConditionalGeneration(config)) == 16_584_333_312


def test_the_backbone_of_the_reward_model() -> None:
    """BLIP-large: ViT-L/16 has 303.3 million weights; BERT base without its pooler, and in each of its 12 layers
    cross-attention to 1,024 dimensions, of which queries and output are 768 × 768, keys and values 1,024 × 768.
    """
    sizes = _BLIPS["blip-large"]
    text = {**sizes["text"], "vocab_size": 30_524, "encoder_hidden_size": 1024}
    model = BlipForImageTextRetrieval(BlipConfig(vision_config=sizes["vision"], text_config=text))
    assert count(model.vision_model) == 303_301_632
    bert, cross = 23_837_184 + 12 * 7_087_872, 2 * (768 * 768 + 768) + 2 * (1024 * 768 + 768) + 2 * 768
    assert count(model.text_encoder) == bert + 12 * cross
