"""A checkpoint in open_clip's layout scores as a computation apart from transformers says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_weights import RandomWeights
from run_by_hand import picture
from torch.nn.functional import conv2d, gelu, layer_norm, linear, normalize, scaled_dot_product_attention

from visionprefer.errors import InputError
from visionprefer.imagebytes import open_image
from visionprefer.random_models import clip_tokenizer
from visionprefer.scorers.hpsv2 import load_hpsv2, padded

WIDTH, DEEP, LAYERS, PATCH, PATCHES, DIMENSION = 160, 128, 2, 8, 16, 32  # two heads in each encoder
WORDS, LENGTH = len(clip_tokenizer()), 77

Weights = dict[str, torch.Tensor]


@pytest.fixture
def weights() -> Weights:
    """Random weights by their published names."""
    found = RandomWeights()
    add, layer, norm = found.add, found.layer, found.norm
    found["logit_scale"] = torch.tensor(4.6)
    for encoder, width in (("visual.transformer", WIDTH), ("transformer", DEEP)):
        for n in range(LAYERS):
            block = f"{encoder}.resblocks.{n}"
            norm(f"{block}.ln_1", width)
            norm(f"{block}.ln_2", width)
            add(f"{block}.attn.in_proj_weight", 3 * width, width)
            add(f"{block}.attn.in_proj_bias", 3 * width)
            layer(f"{block}.attn.out_proj", width, width)
            layer(f"{block}.mlp.c_fc", 4 * width, width)
            layer(f"{block}.mlp.c_proj", width, 4 * width)
    add("visual.class_embedding", WIDTH)
    add("visual.positional_embedding", PATCHES + 1, WIDTH)
    add("visual.conv1.weight", WIDTH, 3, PATCH, PATCH)
    norm("visual.ln_pre", WIDTH)
    norm("visual.ln_post", WIDTH)
    add("visual.proj", WIDTH, DIMENSION)
    add("token_embedding.weight", WORDS, DEEP)
    add("positional_embedding", LENGTH, DEEP)
    norm("ln_final", DEEP)
    add("text_projection", DEEP, DIMENSION)
    return dict(found)


def published(w: Weights, pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The cosines of N images and their prompts: both encoders pre-norm, the prompt read at its last word."""

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def blocks(encoder: str, x: torch.Tensor, head: int, causal: bool) -> torch.Tensor:
        for n in range(LAYERS):
            block = f"{encoder}.resblocks.{n}"
            stacked = linear(
                norm(f"{block}.ln_1", x), w[f"{block}.attn.in_proj_weight"], w[f"{block}.attn.in_proj_bias"]
            )
            q, k, v = (part.unflatten(-1, (-1, head)).transpose(1, 2) for part in stacked.chunk(3, dim=-1))
            seen = scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)
            x = x + linear(seen, w[f"{block}.attn.out_proj.weight"], w[f"{block}.attn.out_proj.bias"])
            inner = gelu(linear(norm(f"{block}.ln_2", x), w[f"{block}.mlp.c_fc.weight"], w[f"{block}.mlp.c_fc.bias"]))
            x = x + linear(inner, w[f"{block}.mlp.c_proj.weight"], w[f"{block}.mlp.c_proj.bias"])
        return x

    x = conv2d(pixels, w["visual.conv1.weight"], stride=PATCH).flatten(2).mT
    x = torch.cat([w["visual.class_embedding"].expand(len(x), 1, -1), x], dim=1) + w["visual.positional_embedding"]
    x = blocks("visual.transformer", norm("visual.ln_pre", x), 80, causal=False)
    image = norm("visual.ln_post", x[:, 0]) @ w["visual.proj"]
    t = w["token_embedding.weight"][ids] + w["positional_embedding"]
    t = norm("ln_final", blocks("transformer", t, 64, causal=True))
    text = t[torch.arange(len(t)), ids.argmax(dim=1)] @ w["text_projection"]
    return (normalize(image) * normalize(text)).sum(dim=1)


@pytest.mark.parametrize("trained_on_several", [False, True])
def test_it_scores_as_published(weights: Weights, tiny_clip: Path, trained_on_several: bool, tmp_path: Path) -> None:
    prefix = "module." if trained_on_several else ""
    file = tmp_path / "HPS_v2_compressed.pt"
    torch.save({"epoch": 1, "state_dict": {prefix + name: weight for name, weight in weights.items()}}, file)
    scorer = load_hpsv2(str(file), str(tiny_clip), device="cpu")
    prompts, sides = ["a red circle", "two blue squares and a long wish " * 4], (64, 32)
    images = [open_image(picture(f"{side}")).resize((side, side)) for side in sides]

    ids = torch.zeros(2, LENGTH, dtype=torch.int64)  # open_clip pads with zeros
    for row, prompt in zip(ids, prompts, strict=True):
        words = clip_tokenizer()(prompt, truncation=True, max_length=LENGTH).input_ids
        row[: len(words)] = torch.tensor(words)
    small = [np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)) for image in images]
    pixels = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2) / 255
    mean, std = (
        torch.tensor(of).view(3, 1, 1) for of in (scorer.inputs.sizes.image_mean, scorer.inputs.sizes.image_std)
    )
    expected = published(weights, (pixels - mean) / std, ids).tolist()
    assert abs(expected[0] - expected[1]) > 0.01
    assert scorer.score(prompts, images) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    wide = images[0].crop((0, 0, 64, 40))
    assert scorer.score(prompts[:1], [wide]) == pytest.approx(scorer.score(prompts[:1], [padded(wide, 32)]))
    assert (scorer.name, scorer.judge) == ("hpsv2", "HPS_v2_compressed")


def test_images_are_padded_to_squares() -> None:
    wide = Image.new("RGB", (100, 50), "white")
    square = np.asarray(padded(wide, 20))
    assert square.shape == (20, 20, 3)
    assert (square[5:15] == 255).all()
    assert (square[:5] == 0).all()
    assert (square[15:] == 0).all()
    assert padded(Image.new("L", (1, 400)), 20).size == (20, 20)


def test_what_is_no_such_checkpoint_is_told(weights: Weights, tiny_clip: Path, tmp_path: Path) -> None:
    file = tmp_path / "HPS_v2.1_compressed.pt"

    def load(held: Weights) -> None:
        torch.save({"state_dict": held}, file)
        load_hpsv2(str(file), str(tiny_clip))

    with pytest.raises(InputError, match="no checkpoint of HPS v2 in open_clip's layout: it has no weight"):
        load({"weight": torch.zeros(1)})
    with pytest.raises(InputError, match=r"it lacks \[\] and has also \['extra'\]"):
        load(weights | {"extra": torch.zeros(1)})
    with pytest.raises(InputError, match="no checkpoint of HPS v2"):
        load(weights | {"visual.proj": torch.zeros(WIDTH + 1, DIMENSION)})
    del weights["transformer.resblocks.1.attn.out_proj.bias"]
    with pytest.raises(InputError, match=r"it lacks \['text_model.encoder.layers.1.self_attn.out_proj.bias'\]"):
        load(weights)
