"""The judge: a LLaVA that first learns to reason and to see, each by itself, then to judge by what it sees."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from visionprefer.blocksworld import labels
from visionprefer.blocksworld.scenes import sample
from visionprefer.blocksworld.spoiler import spoil
from visionprefer.blocksworld.training import data, judge_data, loop, tokens, vision
from visionprefer.blocksworld.training.judge_data import Example
from visionprefer.blocksworld.training.redrawing import painter
from visionprefer.blocksworld.wording import understand, word
from visionprefer.judging.rubric import question
from visionprefer.random_models import TEMPLATE

LANGUAGE_STEPS = 6_000
CAPTIONS_FIRST = 1_500  # steps
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
    learn_language(model, processor, folder / "language", seed)
    examples, pictures = judge_data.examples(EXAMPLES, seed, [painter(path) for path in image_models])
    vision.train(model.model.vision_tower, examples, pictures, folder / "vision", seed)

    def loss(step: int) -> torch.Tensor:
        captions = (step % 4 == 0) != (step < CAPTIONS_FIRST)  # three of four steps, and later one
        rows = data.batch(BATCH * 2 if captions else BATCH, len(examples), step, seed)
        chance = random.Random(f"{seed} {step}")
        exchange = _caption if captions else _judgement
        inputs = _inputs(processor, [exchange(examples[row], chance) for row in rows])
        return model(pixel_values=data.scaled(pictures[rows]), **inputs).loss

    loop.train(model, loss, folder=folder, steps=STEPS, learning_rate=1.2e-3, warm_up=300)
    save(model, processor, folder / "model")


def learn_language(model: Any, processor: Any, folder: Path, seed: int) -> None:
    """Teach the language model what follows from what is there, on judgements without their pictures."""

    def loss(step: int) -> torch.Tensor:
        chance = random.Random(f"{seed} language {step}")
        wishes = [sample("training", chance) for _ in range(2 * BATCH)]
        texts = [_judgement(judge_data.example(wish, spoil(wish, chance)), chance) for wish in wishes]
        return model(**_inputs(processor, texts, image=False)).loss

    loop.train(model, loss, folder=folder, steps=LANGUAGE_STEPS, learning_rate=1.2e-3, warm_up=300)


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


def _caption(example: Example, chance: random.Random) -> tuple[str, str]:
    if chance.random() < FORMS:
        return HOW_CLEAN, example.fidelity.rationale
    return WHAT_IS_THERE, labels.seen(example.scene)


def _judgement(example: Example, chance: random.Random) -> tuple[str, str]:
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
    return question(prompt), json.dumps({aspect: verdict.model_dump() for aspect, verdict in verdicts.items()})


def _inputs(processor: Any, exchanges: list[tuple[str, str]], image: bool = True) -> dict[str, torch.Tensor]:
    """Questions with or without their image, as the processor writes them, and the replies that are learnt."""
    content = [{"type": "image"}, {"type": "text", "text": "@"}]
    form = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    form = form.replace("<image>", "<image>" * PATCHES if image else "")
    tokenizer = processor.tokenizer
    starts = [form.replace("@", asked) for asked, _ in exchanges]
    ends = [reply + tokenizer.eos_token for _, reply in exchanges]
    asked, replies = (tokenizer(texts).input_ids for texts in (starts, ends))
    length = max(len(a) + len(b) for a, b in zip(asked, replies, strict=True))
    shape = (len(exchanges), length)
    ids, labels_ = torch.full(shape, tokenizer.pad_token_id), torch.full(shape, -100)
    mask = torch.zeros(shape, dtype=torch.long)
    for row, (a, b) in enumerate(zip(asked, replies, strict=True)):
        ids[row, : len(a) + len(b)] = torch.tensor(a + b)
        labels_[row, len(a) : len(a) + len(b)] = torch.tensor(b)
        mask[row, : len(a) + len(b)] = 1
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels_}
    return {name: part.to(data.DEVICE) for name, part in inputs.items()}


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
    )
    config = LlavaConfig(
        vision_config=eyes,
        text_config=language,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=PATCHES,
        vision_feature_layer=-1,
    )
    return LlavaForConditionalGeneration(config)
