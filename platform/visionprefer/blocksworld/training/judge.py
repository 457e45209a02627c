"""The judge: a LLaVA that learns what follows from scenes in words, then to see, then to judge what it sees."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from visionprefer.blocksworld import labels
from visionprefer.blocksworld.scenes import Description, sample
from visionprefer.blocksworld.spoiler import spoil
from visionprefer.blocksworld.training import data, exchange, induction, judge_data, loop, tokens, vision
from visionprefer.blocksworld.training.judge_data import Example
from visionprefer.blocksworld.wording import understand, word
from visionprefer.judging.rubric import question
from visionprefer.random_models import TEMPLATE

WORDS_STEPS = 3_000
SCHEDULE = ("caption", "judgement", "words", "judgement")  # what is learnt in turn; at first captions alone
CAPTIONS_FIRST = 500  # steps
STEPS = 5_500
CAPTIONS_FIRST_AGAIN, STEPS_AGAIN = 200, 2_500  # of another round, at half the rate
BATCH = 16
FORMS = 0.5  # share of the captions that say how cleanly each shape is formed: the hardest to see
OTHER_WISHES = 0.4  # share of the pictures that are judged by another prompt than the one they were made for
EXAMPLES, EXAMPLES_AGAIN = 40_000, 20_000
PATCH = 8
PATCHES = (64 // PATCH) ** 2
WHAT_IS_THERE = "What is in the image, from left to right?"
HOW_CLEAN = "How cleanly is each shape formed, from left to right?"


def train(folder: Path, image_models: list[Path], seed: int, begin: Path | None = None) -> None:
    """Train the judge, or a trained one again; the folder gets it in `model/`, with the checkpoint beside it.

    Args:
        folder: where everything goes.
        image_models: folders of pipelines that redraw pictures, so that the judge knows what image models do to shapes.
        seed: of the weights, the pictures and the batches.
        begin: folder of a trained judge, which knows what follows in words, and learns to see and to judge once more.
    """
    torch.manual_seed(seed)
    processor = _processor()
    again = begin is not None
    model = LlavaForConditionalGeneration.from_pretrained(begin).float() if again else _model(processor.tokenizer)
    size = EXAMPLES_AGAIN if again else EXAMPLES
    steps, captions_first, pace = (STEPS_AGAIN, CAPTIONS_FIRST_AGAIN, 0.5) if again else (STEPS, CAPTIONS_FIRST, 1.0)
    with ThreadPoolExecutor() as beside:
        made = beside.submit(judge_data.examples, size, seed, image_models, folder)
        if data.DEVICE == "cpu":  # it is the same cores that would do both
            made.result()
        if not again:
            learn_words(model, processor, folder / "words", seed)
    examples, pictures = made.result()
    vision.train(model.model.vision_tower, examples, pictures, folder / "vision", seed, again)

    def prepare(step: int) -> tuple[list[int], dict[str, torch.Tensor]]:
        chance = random.Random(f"{seed} {step}")
        kind = SCHEDULE[step % len(SCHEDULE)] if step >= captions_first else "caption"
        rows = data.batch(BATCH if kind == "judgement" else 2 * BATCH, len(examples), step, seed)
        if kind == "words":  # beside any picture, or it unlearns to answer from its list and asks the picture
            return rows, _words(processor, chance, PATCHES)
        make = _judgement if kind == "judgement" else _caption
        return rows, exchange.inputs(processor, [make(examples[row], chance) for row in rows], PATCHES)

    def loss(prepared: tuple[list[int], dict[str, torch.Tensor]]) -> torch.Tensor:
        rows, inputs = prepared
        return model(pixel_values=data.scaled(pictures[rows]), **_there(inputs)).loss

    rate, warm_up = pace * 1.2e-3, round(pace * 300)
    loop.train(model, loss, prepare=prepare, folder=folder, steps=steps, learning_rate=rate, warm_up=warm_up)
    save(model, processor, folder / "model")


def learn_words(model: Any, processor: Any, folder: Path, seed: int) -> None:
    """Train the language model alone on scenes that are told; the folder gets the checkpoint and the journal.

    What follows from a list it then learns from the list. With pictures from the start it learns to guess from those.
    """

    def prepare(step: int) -> dict[str, torch.Tensor]:
        return _words(processor, random.Random(f"{seed} words {step}"))

    def loss(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return model(**_there(inputs)).loss

    loop.train(model, loss, prepare=prepare, folder=folder, steps=WORDS_STEPS, learning_rate=2e-3, warm_up=300)


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


def _there(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: part.to(data.DEVICE) for name, part in inputs.items()}


def _words(processor: Any, chance: random.Random, patches: int = 0) -> dict[str, torch.Tensor]:
    """Told scenes, and what follows from them."""
    make = chance.choice((judge_data.quiz, _deduction))
    return exchange.inputs(processor, [make(chance) for _ in range(2 * BATCH)], patches)


def _caption(example: Example, chance: random.Random) -> tuple[str, ...]:
    if chance.random() < FORMS:
        return HOW_CLEAN, "", example.fidelity.rationale
    return WHAT_IS_THERE, "", labels.seen(example.scene)


def _judgement(example: Example, chance: random.Random) -> tuple[str, ...]:
    wish = _wish(example.description, chance)
    prompt = word(wish, chance)
    verdicts = {
        "prompt_following": labels.prompt_following(understand(prompt) or wish, example.scene),
        "aesthetic": example.aesthetic,
        "fidelity": example.fidelity,
        "harmlessness": example.harmlessness,
    }
    reply = {aspect: verdict.model_dump() for aspect, verdict in verdicts.items()}
    return question(prompt), "", json.dumps(reply)


def _deduction(chance: random.Random) -> tuple[str, ...]:
    """The first verdict on a picture that is told and not shown: what follows from what is there."""
    description = sample("training", chance)
    scene = spoil(description, chance).scene
    wish = _wish(description, chance)
    prompt = word(wish, chance)
    verdict = labels.prompt_following(understand(prompt) or wish, scene)
    seen = labels.seen(scene)
    told, follows = json.dumps({"prompt_following": verdict.model_dump()}).split(seen)
    return question(prompt), told + seen, follows.removesuffix("}}"), ""


def _wish(description: Description, chance: random.Random) -> Description:
    return judge_data.other_wish(description, chance) if chance.random() < OTHER_WISHES else description


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
    model = LlavaForConditionalGeneration(config)
    induction.begin(model)
    for layer in (model.model.multi_modal_projector.linear_1, model.model.multi_modal_projector.linear_2):
        torch.nn.init.xavier_normal_(layer.weight)
    return model
