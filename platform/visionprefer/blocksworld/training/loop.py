"""The one training loop: batches by step number, cosine learning rate, moving average of the weights, resumable."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from visionprefer.blocksworld.training.data import DEVICE, ahead
from visionprefer.blocksworld.training.journal import Journal


def train(
    model: torch.nn.Module,
    loss: Callable[[Any], torch.Tensor],
    *,
    prepare: Callable[[int], Any] = int,
    folder: Path,
    steps: int,
    learning_rate: float,
    average: float = 0.999,
    warm_up: int = 100,
) -> None:
    """Minimise a loss with AdamW, and leave the moving average of the weights in the model.

    Args:
        model: everything that learns.
        loss: of what is prepared for a step; all its randomness must follow from that and torch's generator.
        prepare: what the step of this number needs; its number, if nothing else is told.
        folder: where the checkpoint and the journal lie. With a checkpoint there, training goes on from it.
        steps: how many in all.
        learning_rate: at its peak, after the warm-up; it falls to zero as a cosine.
        average: decay of the moving average.
    """
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU that has it
    model.to(DEVICE)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps + 1, pct_start=min(0.3, warm_up / steps), cycle_momentum=False
    )
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(average), use_buffers=True
    )
    state: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule, "averaged": averaged}
    checkpoint = folder / "checkpoint.pt"
    journal = Journal(folder, steps)
    first, seconds = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location="cpu")
        for name, part in state.items():
            part.load_state_dict(saved[name])
        torch.set_rng_state(saved["random"])
        first, seconds = saved["step"], saved["seconds"]
    began = time.monotonic() - seconds
    model.train()
    remaining = range(first, steps)
    for step, prepared in zip(remaining, remaining if prepare is int else ahead(prepare, remaining), strict=True):
        value = loss(prepared)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(model)
        journal.note(step + 1, float(value.detach()), time.monotonic() - began)
        if (step + 1) % 500 == 0 or step + 1 == steps:
            saved = {name: part.state_dict() for name, part in state.items()}
            saved |= {"random": torch.get_rng_state(), "step": step + 1, "seconds": time.monotonic() - began}
            torch.save(saved, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
    model.load_state_dict(averaged.module.state_dict())
    model.eval()
