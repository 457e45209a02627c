"""A small CLIP, trained contrastively on captions of renders. Its eyes start as the judge's."""

import random
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel, CLIPProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from visionprefer.blocksworld.training import data, eyes, loop, tokens
from visionprefer.blocksworld.wording import word

STEPS = 1_500
BATCH = 48
SCENES = 40_000


def train(folder: Path, judge: Path, seed: int) -> None:
    """Train the CLIP; the folder gets it in `model/`, with the checkpoint beside it.

    Args:
        folder: where everything goes.
        judge: folder of the judge with whose eyes the CLIP starts.
        seed: of the weights, the pictures and the batches.
    """
    torch.manual_seed(seed)
    tokenizer = tokens.clip_tokenizer()
    tower = eyes.of_the_judge(judge)
    model = _model(tokenizer, tower.config.to_dict())
    model.vision_model.load_state_dict(tower.state_dict())
    pool = data.pool(SCENES, seed)

    def loss(step: int) -> torch.Tensor:
        rows = data.batch(BATCH, SCENES, step, seed)
        chance = random.Random(f"{seed} {step}")
        texts = [word(pool.descriptions[row], chance) for row in rows]
        inputs = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").to(data.DEVICE)
        return model(pixel_values=data.scaled(pool.pictures[rows]), **inputs, return_loss=True).loss

    loop.train(model, loss, folder=folder, steps=STEPS, learning_rate=5e-4)
    size = {"height": 64, "width": 64}
    processor = CLIPProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        tokenizer,
    )
    model.to(torch.float16).save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")


def _model(tokenizer: Any, vision: dict[str, Any]) -> CLIPModel:
    config = CLIPConfig(
        vision_config={**vision, "projection_dim": 128},
        text_config={
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_attention_heads": 4,
            "num_hidden_layers": 3,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": tokens.PROMPT_LENGTH,
            "projection_dim": 128,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        projection_dim=128,
    )
    return CLIPModel(config)
