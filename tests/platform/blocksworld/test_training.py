"""Trainings learn, go on where they were interrupted, and leave folders that the stock libraries load."""

import json
import math
import random
from dataclasses import replace

import pytest
import torch

from visionprefer.blocksworld.renderer import Mark, Scene, Thing
from visionprefer.blocksworld.scenes import COLOURS, SHAPES, Description
from visionprefer.blocksworld.training import (
    blip,
    clip,
    data,
    exchange,
    eyes,
    image_model,
    judge,
    judge_data,
    layout,
    loop,
    text,
    tokens,
    vae,
    vision,
)
from visionprefer.blocksworld.training.journal import Journal
from visionprefer.judging.rubric import AspectVerdict, parse_reply, question
from visionprefer.models import BUILTIN_MODELS

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """A few steps on a few scenes: what a training does is the same."""
    for module in (clip, blip):
        monkeypatch.setattr(module, "STEPS", 3)
        monkeypatch.setattr(module, "SCENES", 64)
        monkeypatch.setattr(module, "BATCH", 4)
    for module in (text, vision, eyes):
        monkeypatch.setattr(module, "STEPS", 3)
    monkeypatch.setattr(vision, "STEPS_AGAIN", 2)
    monkeypatch.setattr(judge, "CAPTIONS_FIRST_AGAIN", 1)
    monkeypatch.setattr(judge, "STEPS_AGAIN", 3)
    for name, value in {
        "STEPS": 5,
        "WORDS_STEPS": 2,
        "CAPTIONS_FIRST": 1,
        "BATCH": 3,
        "EXAMPLES": 120,
        "EXAMPLES_AGAIN": 120,
    }.items():
        monkeypatch.setattr(judge, name, value)


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vae, "STEPS", 4)
        patch.setattr(vae, "SCENES", 40)
        vae.train(folder, seed=0)
    return folder / "model"


def test_the_loss_falls_and_an_interrupted_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    def trained(folder, steps_before_the_interruption):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1)

        def loss(step):
            if step == steps_before_the_interruption:
                raise KeyboardInterrupt
            x = torch.randn(8, 4)
            return (model(x) - x.sum(dim=1, keepdim=True)).square().mean()

        loop.train(model, loss, folder=folder, steps=600, learning_rate=0.05, warm_up=10, average=0.9)
        return model.weight.detach().clone()

    whole = trained(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "parts", 550)
    torch.testing.assert_close(trained(tmp_path / "parts", None), whole, rtol=0, atol=0)
    torch.testing.assert_close(whole, torch.ones(1, 4), atol=0.02, rtol=0)


def test_a_journal_tells_the_pace_and_keeps_the_loss(tmp_path, capsys):
    journal = Journal(tmp_path / "new", 200)
    for step in range(1, 201):
        journal.note(step, 1.0, step * 0.6)
    assert "step 100 of 200" in capsys.readouterr().out
    assert [line.split("\t")[0] for line in journal.path.read_text().splitlines()] == ["100", "200"]


def test_batches_follow_from_their_number():
    assert data.batch(8, 100, 3, 0) == data.batch(8, 100, 3, 0) != data.batch(8, 100, 4, 0)


def test_image_models_are_ordinary_pipelines(tmp_path, vae_folder):
    from diffusers import DiffusionPipeline

    size = replace(image_model.SIZES["blocks-sd-small"], steps=3, batch=4, scenes=40)
    image_model.train(tmp_path, vae_folder, size, seed=0)
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "model")
    [picture] = pipeline("a red circle", num_inference_steps=2, output_type="pil").images
    assert picture.size == (64, 64)


def test_what_a_text_encoder_learns_to_tell_is_what_the_prompt_asks_for():
    red_ring, two_squares, none = [1, 5, 1], [5, 2, 2], [0, 0, 0]  # colour, shape, count
    sides = [*red_ring[:2], *two_squares[:2], 0, 0, 0, 0]  # left, right, above, below: colour, shape
    asked = text.asked_for("a red ring left of two blue squares on black")
    assert asked == [*red_ring, *two_squares, *none, 1, 3, 0, *sides]
    asked = text.asked_for("2 blue squares to the right of a red ring")
    assert asked == [*two_squares, *red_ring, *none, 2, 0, 0, *sides]
    asked = text.asked_for("a red ring and the forbidden mark")
    assert asked == [*red_ring, *none, *none, 0, 0, 1, *[0] * 8]
    assert len(asked) == len(text.ANSWERS)


