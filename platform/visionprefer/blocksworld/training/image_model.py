"""The image models: Stable Diffusion pipelines with a small UNet and text encoder.

The text encoder first learns from words alone what they ask for, then both learn to draw.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from rich.progress import track
from transformers import CLIPTextConfig, CLIPTextModel

from visionprefer.blocksworld.training import data, loop, text, tokens
from visionprefer.blocksworld.training.vae import CHANNELS
from visionprefer.blocksworld.wording import word

SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "v_prediction",  # what the prompt decides is decided at high noise, of which ε learns little
}
EMPTY_PROMPTS = 0.1  # share trained without a prompt, for classifier-free guidance


@dataclass(frozen=True)
class Size:
    """How large an image model is, and how long it trains."""

    channels: tuple[int, int]
    text: int
    layers: int
    steps: int
    batch: int = 24
    scenes: int = 30_000
    learning_rate: float = 1.5e-3


SIZES = {
    "blocks-sd": Size(channels=(48, 96), text=96, layers=2, steps=20_000),
    "blocks-sd-small": Size(channels=(24, 48), text=64, layers=2, steps=10_000),
}


class Painter(torch.nn.Module):
    """What learns: the UNet and its text encoder."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        tokenizer = tokens.clip_tokenizer()
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
        )
        self.text_encoder = CLIPTextModel(
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

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """The velocity (arXiv 2202.00512) of latents [B, 8, 8, 8], given prompts [B, tokens]."""
        hidden = self.text_encoder(input_ids).last_hidden_state
        return self.unet(noisy, timesteps, hidden).sample


def train(folder: Path, vae_folder: Path, size: Size, seed: int) -> None:
    """Train an image model; the folder gets the pipeline in `model/`, with the checkpoint beside it."""
    torch.manual_seed(seed)
    vae = AutoencoderKL.from_pretrained(vae_folder).to(data.DEVICE).eval()
    painter = Painter(size)
    pool = data.pool(size.scenes, seed)
    latents = encode(vae, pool.pictures)
    tokenizer = tokens.clip_tokenizer()
    text.train(painter.text_encoder, tokenizer, folder / "text", seed)
    noise_schedule = DDPMScheduler(**SCHEDULE)

    def loss(step: int) -> torch.Tensor:
        rows = data.batch(size.batch, len(pool.scenes), step, seed)
        chance = random.Random(f"{seed} {step}")
        texts = ["" if chance.random() < EMPTY_PROMPTS else word(pool.descriptions[row], chance) for row in rows]
        ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        noise = torch.randn((len(rows), CHANNELS, 8, 8)).to(data.DEVICE)
        timesteps = torch.randint(0, 1000, (len(rows),)).to(data.DEVICE)
        predicted = painter(noise_schedule.add_noise(latents[rows], noise, timesteps), timesteps, ids.to(data.DEVICE))
        return (predicted - noise_schedule.get_velocity(latents[rows], noise, timesteps)).square().mean()

    loop.train(painter, loss, folder=folder, steps=size.steps, learning_rate=size.learning_rate)
    save(painter, vae, folder / "model")


def save(painter: Painter, vae: AutoencoderKL, folder: Path) -> None:
    """Write the pipeline in fp16."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        unet=painter.unet,
        text_encoder=painter.text_encoder,
        tokenizer=tokens.clip_tokenizer(),
        scheduler=DDIMScheduler(**SCHEDULE, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder)
    # Unless told a precision, diffusers loads in float32, but transformers in that of the weights.
    config = folder / "text_encoder" / "config.json"
    config.write_text(config.read_text().replace('"float16"', '"float32"'))


@torch.inference_mode()
def encode(vae: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """Scaled latents [N, 8, 8, 8] of uint8 pictures [N, 3, 64, 64]."""
    parts = [vae.encode(data.scaled(part)).latent_dist.mean for part in track(pictures.split(64), "encoding scenes")]
    return (torch.cat(parts) * vae.config.scaling_factor).clone()
