"""A reward model scores what it is given, whoever shares the batch, and is the same after it was saved."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
)

from visionprefer.errors import InputError
from visionprefer.reward.loss import summed_losses
from visionprefer.reward.vpscore import Scores, VPScore
from visionprefer.schema import ASPECTS

BACKBONES = ["tiny_blip", "tiny_clip"]


def pictures(count: int) -> list[Image.Image]:
    chance = np.random.default_rng(0)
    return [Image.fromarray(chance.integers(0, 255, (40, 40, 3), dtype=np.uint8)) for _ in range(count)]


def lively(folder: Path) -> VPScore:
    """With heads whose weights are large enough that scores differ."""
    model = VPScore.from_backbone(str(folder), seed=1)
    with torch.no_grad():
        for parameter in [*model.heads.parameters(), *model.doubt.parameters()]:
            parameter.normal_(std=0.3)
    return model.eval()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_score_depends_on_prompt_and_image_and_on_nothing_else(backbone: str, request: pytest.FixtureRequest) -> None:
    model = lively(request.getfixturevalue(backbone))
    first, second, third = pictures(3)
    prompts = ["a cat", "a dog", "a cat"]
    together = model.score(prompts, [first, second, third])
    alone = [model.score([prompt], [image])[0] for prompt, image in zip(prompts, [first, second, third], strict=True)]
    by_two = model.score(prompts, [first, second, third], batch_size=2)
    for one, other, another in zip(together, alone, by_two, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-4)
        assert one.aspects == pytest.approx(another.aspects, rel=1e-4)
    assert abs(together[0].score - together[2].score) > 1e-3  # another image
    assert abs(together[0].score - model.score(["a dog"], [first])[0].score) > 1e-3  # another prompt
    assert list(together[0].aspects) == list(ASPECTS)
    assert len({one.uncertainty for one in together}) == 3


@pytest.mark.parametrize("backbone", BACKBONES)
def test_what_was_saved_scores_the_same(backbone: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = lively(request.getfixturevalue(backbone))
    model.mean.copy_(torch.arange(5.0))
    model.std.fill_(2.0)
    model.save_pretrained(tmp_path / "model")
    again = VPScore.from_pretrained(tmp_path / "model")
    assert again.score(["a cat"] * 3, pictures(3)) == model.score(["a cat"] * 3, pictures(3))
    assert again.digest == VPScore.from_pretrained(tmp_path / "model").digest
    model.mean.fill_(0.0)
    model.save_pretrained(tmp_path / "other")
    assert VPScore.from_pretrained(tmp_path / "other").digest != again.digest


def test_scores_are_in_units_of_the_training_images(tiny_blip: Path) -> None:
    model = lively(tiny_blip)
    raw = model.score(["a cat"], pictures(1))[0]
    model.mean.fill_(0.5)
    model.std.fill_(4.0)
    scored = model.score(["a cat"], pictures(1))[0]
    assert scored.score == pytest.approx((raw.score - 0.5) / 4)
    assert scored.uncertainty == pytest.approx(raw.uncertainty / 4)


def test_the_chance_of_a_preference_is_what_the_loss_takes_it_for(tiny_blip: Path) -> None:
    model = VPScore.from_backbone(str(tiny_blip), scores=("overall",))
    model.mean.fill_(0.5)
    model.std.fill_(2.0)
    raw = Scores(torch.tensor([[2.0], [-1.0]]), torch.tensor([5.0, 3.0]))
    chance = model.preference(*model.normalised(raw))
    assert chance == pytest.approx(1 / (1 + np.exp(-1)))  # σ(3 / √(1 + 5 + 3))
    assert -np.log(chance) == pytest.approx(summed_losses(raw, {0: torch.tensor([[0, 1]])})[0].item())


def test_the_uncertainty_is_the_standard_deviation_of_a_noise_by_which_preferences_come_about(tiny_blip: Path) -> None:
    """Drawn with it, as many preferences come about as are foretold, to two hundredths: MacKay's approximation."""
    model = VPScore.from_backbone(str(tiny_blip), scores=("overall",))
    model.std.fill_(2.0)
    chance = np.random.default_rng(0)
    for difference, variance in ((1.0, 0.3), (3.0, 4.0), (0.5, 9.0)):
        one, other = model.normalised(Scores(torch.tensor([[difference], [0.0]]), torch.full((2,), variance)))
        first, second = (2 * chance.normal(said.score, said.uncertainty, 100_000) for said in (one, other))
        assert np.mean(1 / (1 + np.exp(second - first))) == pytest.approx(model.preference(one, other), abs=0.02)
        assert one.uncertainty == pytest.approx(np.sqrt(variance * 8 / np.pi) / 2)


@pytest.mark.parametrize(
    "kind",
    [BlipForImageTextRetrieval, BlipForQuestionAnswering, BlipForConditionalGeneration],
    ids=lambda kind: kind.__name__,
)
def test_every_blip_of_the_hub_can_be_the_backbone(kind: type, tiny_blip: Path, tmp_path: Path) -> None:
    """The features are those of the model's own encoder, whatever it is called there."""
    model = kind(BlipConfig.from_pretrained(tiny_blip))
    model.save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(tiny_blip).save_pretrained(tmp_path)
    mine = VPScore.from_backbone(str(tmp_path)).eval()
    text = model.text_decoder.bert if kind is BlipForConditionalGeneration else model.text_encoder
    ids, mask = mine.inputs.tokens(["a cat", "a green dog"])
    pixels = mine.inputs.normalised(mine.inputs.squares(pictures(2)))
    model.eval()
    with torch.inference_mode():
        image = model.vision_model(pixel_values=pixels).last_hidden_state
        expected = text(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=image,
            encoder_attention_mask=torch.ones(image.shape[:2], dtype=torch.long),
        ).last_hidden_state[:, 0]
        assert torch.allclose(mine.backbone(pixels, ids, mask), expected, atol=1e-5)


def test_prompts_and_images_come_in_pairs(tiny_blip: Path) -> None:
    with pytest.raises(ValueError, match="2 prompts and 1 images"):
        VPScore.from_backbone(str(tiny_blip)).score(["a cat", "a dog"], pictures(1))


def test_what_is_no_backbone_or_no_model_is_told(tiny_blip: Path, tiny_llava: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a llava model cannot be one"):
        VPScore.from_backbone(str(tiny_llava))
    with pytest.raises(InputError, match=r"no VP-Score at .*vpscore\.json is not there"):
        VPScore.from_pretrained(tiny_blip)
    VPScore.from_backbone(str(tiny_blip)).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot be loaded"):
        VPScore.from_pretrained(tmp_path)
