"""The image models: Stable Diffusion pipelines with a small UNet and text encoder.

The text encoder first learns what prompts ask for, then the UNet learns to draw it.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from rich.progress import track
from torch.nn.functional import mse_loss
from transformers import CLIPTextConfig, CLIPTextModel

from visionprefer.blocksworld.training import captions, data, layout, loop, text, tokens
from visionprefer.blocksworld.training.vae import CHANNELS

SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "v_prediction",  # what the prompt decides is decided at high noise, of which ε learns little
}
NOISY = 0.4  # share of each batch at the highest noise, where the layout is decided
_NOISY_FROM = 600  # of 1,000 timesteps
# These bring the errors of what is learnt beside the velocity to the velocity's size.
_ASKED_WEIGHT = 30.0
_DRAWN_WEIGHT = 4.0


@dataclass(frozen=True)
class Size:
    """How large an image model is, and how long it trains on what.

    Attributes:
        channels: of the UNet's two levels.
        text, layers: width and depth of the text encoder.
        steps, batch: of the UNet.
        scenes: how many different ones.
        mixed_up: share of the captions' words and relations that are wrong where they can be, while the UNet learns.
        learning_rate: at its peak.
    """

    channels: tuple[int, int]
    text: int
    layers: int
    steps: int
    batch: int = 48
    scenes: int = 40_000
    mixed_up: float = 0.0
    learning_rate: float = 1.5e-3


SIZES = {
    "blocks-sd": Size(channels=(32, 64), text=96, layers=2, steps=24_000),
    "blocks-sd-small": Size(channels=(32, 64), text=64, layers=2, steps=24_000, mixed_up=0.4),
}


class Painter(torch.nn.Module):
    """What learns: the UNet, and two linear maps from its features to layouts, which are left behind after training."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        features = size.channels[-1]
        self.unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            block_out_channels=size.channels,
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=size.text,
            attention_head_dim=4,
            norm_num_groups=8,
            resnet_time_scale_shift="scale_shift",
            addition_embed_type="text",  # the prompt scales and shifts features too: that teaches shapes
            addition_embed_type_num_heads=4,
        )
        self.asked = torch.nn.Conv2d(features, layout.KINDS, 1)
        self.drawn = torch.nn.Conv2d(features, layout.KINDS, 1)
        self._features: dict[str, torch.Tensor] = {}
        for name, block in (("middle", self.unet.mid_block), ("up", self.unet.up_blocks[0])):
            block.register_forward_hook(lambda _, __, found, name=name: self._features.__setitem__(name, found))

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Velocity, layout asked for, layout drawn.

        Args:
            noisy: latents [B, 8, 8, 8].
            timesteps: [B].
            hidden: the states of the prompts' tokens [B, tokens, D].

        Returns:
            The velocity (arXiv 2202.00512) [B, 8, 8, 8]; the coverage that the prompts let expect, at the UNet's
            middle [B, KINDS, 4, 4]; the coverage that comes about, on its way up [B, KINDS, 8, 8].
        """
        velocity = self.unet(noisy, timesteps, hidden).sample
        return velocity, self.asked(self._features["middle"]), self.drawn(self._features["up"])


def train(folder: Path, vae_folder: Path, size: Size, seed: int) -> None:
    """Train an image model; the folder gets the pipeline in `model/`, with the checkpoint beside it."""
    torch.manual_seed(seed)
    vae = AutoencoderKL.from_pretrained(vae_folder).to(data.DEVICE).eval()
    tokenizer = tokens.clip_tokenizer()
    encoder, painter = _text_encoder(size, tokenizer), Painter(size)
    pool = data.pool(size.scenes, seed)
    latents, covered = encode(vae, pool.pictures), layout.coverage(pool.scenes, 8).to(data.DEVICE)
    reader = text.train(encoder, tokenizer, pool, folder / "text", seed)
    noise_schedule = DDPMScheduler(**SCHEDULE)
    noisy = int(NOISY * size.batch)

    def loss(step: int) -> torch.Tensor:
        rows = data.batch(size.batch, len(pool.scenes), step, seed)
        chance = random.Random(f"{seed} {step}")
        told = [captions.mixed_up(pool.descriptions[row], size.mixed_up, chance) for row in rows]
        ids = tokenizer(text.worded(told, chance), padding="max_length", truncation=True, return_tensors="pt").input_ids
        hidden = encoder(ids.to(data.DEVICE)).last_hidden_state
        noise = torch.randn((len(rows), CHANNELS, 8, 8)).to(data.DEVICE)
        timesteps = torch.cat([torch.randint(_NOISY_FROM, 1000, (noisy,)), torch.randint(1000, (size.batch - noisy,))])
        timesteps = timesteps.to(data.DEVICE)
        velocity, asked, drawn = painter(noise_schedule.add_noise(latents[rows], noise, timesteps), timesteps, hidden)
        return (
            mse_loss(velocity, noise_schedule.get_velocity(latents[rows], noise, timesteps))
            + _ASKED_WEIGHT * mse_loss(asked, reader.asked(hidden))
            + _DRAWN_WEIGHT * mse_loss(drawn, covered[rows])
        )

    loop.train(painter, loss, folder=folder, steps=size.steps, learning_rate=size.learning_rate)
    save(painter.unet, encoder, vae, folder / "model")


def _text_encoder(size: Size, tokenizer: Any) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.text,
            intermediate_size=2 * size.text,
            num_hidden_layers=size.layers,
            num_attention_heads=4,
            max_position_embeddings=tokens.PROMPT_LENGTH,
            projection_dim=size.text,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def save(unet: UNet2DConditionModel, text_encoder: CLIPTextModel, vae: AutoencoderKL, folder: Path) -> None:
    """Write the pipeline in fp16."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokens.clip_tokenizer(),
        scheduler=DDIMScheduler(**SCHEDULE, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    vae.register_to_config(_name_or_path="")  # not where it lay on this machine
    pipeline.to(torch.float16).save_pretrained(folder)
    # Unless told a precision, diffusers loads in float32, but transformers in that of the weights.
    config = folder / "text_encoder" / "config.json"
    config.write_text(config.read_text().replace('"float16"', '"float32"'))


@torch.inference_mode()
def encode(vae: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """Scaled latents [N, 8, 8, 8] of uint8 pictures [N, 3, 64, 64]."""
    parts = [vae.encode(data.scaled(part)).latent_dist.mean for part in track(pictures.split(64), "encoding scenes")]
    return (torch.cat(parts) * vae.config.scaling_factor).clone()
