"""A small BLIP, trained to match pictures with captions: contrastively, and by a head that sees both together.

Reference: BLIP (arXiv 2201.12086) section 3.2, the contrastive and the matching loss; the captions that do not fit are
descriptions changed in one or two things, beside the likeliest of the batch. Its eyes start as the judge's.
"""

import random
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy, normalize
from transformers import BlipConfig, BlipForImageTextRetrieval, BlipProcessor
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from visionprefer.blocksworld.training import data, eyes, loop, tokens
from visionprefer.blocksworld.training.judge_data import other_wish
from visionprefer.blocksworld.wording import word

STEPS = 3_000
BATCH = 24
SCENES = 40_000


class Matcher(torch.nn.Module):
    """What learns: the BLIP, and the temperature of its contrastive loss, which it does not keep."""

    def __init__(self, blip: BlipForImageTextRetrieval) -> None:
        super().__init__()
        self.blip = blip
        self.log_scale = torch.nn.Parameter(torch.tensor(2.66))

    def forward(self, pixels: torch.Tensor, true: Any, false: Any) -> torch.Tensor:
        """The loss on pictures [B, 3, 64, 64] with a caption that fits and one that does not."""
        blip = self.blip
        image = blip.vision_model(pixel_values=pixels).last_hidden_state
        text = blip.text_encoder(**true).last_hidden_state
        similarity = normalize(blip.vision_proj(image[:, 0]), dim=-1) @ normalize(blip.text_proj(text[:, 0]), dim=-1).T
        logits = similarity * self.log_scale.exp().clamp(max=100)
        target = torch.arange(len(pixels), device=pixels.device)
        contrast = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        likeliest = logits.detach().fill_diagonal_(-1e4).argmax(dim=1)
        pairs = [(true, target, 1), (false, target, 0), (true, likeliest, 0)]
        matching = [
            cross_entropy(self.match({k: v[rows] for k, v in caption.items()}, image), torch.full_like(target, fits))
            for caption, rows, fits in pairs
        ]
        return contrast + sum(matching) / len(matching)

    def match(self, caption: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        """Logits [B, 2] of not matching and matching."""
        seen = self.blip.text_encoder(
            **caption,
            encoder_hidden_states=image,
            encoder_attention_mask=torch.ones(image.shape[:2], dtype=torch.long, device=image.device),
        )
        return self.blip.itm_head(seen.last_hidden_state[:, 0])


def train(folder: Path, judge: Path, seed: int) -> None:
    """Train the BLIP; the folder gets it in `model/`, with the checkpoint beside it.

    Args:
        folder: where everything goes.
        judge: folder of the judge with whose eyes the BLIP starts.
        seed: of the weights, the pictures and the batches.
    """
    torch.manual_seed(seed)
    tokenizer = tokens.bert_tokenizer()
    pool = data.pool(SCENES, seed)
    tower = eyes.of_the_judge(judge)
    blip = _model(tokenizer, eyes.as_blip_config(tower))
    blip.vision_model = eyes.as_blip(tower, pool, folder / "eyes", seed)
    matcher = Matcher(blip)

    def loss(step: int) -> torch.Tensor:
        rows = data.batch(BATCH, SCENES, step, seed)
        chance = random.Random(f"{seed} {step}")
        wishes = [pool.descriptions[row] for row in rows]
        fitting = [word(wish, chance) for wish in wishes]
        others = [word(other_wish(wish, chance), chance) for wish in wishes]
        true, false = (_inputs(tokenizer, texts) for texts in (fitting, others))
        return matcher(data.scaled(pool.pictures[rows]), true, false)

    loop.train(matcher, loss, folder=folder, steps=STEPS, learning_rate=5e-4)
    size = {"height": 64, "width": 64}
    processor = BlipProcessor(BlipImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3), tokenizer)
    blip.to(torch.float16).save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")


def _inputs(tokenizer: Any, texts: list[str]) -> dict[str, torch.Tensor]:
    encoded = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").to(data.DEVICE)
    return {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}


def _model(tokenizer: Any, vision: dict[str, Any]) -> BlipForImageTextRetrieval:
    config = BlipConfig(
        vision_config=vision,
        text_config={
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_attention_heads": 4,
            "initializer_range": 0.08,  # so narrow a model learns to look things up many times sooner than from 0.02
            "encoder_hidden_size": vision["hidden_size"],
            "num_hidden_layers": 3,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 64,
            "bos_token_id": tokenizer.cls_token_id,
            "eos_token_id": tokenizer.sep_token_id,
            "sep_token_id": tokenizer.sep_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        projection_dim=128,
        image_text_hidden_size=128,
    )
    return BlipForImageTextRetrieval(config)
