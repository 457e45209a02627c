"""Models of the true classes with random weights: they show that a machine and a recipe work before anything is
downloaded, and stand for real ones in tests and benchmarks, where only sizes matter.

    python -m visionprefer.random_models tiny-sd|tiny-sdxl|tiny-llava|sd15|sd21|sdxl FOLDER
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from visionprefer.judging.rubric import GUIDELINE

# Newlines are written as expressions, since those that follow a tag are dropped.
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>", "<image>")

# UNet, VAE and text encoder of each size; those of "sd15", "sd21" and "sdxl" are the published architectures.
_UNETS: dict[str, dict[str, Any]] = {
    "tiny-sd": {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    },
    "tiny-sdxl": {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2),
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 32,
        "cross_attention_dim": 64,
        "norm_num_groups": 8,
    },
    "sd15": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd21": {
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "cross_attention_dim": 2048,
    },
}
_VAES: dict[str, dict[str, Any]] = {
    "tiny": {"block_out_channels": (16, 16, 32, 32), "layers_per_block": 1, "norm_num_groups": 8},
    "full": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512},
}
_TEXT_ENCODERS: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    "clip-l": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "clip-h": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16},
    "clip-bigg": {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20},
}


def stable_diffusion(folder: Path, size: str = "tiny-sd", seed: int = 0, dtype: str = "float32") -> Path:
    """Write a StableDiffusionPipeline with random weights.

    Args:
        folder: where to write it.
        size: "tiny-sd" (64 px), or the published architectures "sd15" (512 px) and "sd21" (768 px, v-prediction).
        seed: of the weights.
        dtype: precision of the weights, as torch names it.
    """
    from diffusers import StableDiffusionPipeline

    text = {"tiny-sd": "tiny", "sd15": "clip-l", "sd21": "clip-h"}[size]
    with _random_weights(seed, dtype):
        pipeline = StableDiffusionPipeline(
            vae=_vae("tiny" if size == "tiny-sd" else "full"),
            unet=_unet(size),
            text_encoder=_text_encoder(text),
            tokenizer=clip_tokenizer(),
            scheduler=_scheduler("v_prediction" if size == "sd21" else "epsilon"),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder)
    return folder


def stable_diffusion_xl(folder: Path, size: str = "tiny-sdxl", seed: int = 0, dtype: str = "float32") -> Path:
    """Write a StableDiffusionXLPipeline with random weights; `size` is "tiny-sdxl" (64 px) or "sdxl" (1024 px)."""
    from diffusers import StableDiffusionXLPipeline

    tiny = size == "tiny-sdxl"
    with _random_weights(seed, dtype):
        pipeline = StableDiffusionXLPipeline(
            vae=_vae("tiny" if tiny else "full", scaling_factor=0.13025),
            unet=_unet(size),
            text_encoder=_text_encoder("tiny" if tiny else "clip-l"),
            text_encoder_2=_text_encoder("tiny" if tiny else "clip-bigg", projected=True),
            tokenizer=clip_tokenizer(),
            tokenizer_2=clip_tokenizer(),
            scheduler=_scheduler(),
        )
    pipeline.save_pretrained(folder)
    return folder


def llava(folder: Path, seed: int = 0) -> Path:
    """Write a small LlavaForConditionalGeneration with random weights, a byte tokenizer and a processor for 64 px."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = _byte_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16
    )
    language = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=language,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        vision_feature_layer=-1,
    )
    with _random_weights(seed, "float32"):
        model = LlavaForConditionalGeneration(config)
    size = {"height": 64, "width": 64}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size=size),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def llama(folder: Path, seed: int = 0) -> Path:
    """Write a small LlamaForCausalLM with random weights and a byte tokenizer: a model of text."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _byte_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}user: {{ message['content'] }}\n{% endfor %}assistant: "
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with _random_weights(seed, "float32"):
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def clip_tokenizer() -> Any:
    """A CLIPTokenizer of bytes: any text has tokens, none is unknown."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


def _byte_tokenizer() -> Any:
    return llava_tokenizer(byte_pieces(SPECIAL_TOKENS))


def byte_pieces(special_tokens: Sequence[str]) -> Any:
    """A Tokenizer of bytes, and of pieces of the rubric: any text has tokens, and the question few."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=[AddedToken(word, special=True) for word in special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([GUIDELINE], trainer)
    return tokenizer


def llava_tokenizer(tokenizer: Any) -> Any:
    """A tokenizer that was trained with SPECIAL_TOKENS, as a LLaVA's processor wants it."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        extra_special_tokens={"image_token": "<image>"},
    )


def _vae(size: str, scaling_factor: float = 0.18215) -> Any:
    from diffusers import AutoencoderKL

    blocks = len(_VAES[size]["block_out_channels"])
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=4,
        scaling_factor=scaling_factor,
        **_VAES[size],
    )


def _unet(size: str) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**_UNETS[size])


def _text_encoder(size: str, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer) if size == "tiny" else 49408,
        projection_dim=_TEXT_ENCODERS[size]["hidden_size"],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **_TEXT_ENCODERS[size],
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def _scheduler(prediction_type: str = "epsilon") -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


@contextmanager
def _random_weights(seed: int, dtype: str) -> Iterator[None]:
    import torch

    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_default_dtype(getattr(torch, dtype))
        try:
            yield
        finally:
            torch.set_default_dtype(before)


if __name__ == "__main__":
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    kind, target = sys.argv[1], Path(sys.argv[2])
    if kind == "tiny-llava":
        llava(target)
    elif kind in ("sdxl", "tiny-sdxl"):
        stable_diffusion_xl(target, size=kind)
    else:
        stable_diffusion(target, size=kind)
