"""CLIP score and PickScore against what the published code computes with transformers' own processor."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from run_by_hand import picture
from transformers import AutoProcessor, CLIPModel

from visionprefer.errors import InputError
from visionprefer.imagebytes import open_image
from visionprefer.scorers.clip import load_clip, load_pickscore

PROMPTS = ["a red circle", "two blue squares, and a very long wish " * 5]


@pytest.fixture
def images() -> list[Image.Image]:
    # Of sizes whose crops are even: with one pixel more on one side, CLIP's own transform and transformers' differ.
    return [open_image(picture("a")).crop((0, 0, 64, 48)), open_image(picture("b")).resize((50, 100))]


def cosines(folder: Path, images: list[Image.Image]) -> list[float]:
    """Of image and prompt at the same place, each alone in its batch and without padding."""
    processor, model = AutoProcessor.from_pretrained(folder), CLIPModel.from_pretrained(folder).eval()
    found = []
    for prompt, image in zip(PROMPTS, images, strict=True):
        inputs = processor(text=[prompt], images=[image], truncation=True, max_length=77, return_tensors="pt")
        with torch.inference_mode():
            text = model.text_projection(model.text_model(input_ids=inputs.input_ids).pooler_output)[0]
            seen = model.visual_projection(model.vision_model(pixel_values=inputs.pixel_values).pooler_output)[0]
        found.append(float(text @ seen / (text.norm() * seen.norm())))
    return found


def test_the_clip_score_is_a_hundred_cosines(tiny_clip: Path, images: list[Image.Image]) -> None:
    scorer = load_clip(str(tiny_clip), device="cpu")
    expected = [100 * cosine for cosine in cosines(tiny_clip, images)]
    assert scorer.score(PROMPTS, images) == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert scorer.score([], []) == []
    scorer.batch_size = 1
    assert scorer.score(PROMPTS, images) == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert (scorer.name, scorer.judge) == ("clip", "tiny-clip")


def test_pickscore_scales_with_the_temperature_that_was_learnt(
    tiny_clip: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    model = CLIPModel.from_pretrained(tiny_clip)
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
    model.save_pretrained(tmp_path / "PickScore_v1")  # which is published without its processor's being meant
    scorer = load_pickscore(str(tmp_path / "PickScore_v1"), str(tiny_clip), device="cpu")
    expected = [20.085537 * cosine for cosine in cosines(tiny_clip, images)]  # e³
    assert scorer.score(PROMPTS, images) == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert scorer.name == "pickscore"


def test_the_digest_changes_with_what_a_score_depends_on(tiny_clip: Path, tmp_path: Path) -> None:
    same = shutil.copytree(tiny_clip, tmp_path / "same")
    assert load_clip(str(same)).digest == load_clip(str(tiny_clip)).digest
    assert load_pickscore(str(same), str(same)).digest != load_clip(str(same)).digest
    model = CLIPModel.from_pretrained(tiny_clip)
    torch.nn.init.normal_(model.visual_projection.weight)
    model.save_pretrained(same)
    assert load_clip(str(same)).digest != load_clip(str(tiny_clip)).digest


def test_what_is_no_clip_is_told(tiny_clip: Path, tiny_blip: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a blip model. Write the folder or hub id of a CLIP"):
        load_clip(str(tiny_blip))
    with pytest.raises(InputError, match=r"no such folder. Write the path of a model folder, or OWNER/NAME"):
        load_clip(str(tmp_path / "nothing here"))
    bare = shutil.copytree(tiny_clip, tmp_path / "bare", ignore=shutil.ignore_patterns("*token*", "*processor*"))
    with pytest.raises(InputError, match="has no CLIP processor that can be loaded"):
        load_clip(str(bare))
    (bare / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="cannot be loaded as a CLIP"):
        load_clip(str(bare), str(tiny_clip))
