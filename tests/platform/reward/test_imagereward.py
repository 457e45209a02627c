"""A checkpoint in ImageReward's layout scores as a computation apart from its names and papers says."""

from pathlib import Path

import pytest
import torch
from random_weights import RandomWeights
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from visionprefer.errors import InputError
from visionprefer.random_backbones import letters_tokenizer
from visionprefer.reward.imagereward import MEAN, STD, load_imagereward
from visionprefer.reward.vpscore import VPScore

WIDTH, LAYERS, WORDS, PATCH, PATCHES, DEEP = 128, 2, 195, 8, 16, 64

Weights = dict[str, torch.Tensor]


@pytest.fixture
def weights() -> Weights:
    """Random weights by their published names: a ViT of width 128, a BERT of width 64."""
    found = RandomWeights()
    add, layer, norm = found.add, found.layer, found.norm
    eyes, words = "blip.visual_encoder", "blip.text_encoder"
    add(f"{eyes}.cls_token", 1, 1, WIDTH)
    add(f"{eyes}.pos_embed", 1, PATCHES + 1, WIDTH)
    add(f"{eyes}.patch_embed.proj.weight", WIDTH, 3, PATCH, PATCH)
    add(f"{eyes}.patch_embed.proj.bias", WIDTH)
    for n in range(LAYERS):
        block = f"{eyes}.blocks.{n}"
        norm(f"{block}.norm1", WIDTH)
        norm(f"{block}.norm2", WIDTH)
        layer(f"{block}.attn.qkv", 3 * WIDTH, WIDTH)
        layer(f"{block}.attn.proj", WIDTH, WIDTH)
        layer(f"{block}.mlp.fc1", 2 * WIDTH, WIDTH)
        layer(f"{block}.mlp.fc2", WIDTH, 2 * WIDTH)
    norm(f"{eyes}.norm", WIDTH)
    add(f"{words}.embeddings.word_embeddings.weight", WORDS, DEEP)
    add(f"{words}.embeddings.position_embeddings.weight", 64, DEEP)
    norm(f"{words}.embeddings.LayerNorm", DEEP)
    found[f"{words}.embeddings.position_ids"] = torch.arange(64).unsqueeze(0)
    for n in range(LAYERS):
        block = f"{words}.encoder.layer.{n}"
        for kind, width in (("attention", DEEP), ("crossattention", WIDTH)):
            layer(f"{block}.{kind}.self.query", DEEP, DEEP)
            layer(f"{block}.{kind}.self.key", DEEP, width)
            layer(f"{block}.{kind}.self.value", DEEP, width)
            layer(f"{block}.{kind}.output.dense", DEEP, DEEP)
            norm(f"{block}.{kind}.output.LayerNorm", DEEP)
        layer(f"{block}.intermediate.dense", 2 * DEEP, DEEP)
        layer(f"{block}.output.dense", DEEP, 2 * DEEP)
        norm(f"{block}.output.LayerNorm", DEEP)
    for place, (into, out) in zip(
        (0, 2, 4, 6, 7), ((1024, DEEP), (128, 1024), (64, 128), (16, 64), (1, 16)), strict=True
    ):
        layer(f"mlp.layers.{place}", into, out)
    return dict(found)


def published(w: Weights, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """BLIP's ViT (pre-norm) and BERT (post-norm, attending to the image in each layer), then the head: [N]."""

    def dense(name: str, x: torch.Tensor) -> torch.Tensor:
        return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
        return layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
        q, k, v = (x.unflatten(-1, (-1, 64)).transpose(1, 2) for x in (q, k, v))
        return scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)

    eyes, words = "blip.visual_encoder", "blip.text_encoder"
    proj = f"{eyes}.patch_embed.proj"
    x = torch.nn.functional.conv2d(pixels, w[f"{proj}.weight"], w[f"{proj}.bias"], stride=PATCH).flatten(2).mT
    x = torch.cat([w[f"{eyes}.cls_token"].expand(len(x), -1, -1), x], dim=1) + w[f"{eyes}.pos_embed"]
    for n in range(LAYERS):
        block = f"{eyes}.blocks.{n}"
        qkv = dense(f"{block}.attn.qkv", norm(f"{block}.norm1", x, 1e-6)).chunk(3, dim=-1)
        x = x + dense(f"{block}.attn.proj", attend(*qkv))
        x = x + dense(f"{block}.mlp.fc2", gelu(dense(f"{block}.mlp.fc1", norm(f"{block}.norm2", x, 1e-6))))
    image = norm(f"{eyes}.norm", x, 1e-6)
    e = f"{words}.embeddings"
    t = w[f"{e}.word_embeddings.weight"][ids] + w[f"{e}.position_embeddings.weight"][: ids.shape[1]]
    t = norm(f"{e}.LayerNorm", t, 1e-12)
    seen = mask.bool()[:, None, None, :]
    for n in range(LAYERS):
        block = f"{words}.encoder.layer.{n}"
        for kind, source, visible in (("attention", None, seen), ("crossattention", image, None)):
            own = f"{block}.{kind}.self"
            context = t if source is None else source
            found = attend(
                dense(f"{own}.query", t), dense(f"{own}.key", context), dense(f"{own}.value", context), visible
            )
            t = norm(f"{block}.{kind}.output.LayerNorm", dense(f"{block}.{kind}.output.dense", found) + t, 1e-12)
        inner = gelu(dense(f"{block}.intermediate.dense", t))
        t = norm(f"{block}.output.LayerNorm", dense(f"{block}.output.dense", inner) + t, 1e-12)
    score = t[:, 0]
    for place in (0, 2, 4, 6, 7):
        score = dense(f"mlp.layers.{place}", score)
    return (score[:, 0] - MEAN) / STD


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_it_scores_as_published(weights: Weights, suffix: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / f"ImageReward{suffix}"
    torch.save(weights, file) if suffix == ".pt" else save_file(weights, file)
    model = load_imagereward(file, letters_tokenizer())
    assert model.config.inputs.image_size == PATCH * 4
    chance = torch.Generator().manual_seed(1)
    squares = torch.randint(0, 255, (2, 3, 32, 32), generator=chance, dtype=torch.uint8)
    ids, mask = model.inputs.tokens(["a cat on a mat", "dogs"])
    pixels = model.inputs.normalised(squares)
    with torch.inference_mode():
        scored = [one.score for one in model.normalised(model(pixels, ids, mask))]
        assert scored == pytest.approx(published(weights, pixels, ids, mask).tolist(), rel=1e-4, abs=1e-5)
    model.save_pretrained(tmp_path / "kept")
    again = VPScore.from_pretrained(tmp_path / "kept")
    with torch.inference_mode():
        assert [one.score for one in again.normalised(again(pixels, ids, mask))] == scored


def test_what_is_no_such_checkpoint_is_told(weights: Weights, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_imagereward(tmp_path / "a.pt", letters_tokenizer())
    torch.save({"weight": torch.zeros(1)}, tmp_path / "b.pt")
    with pytest.raises(InputError, match="is no ImageReward checkpoint: it has no weight"):
        load_imagereward(tmp_path / "b.pt", letters_tokenizer())
    del weights["mlp.layers.7.bias"]
    torch.save(weights, tmp_path / "c.pt")
    with pytest.raises(InputError, match=r"lacks \['heads.0.layers.7.bias'\]"):
        load_imagereward(tmp_path / "c.pt", letters_tokenizer())