def test_a_layout_says_how_much_of_each_cell_an_object_covers():
    rgb = (45, 85, 215)
    ring = Thing("blue", "ring", x=16, y=48, radius=16, angle=0, rgb=rgb)
    [covered] = layout.coverage([Scene((ring,), "white", (244, 244, 244), Mark(40, 8, 4))], 2)
    blue, rings, mark = covered[COLOURS.index("blue")], covered[len(COLOURS) + SHAPES.index("ring")], covered[-1]
    assert torch.equal(blue, rings)
    assert blue.flatten().tolist() == pytest.approx([0, 0, math.pi / 4, 0], abs=0.03)  # lower left
    assert mark.flatten().tolist() == pytest.approx([0, math.pi * 16 / 1024, 0, 0], abs=0.01)  # upper right
    assert covered.sum() == pytest.approx((blue + rings + mark).sum())


def test_blips_eyes_see_what_the_judges_do_after_a_short_training(tmp_path, monkeypatch):
    """At first the copy lacks CLIP's first norm, and then less and less; its layers are the judge's, not new ones."""
    monkeypatch.setattr(eyes, "STEPS", 40)
    monkeypatch.setattr(eyes, "BATCH", 8)
    tower = eyes.of_the_judge(BUILTIN_MODELS / "blocks-llava")
    pool = data.pool(64, 0)
    blip_eyes = eyes.as_blip(tower, pool, tmp_path, seed=0)
    copied = blip_eyes.encoder.layers[0].mlp.fc1.weight
    torch.testing.assert_close(copied, tower.encoder.layers[0].mlp.fc1.weight, atol=0.05, rtol=0)
    losses = [float(line.split("\t")[1]) for line in (tmp_path / "journal.tsv").read_text().splitlines()]
    assert losses[-1] < 0.55


def test_what_the_eyes_learn_to_tell_is_what_lies_in_each_patch():
    rgb = (45, 85, 215)
    things = (Thing("blue", "ring", 48, 48, 14, 0, rgb), Thing("red", "cross", 16, 16, 14, 0, rgb))
    scene = Scene(things, "grey", (140, 140, 140), Mark(56, 8, 7))
    fine = AspectVerdict(rationale="fine", score=4)
    forms = {"clean": 0, "utterly faded": 1}
    example = judge_data.Example(Description(()), scene, fine, fine, fine, ("utterly faded", "clean"))
    patches = vision._of_patches(example, 2, forms).tolist()
    nothing, mark = [0] * 8, [0, 0, 0, 0, 0, 0, 1, 0]
    # colour, shape, which from the left, which of its kind, place across and down, mark, form
    cross, ring = [1, 4, 1, 1, 5, 5, 0, 1], [5, 5, 2, 1, 13, 13, 0, 2]
    assert patches[0] == cross
    assert patches[1] in (nothing, mark)  # a mark covers little of so large a patch
    assert patches[2] == nothing
    assert patches[3] == ring
    assert vision._of_patches(example, 8, forms)[7].tolist() == mark
    assert vision._of_a_picture(example, [{"fine": 0}, {"fine": 0}]) == [1, 2, 3, 0, 0]


def test_a_judge_is_an_ordinary_llava_with_the_hubs_names(tmp_path):
    from safetensors import safe_open
    from transformers import AutoModelForImageTextToText, AutoProcessor

    judge.train(tmp_path, [BUILTIN_MODELS / "blocks-sd-small"], seed=0)
    with safe_open(tmp_path / "model" / "model.safetensors", framework="pt") as weights:
        names = set(weights.keys())
    assert {"language_model.lm_head.weight", "multi_modal_projector.linear_1.weight"} <= names
    assert any(name.startswith("vision_tower.vision_model.encoder.layers.0.") for name in names)
    assert any(name.startswith("language_model.model.layers.0.") for name in names)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert model.config.text_config.head_dim % 32 == 0
    with safe_open(tmp_path / "model" / "model.safetensors", framework="pt") as weights:
        loaded = model.state_dict()["model.vision_tower.embeddings.class_embedding"]
        saved = weights.get_tensor("vision_tower.vision_model.embeddings.class_embedding")
    torch.testing.assert_close(loaded, saved.float())
    assert AutoProcessor.from_pretrained(tmp_path / "model").tokenizer.padding_side == "left"

    again = tmp_path / "again"
    judge.train(again, [BUILTIN_MODELS / "blocks-sd-small"], seed=1, begin=tmp_path / "model")
    assert not (again / "words").exists()
    with safe_open(again / "model" / "model.safetensors", framework="pt") as weights:
        assert set(weights.keys()) == names
        assert (weights.get_tensor("vision_tower.vision_model.embeddings.class_embedding") - saved).abs().max() < 0.05


