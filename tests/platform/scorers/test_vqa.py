"""VQA score: the chances of yes and no against plain forward passes of models of the true classes."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from run_by_hand import picture
from transformers import (
    AutoProcessor,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipForQuestionAnswering,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from visionprefer.errors import InputError
from visionprefer.imagebytes import open_image
from visionprefer.random_backbones import letters_tokenizer
from visionprefer.random_models import clip_tokenizer
from visionprefer.scorers.vqa import Answer, load_vqa, read_questions

QUESTIONS = {"a red circle": ["Is there a circle?", "Is the circle red?", "Is it alone?"], "nothing asked": []}


@pytest.fixture
def images() -> list[Image.Image]:
    return [open_image(picture(name)) for name in "abc"]


def chances(logits: torch.Tensor, yes: set[int], no: set[int]) -> Answer:
    given = logits.double().softmax(dim=-1)
    return Answer(*(sum(float(given[token]) for token in tokens) for tokens in (yes, no)))


def of_llava(folder: Path, image: Image.Image, question: str) -> Answer:
    """One forward pass over one conversation, as the chat template writes it."""
    processor, model = AutoProcessor.from_pretrained(folder), LlavaForConditionalGeneration.from_pretrained(folder)
    text = f"user: <image>\n{question}\nassistant: "
    inputs = processor(images=image, text=text, return_tensors="pt")
    with torch.inference_mode():
        logits = model.eval()(**inputs).logits[0, -1]
    return chances(logits, *first_tokens(processor.tokenizer))


def first_tokens(tokenizer: Any) -> tuple[set[int], set[int]]:
    """With which an answer of yes, and one of no, may begin, if it begins so at all and not with a blank alone."""
    yes, no = ("yes", "Yes", " yes", " Yes"), ("no", "No", " no", " No")
    first = [{tokenizer.encode(word, add_special_tokens=False)[0] for word in words} for words in (yes, no)]
    return first[0] - first[1], first[1] - first[0]


def test_the_prompt_is_a_question_and_its_score_the_chance_of_yes(tiny_llava: Path, images: list[Image.Image]) -> None:
    scorer = load_vqa(str(tiny_llava), device="cpu")
    prompts = ["a red circle", "a wish", "two blue squares left of one another"]
    asked = [f'Does this figure show "{prompt}"? Please answer yes or no.' for prompt in prompts]
    expected = [of_llava(tiny_llava, image, text).yes for image, text in zip(images, asked, strict=True)]
    assert scorer.score(prompts, images) == pytest.approx(expected, rel=1e-3)
    scorer.batch_size = 2  # of which one is padded
    assert scorer.score(prompts, images) == pytest.approx(expected, rel=1e-3)
    assert (scorer.name, scorer.judge) == ("vqa", "tiny-llava")


def test_with_questions_the_score_is_the_share_answered_yes(
    tiny_llava: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    (tmp_path / "questions.json").write_text(json.dumps(QUESTIONS))
    scorer = load_vqa(str(tiny_llava), str(tmp_path / "questions.json"), device="cpu")
    answers = [
        of_llava(tiny_llava, images[0], f"Question: {question} Choices:['yes','no'] Answer:")
        for question in QUESTIONS["a red circle"]
    ]
    share = sum(answer.yes > answer.no for answer in answers) / 3
    found = scorer.score(["a red circle", "nothing asked", "unheard of"], images)
    assert found[0] == pytest.approx(share)
    assert math.isnan(found[1])
    assert math.isnan(found[2])
    assert scorer.digest != load_vqa(str(tiny_llava), device="cpu").digest


def test_blip_answers_with_a_decoder_of_its_own(tiny_blip: Path, images: list[Image.Image], tmp_path: Path) -> None:
    tokenizer, processor = letters_tokenizer(), AutoProcessor.from_pretrained(tiny_blip)
    config = BlipForQuestionAnswering.config_class.from_pretrained(tiny_blip)
    torch.manual_seed(0)
    BlipForQuestionAnswering(config).save_pretrained(tmp_path / "blip-vqa")
    processor.save_pretrained(tmp_path / "blip-vqa")
    model = BlipForQuestionAnswering.from_pretrained(tmp_path / "blip-vqa").eval()
    texts = ["Is it red?", "Is there more?"]
    expected = []
    for image, text in zip(images[:2], texts, strict=True):
        inputs = processor(images=image, text=text, return_tensors="pt")
        with torch.inference_mode():
            seen = model.vision_model(inputs.pixel_values).last_hidden_state
            read = model.text_encoder(inputs.input_ids, encoder_hidden_states=seen).last_hidden_state
            start = torch.tensor([[model.decoder_start_token_id]])
            logits = model.text_decoder(start, encoder_hidden_states=read, is_decoder=True).logits[0, -1]
        yes, no = ({tokenizer.convert_tokens_to_ids(letter)} for letter in "yn")  # the tokenizer lowers capitals
        expected.append(chances(logits, yes, no))
    found = load_vqa(str(tmp_path / "blip-vqa"), device="cpu").answers(images[:2], texts)
    assert [tuple(one) for one in found] == [pytest.approx(tuple(one), rel=1e-3) for one in expected]


def test_blip_2_reads_the_question_as_it_is_without_a_chat(images: list[Image.Image], tmp_path: Path) -> None:
    """BLIP-2 on a T5, as AGFSync asked."""
    model, processor = blip_2()
    model.save_pretrained(tmp_path / "blip-2")
    processor.save_pretrained(tmp_path / "blip-2")
    texts = ["Is it red?", "Is there anything more?"]
    expected = []
    for image, text in zip(images[:2], texts, strict=True):
        inputs = processor(images=image, text=text, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**inputs, decoder_input_ids=torch.tensor([[0]])).logits[0, -1]
        expected.append(chances(logits, *first_tokens(processor.tokenizer)))
    found = load_vqa(str(tmp_path / "blip-2"), device="cpu").answers(images[:2], texts)
    assert [tuple(one) for one in found] == [pytest.approx(tuple(one), rel=1e-3) for one in expected]


def blip_2() -> tuple[Any, Any]:
    end = dict.fromkeys(("pad_token", "eos_token", "unk_token"), "<|endoftext|>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=clip_tokenizer().backend_tokenizer, **end)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Blip2Config(
        vision_config={**small, "image_size": 32, "patch_size": 8},
        qformer_config={**small, "vocab_size": 8, "encoder_hidden_size": 32},
        text_config={
            "model_type": "t5",
            "architectures": ["T5ForConditionalGeneration"],
            "vocab_size": len(tokenizer),
            "d_model": 32,
            "d_kv": 16,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 2,
            "decoder_start_token_id": 0,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(config).eval()
    size = {"height": 32, "width": 32}
    return model, Blip2Processor(BlipImageProcessorPil(size=size), tokenizer, num_query_tokens=4)


def test_questions_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    file = tmp_path / "questions.json"
    with pytest.raises(InputError, match=r"no questions can be read there: .* Write a JSON object"):
        read_questions(file)
    for text, told in (
        ("[]", "holds no questions by prompt"),
        ("{}", "holds no questions by prompt"),
        ("{", "no questions can be read there"),
        ('{"a cat": "Is it a cat?"}', "what stands under 'a cat' is no list of questions"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=told):
            read_questions(file)
    file.write_text(json.dumps(QUESTIONS))
    assert read_questions(file) == QUESTIONS


def test_what_answers_no_questions_is_told(tiny_clip: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded as a model that answers questions"):
        load_vqa(str(tiny_clip))
