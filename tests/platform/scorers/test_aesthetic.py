"""LAION's predictor in its published layout against plain matrix products."""

from pathlib import Path

import pytest
import torch
from run_by_hand import picture
from safetensors.torch import save_file
from transformers import AutoProcessor, CLIPModel

from visionprefer.errors import InputError
from visionprefer.imagebytes import open_image
from visionprefer.scorers.aesthetic import load_aesthetic

LAYERS = {0: (1024, 32), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}  # on a CLIP of width 32


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    chance = torch.Generator().manual_seed(0)
    found = {f"layers.{n}.weight": torch.randn(shape, generator=chance) * 0.2 for n, shape in LAYERS.items()}
    return found | {f"layers.{n}.bias": torch.randn(shape[0], generator=chance) for n, shape in LAYERS.items()}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_it_scores_as_published(weights: dict[str, torch.Tensor], tiny_clip: Path, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"sac+logos+ava1-l14-linearMSE{suffix}"
    torch.save(weights, file) if suffix == ".pth" else save_file(weights, file)
    images = [open_image(picture(name)) for name in "abc"]
    processor, clip = AutoProcessor.from_pretrained(tiny_clip), CLIPModel.from_pretrained(tiny_clip).eval()
    with torch.inference_mode():
        seen = clip.vision_model(**processor(images=images, return_tensors="pt")).pooler_output
        x = seen @ clip.visual_projection.weight.T
    x = x / x.norm(dim=1, keepdim=True)
    for n in LAYERS:
        x = x @ weights[f"layers.{n}.weight"].T + weights[f"layers.{n}.bias"]
    scorer = load_aesthetic(str(file), str(tiny_clip), device="cpu")
    assert scorer.score(["", "whatever it was to show", ""], images) == pytest.approx(x[:, 0].tolist(), rel=1e-4)
    assert scorer.judge == "sac+logos+ava1-l14-linearMSE on tiny-clip"


def test_what_is_no_such_predictor_is_told(weights: dict[str, torch.Tensor], tiny_clip: Path, tmp_path: Path) -> None:
    weights["layers.0.weight"] = torch.zeros(1024, 768)  # of the CLIP that it was published with
    torch.save(weights, tmp_path / "wide.pth")
    with pytest.raises(InputError, match=r"no LAION aesthetic predictor on embeddings of width 32: (.|\n)*Write sac"):
        load_aesthetic(str(tmp_path / "wide.pth"), str(tiny_clip))
    torch.save({"weight": torch.zeros(1, 768)}, tmp_path / "linear.pth")
    with pytest.raises(InputError, match="no LAION aesthetic predictor"):
        load_aesthetic(str(tmp_path / "linear.pth"), str(tiny_clip))