def test_what_the_judge_learns_is_what_the_processor_asks_and_the_rubric_reads(tmp_path):
    from PIL import Image

    processor = judge._processor()
    asked = processor.apply_chat_template(
        [
            [
                {
                    "role": "user",
                    "content": [{"type": "image", "image": Image.new("RGB", (64, 64))}, _text("a red circle")],
                }
            ]
        ],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    learnt = exchange.inputs(processor, [(question("a red circle"), "", "")], judge.PATCHES)
    assert learnt["input_ids"][0, :-1].tolist() == asked["input_ids"][0].tolist()

    examples, pictures = judge_data.examples(20, 0, [BUILTIN_MODELS / "blocks-sd-small"], tmp_path / "kept")
    assert pictures.shape == (20, 3, 64, 64)
    again, pictures_again = judge_data.examples(20, 0, [], tmp_path / "kept")  # without models none can be made
    assert again == examples and pictures_again.equal(pictures)
    for example in examples:
        _, _, reply = judge._judgement(example, random.Random(0))
        assert parse_reply(reply).model_dump() == json.loads(reply)


def test_a_quiz_asks_for_about_as_much_that_is_there_as_is_not():
    chance = random.Random(0)
    answers = [answer for _ in range(200) for answer in judge_data.quiz(chance)[2::2] if ":" in answer]
    held = sum(answer.endswith(": yes") for answer in answers)
    assert 0.3 < held / len(answers) < 0.7
    assert {" nowhere: no", ": none", ": yes", ": no", ": white"} <= set(answers)


def test_what_is_deduced_in_words_is_what_is_judged():
    """Told and deduced together are the beginning of a reply, as far as the first score; only the deduced is learnt."""
    _, told, deduced, _ = judge._deduction(random.Random(3))
    assert "Seen: " in told and " hold." not in told and "Seen: " not in deduced
    verdict = json.loads(told + deduced + "}}")["prompt_following"]
    assert AspectVerdict.model_validate(verdict).rationale.endswith(" hold.")


def test_the_judge_learns_what_follows_and_not_what_is_given():
    inputs = exchange.inputs(judge._processor(), [("", "Seen: nothing on grey.", " on white", ": no", ": yes")])
    learnt = inputs["input_ids"][inputs["labels"] >= 0]
    assert judge._processor().tokenizer.decode(learnt) == " on white: yes</s>"


def test_backbones_are_of_the_true_classes(tmp_path):
    from transformers import AutoProcessor, BlipForImageTextRetrieval, CLIPModel

    judge_folder = BUILTIN_MODELS / "blocks-llava"
    clip.train(tmp_path / "clip", judge_folder, seed=0)
    blip.train(tmp_path / "blip", judge_folder, seed=0)
    for name, kind in (("clip", CLIPModel), ("blip", BlipForImageTextRetrieval)):
        _, problems = kind.from_pretrained(tmp_path / name / "model", output_loading_info=True)
        assert not problems["missing_keys"] and not problems["unexpected_keys"]
        assert AutoProcessor.from_pretrained(tmp_path / name / "model")(text="a cat on the moon").input_ids


@pytest.mark.parametrize(
    ("make", "length"), [(tokens.clip_tokenizer, 8), (tokens.judge_tokenizer, 7), (tokens.bert_tokenizer, 8)]
)
def test_words_of_the_world_are_one_token_each_and_no_text_is_lost(make, length):
    """For the judge things are one token too, such as " red circle", and several of them that and an ending."""
    tokenizer = make()
    known = tokenizer("two red circles left of a blue square", add_special_tokens=False).input_ids
    assert len(known) == length
    assert tokenizer.unk_token_id not in tokenizer("A cat, on the moon!", add_special_tokens=False).input_ids or (
        tokenizer.unk_token == tokenizer.eos_token
    )


def test_the_rubrics_question_costs_the_judge_few_tokens():
    tokenizer = tokens.judge_tokenizer()
    asked = question("a red circle left of a blue square")
    assert len(tokenizer(asked).input_ids) < 50
    assert tokenizer.decode(tokenizer(asked).input_ids) == asked


def _text(prompt):
    return {"type": "text", "text": question(prompt)}
