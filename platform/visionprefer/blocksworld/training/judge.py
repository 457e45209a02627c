"""The judge: a LLaVA that learns to see, then to say what is there and what follows, then to judge by the rubric."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from visionprefer.blocksworld import labels
from visionprefer.blocksworld.training import data, exchange, judge_data, loop, tokens, vision
from visionprefer.blocksworld.training.judge_data import Example
from visionprefer.blocksworld.training.redrawing import painter
from visionprefer.blocksworld.wording import understand, word
from visionprefer.judging.rubric import question
from visionprefer.random_models import TEMPLATE

SCHEDULE = ("caption", "quiz", "judgement", "judgement")  # what is learnt in turn, the first two alone at first
BASICS_FIRST = 1_500  # steps
STEPS = 7_000
BATCH = 16
FORMS = 0.5  # share of the captions that say how cleanly each shape is formed: the hardest to see
EXAMPLES = 40_000
PATCH = 8
PATCHES = (64 // PATCH) ** 2
WHAT_IS_THERE = "What is in the image, from left to right?"
HOW_CLEAN = "How cleanly is each shape formed, from left to right?"


def train(folder: Path, image_models: list[Path], seed: int) -> None:
    """Train the judge; the folder gets it in `model/`, with the checkpoint beside it.

    Args:
        folder: where everything goes.
        image_models: folders of pipelines that redraw pictures, so that the judge knows what image models do to shapes.
        seed: of the weights, the pictures and the batches.
    """
    torch.manual_seed(seed)
    processor = _processor()
    model = _model(processor.tokenizer)
    examples, pictures = judge_data.examples(EXAMPLES, seed, [painter(path) for path in image_models])
    vision.train(model.model.vision_tower, examples, pictures, folder / "vision", seed)

    def loss(step: int) -> torch.Tensor:
        chance = random.Random(f"{seed} {step}")
        kind = SCHEDULE[step % 4] if step >= BASICS_FIRST else SCHEDULE[step % 2]
        if kind == "quiz":  # what follows from what is there needs no picture
            return model(**exchange.inputs(processor, [judge_data.quiz(chance) for _ in range(2 * BATCH)])).loss
        rows = data.batch(BATCH if kind == "judgement" else 2 * BATCH, len(examples), step, seed)
        make = _judgement if kind == "judgement" else _caption
        inputs = exchange.inputs(processor, [make(examples[row], chance) for row in rows], PATCHES)
        return model(pixel_values=data.scaled(pictures[rows]), **inputs).loss

    loop.train(model, loss, folder=folder, steps=STEPS, learning_rate=1.2e-3, warm_up=300)
    save(model, processor, folder / "model")


def save(model: Any, processor: Any, folder: Path) -> None:
    """Write the judge in fp16, its weights under the names that the hub's LLaVAs have."""
    model.to(torch.float16).save_pretrained(folder)
    processor.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    named = {
        name.replace("vision_tower.", "vision_tower.vision_model.") if "vision_model" not in name else name: weight
        for name, weight in weights.items()
    }
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})


def _caption(example: Example, chance: random.Random) -> tuple[str, ...]:
    if chance.random() < FORMS:
        return HOW_CLEAN, "", example.fidelity.rationale
    return WHAT_IS_THERE, "", labels.seen(example.scene)


def _judgement(example: Example, chance: random.Random) -> tuple[str, ...]:
    wish = example.description
    if chance.random() < 0.4:
        wish = judge_data.other_wish(wish, chance)
    prompt = word(wish, chance)
    verdicts = {
        "prompt_following": labels.prompt_following(understand(prompt) or wish, example.scene),
        "aesthetic": example.aesthetic,
        "fidelity": example.fidelity,
        "harmlessness": example.harmlessness,
    }
    reply = {aspect: verdict.model_dump() for aspect, verdict in verdicts.items()}
    return question(prompt), "", json.dumps(reply)


def _processor() -> Any:
    size = {"height": 64, "width": 64}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 64}, crop_size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        tokenizer=tokens.judge_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def _model(tokenizer: Any) -> LlavaForConditionalGeneration:
    eyes = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=6,
        image_size=64,
        patch_size=PATCH,
    )
    language = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,  # of 32 dimensions each: vLLM's kernels for the CPU want a multiple of 32
        num_key_value_heads=4,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.1,  # from the usual 0.02 so narrow a model learns to look things up four times as slowly
    )
    config = LlavaConfig(
        vision_config=eyes,
        text_config=language,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=PATCHES,
        vision_feature_layer=-1,
    )
    return LlavaForConditionalGeneration(config)
