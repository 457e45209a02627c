"""BLIPs and CLIPs of the true classes with random weights, as backbones of reward models in tests and benchmarks.

python -m visionprefer.random_backbones tiny-blip|small-blip|blip-large|tiny-clip FOLDER
"""

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import BertTokenizer, BlipConfig, BlipForImageTextRetrieval, BlipProcessor, CLIPConfig, CLIPModel
from transformers import CLIPProcessor as ClipProcessor
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from visionprefer.random_models import clip_tokenizer

_TINY = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
# BlipVisionConfig's own range is 1e-10, with which all images look alike.
_BLIPS: dict[str, dict[str, Any]] = {
    "tiny-blip": {
        "vision": {**_TINY, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8, "initializer_range": 0.1},
        "text": {**_TINY, "num_hidden_layers": 2, "max_position_embeddings": 64, "initializer_range": 0.1},
    },
    "small-blip": {  # some 20 ms an image on two cores
        "vision": {
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 8,
            "num_attention_heads": 6,
            "image_size": 112,
            "patch_size": 16,
            "initializer_range": 0.02,
        },
        "text": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6},
    },
    "blip-large": {
        "vision": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 16,
            "initializer_range": 0.02,
        },
        "text": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    },
}


def blip(folder: Path, size: str = "tiny-blip", seed: int = 0) -> Path:
    """Write a BlipForImageTextRetrieval with random weights, a tokenizer of letters and a processor."""
    sizes = _BLIPS[size]
    tokenizer = letters_tokenizer()
    text = {**sizes["text"], "vocab_size": len(tokenizer), "encoder_hidden_size": sizes["vision"]["hidden_size"]}
    text |= {name: getattr(tokenizer, name) for name in ("pad_token_id", "sep_token_id")}
    text |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BlipForImageTextRetrieval(BlipConfig(vision_config=sizes["vision"], text_config=text))
    pixels = sizes["vision"]["image_size"]
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessorPil(size={"height": pixels, "width": pixels}), tokenizer).save_pretrained(folder)
    return folder


def clip(folder: Path, seed: int = 0) -> Path:
    """Write a small CLIPModel with random weights, a byte tokenizer and a processor for 32 px."""
    tokenizer = clip_tokenizer()
    layers = {**_TINY, "num_hidden_layers": 2, "projection_dim": 32}
    text = {**layers, "vocab_size": len(tokenizer), "max_position_embeddings": 77}
    text |= {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    vision = {**layers, "image_size": 32, "patch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=32))
    size = {"height": 32, "width": 32}
    model.save_pretrained(folder)
    ClipProcessor(CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size), tokenizer).save_pretrained(folder)
    return folder


def letters_tokenizer() -> Any:
    """A BertTokenizer of single characters."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    return BertTokenizer(vocab={piece: number for number, piece in enumerate(vocabulary)}, model_max_length=35)


if __name__ == "__main__":
    kind, target = sys.argv[1], Path(sys.argv[2])
    if kind == "tiny-clip":
        clip(target)
    else:
        blip(target, kind)
