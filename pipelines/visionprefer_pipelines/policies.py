"""The image model of a training: which one, and its policy on a worker."""

from collections.abc import Sequence
from typing import Any

import torch

from visionprefer.align.policy import Policy
from visionprefer.align.recipe import AlignRecipe
from visionprefer.devices import choose
from visionprefer.errors import InputError
from visionprefer.images import load_pipeline
from visionprefer.models import Model, find_model
from visionprefer_pipelines.progress import Progress


def base_of(recipe: AlignRecipe) -> tuple[Model, dict[str, Any]]:
    """The model that a training begins with, and what `training.json` says of it.

    Raises:
        InputError: if it is not there, or is not a whole pipeline.
    """
    model = find_model(recipe.model, "diffusers", recipe.revision, recipe.variant)
    if model.base:
        raise InputError(f"model {recipe.model!r} holds LoRA weights. Write the folder or hub id of a whole pipeline")
    return model, {"model": model.label, "model_revision": model.revision, "model_digest": model.digest}


def tell_of_long_prompts(model: Model, prompts: Sequence[str], progress: Progress) -> None:
    """Say how many prompts are longer than the model reads; what is beyond that is neither drawn nor learnt."""
    if not prompts:
        return
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(model.location, subfolder="tokenizer", revision=model.revision)
    most = tokenizer.model_max_length
    lengths = [len(ids) for ids in tokenizer(list(prompts)).input_ids]
    if too_long := sum(length > most for length in lengths):
        progress.say(
            f"{too_long:,} of {len(prompts):,} prompts are longer than the {most} tokens that {model.label} reads, the "
            f"longest {max(lengths):,}: their ends are neither drawn nor learnt"
        )


def policy_of(
    recipe: AlignRecipe, model: Model, device: torch.device, with_reference: bool = True
) -> tuple[Policy, torch.dtype]:
    """A policy whose UNet is on a device, the same on all workers, and the precision of its passes."""
    _, dtype = choose(device.type, recipe.dtype, on_gpu="bfloat16")
    torch.manual_seed(recipe.seed)  # LoRA begins alike everywhere
    pipeline = load_pipeline(model, torch.device("cpu"), torch.float32)
    pipeline.unet.to(device)
    return Policy(pipeline, recipe.lora_rank, with_reference), dtype
