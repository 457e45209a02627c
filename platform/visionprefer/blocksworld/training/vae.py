"""The autoencoder of the image models: 64 × 64 × 3 pixels to 8 × 8 × 8 latents."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL

from visionprefer.blocksworld.training import data, loop

SCENES = 20_000
STEPS = 9_000
BATCH = 8
CHANNELS = 8  # of the latents
KL_WEIGHT = 1e-6


def train(folder: Path, seed: int) -> None:
    """Train the autoencoder; the folder gets it in `model/`, with the checkpoint beside it."""
    torch.manual_seed(seed)
    pool = data.pool(SCENES, seed)
    vae = _autoencoder()

    def loss(step: int) -> torch.Tensor:
        pixels = data.scaled(pool.pictures[data.batch(BATCH, len(pool.scenes), step, seed)])
        latents = vae.encode(pixels).latent_dist
        decoded = vae.decode(latents.sample()).sample
        difference = decoded - pixels
        error = difference.abs().mean() + 2 * difference.square().mean() + _edges(difference) + 10 * _hue(difference)
        return error + KL_WEIGHT * latents.kl().mean()

    loop.train(vae, loss, folder=folder, steps=STEPS, learning_rate=3e-3, average=0.998)
    with torch.inference_mode():
        latents = vae.encode(data.scaled(pool.pictures[:512])).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 5))
    vae.to(torch.float16).save_pretrained(folder / "model")


def _autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(12, 24, 48, 64),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=CHANNELS,
        sample_size=64,
    )


def _edges(difference: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of neighbouring pixels' errors: what blurs an outline costs more."""
    across = difference[..., :, 1:] - difference[..., :, :-1]
    down = difference[..., 1:, :] - difference[..., :-1, :]
    return (across.abs().mean() + down.abs().mean()) / 2


def _hue(difference: torch.Tensor) -> torch.Tensor:
    """Mean squared error but for that of the brightness: without it, colours are learnt long after outlines."""
    return (difference - difference.mean(dim=1, keepdim=True)).square().mean()
