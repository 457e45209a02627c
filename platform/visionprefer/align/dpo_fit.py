"""How an image model learns by Diffusion-DPO: one optimizer step, and everything that going on needs.

Noise and timestep of a pair follow from the seed, the step and the prompt, so that how a step is cut, by workers or by
accumulation, does not change what is learnt.

Shapes: P pairs; C channels, H rows, W columns of latents.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from visionprefer.align.dpo import diffusion_dpo_loss
from visionprefer.align.encoded import PairBatch
from visionprefer.align.policy import Policy, Total
from visionprefer.align.recipe import DPORecipe
from visionprefer.schema import content_id


class DPOFit:
    """A policy in training.

    Args:
        policy: to train, on its device.
        recipe: how.
        dtype: of the passes.
        workers: how many.
        total: sums over the workers.
    """

    def __init__(
        self,
        policy: Policy,
        recipe: DPORecipe,
        dtype: torch.dtype = torch.float32,
        workers: int = 1,
        total: Total = lambda tensor: tensor,
    ) -> None:
        self.policy, self.recipe, self.dtype, self.workers, self.total = policy, recipe, dtype, workers, total
        self.scheduler = DDPMScheduler.from_config(policy.pipeline.scheduler.config)
        self.optimizer = torch.optim.AdamW(policy.learnt, lr=recipe.peak_learning_rate, weight_decay=1e-2)
        self.schedule = get_scheduler(
            recipe.schedule,
            self.optimizer,
            num_warmup_steps=round(recipe.steps * recipe.warm_up),
            num_training_steps=recipe.steps,
        )
        self.average = EMAModel(policy.learnt, decay=recipe.ema) if recipe.ema else None
        self.scaler = torch.amp.GradScaler(policy.device.type, enabled=dtype == torch.float16)

    def step(self, parts: Sequence[PairBatch], number: int) -> dict[str, float]:
        """Learn from this worker's parts of a step; the gradients of all are added up.

        Args:
            parts: each is one forward pass.
            number: of the step.

        Returns:
            Means over the pairs of all workers: the loss; `right`, the share that the policy has moved towards more
            than the reference; `margin`, what is inside the sigmoid; the denoising errors of the policy.

        Raises:
            FloatingPointError: if the loss is not a number.
        """
        pairs = self.total(torch.tensor(float(sum(len(part.prompt_ids) for part in parts)), device=self.policy.device))
        summed = torch.zeros(5, device=self.policy.device)
        for index, part in enumerate(parts):
            with self.policy.without_sync(index < len(parts) - 1):
                loss, told = self._loss(part, number)
                share = len(part.prompt_ids) / pairs
                self.scaler.scale(loss * share * self.workers).backward()
            summed += told * len(part.prompt_ids)
        names = ("loss", "right", "margin", "chosen_error", "rejected_error")
        means = dict(zip(names, (self.total(summed) / pairs).tolist(), strict=True))
        if not math.isfinite(means["loss"]):
            raise FloatingPointError(
                f"step {number}: the loss is {means['loss']}: write a smaller learning_rate, or dtype: float32"
            )
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.policy.learnt, self.recipe.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.step(self.policy.learnt)
        return means

    def finish(self) -> None:
        """Put the moving average of the weights, if there is one, in the place of the last."""
        if self.average:
            self.average.copy_to(self.policy.learnt)

    def state(self) -> dict[str, Any]:
        """Everything that going on needs, as tensors and numbers."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return parts | {"learnt": self.policy.learnt_state()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        if self.average:
            self.average.to(self.policy.device)  # it takes the saved weights as they are, from where they were loaded
        self.policy.load_learnt(state["learnt"])

    def _parts(self) -> dict[str, Any]:
        parts = {"optimizer": self.optimizer, "schedule": self.schedule, "scaler": self.scaler}
        return parts | ({"average": self.average} if self.average else {})

    def _loss(self, part: PairBatch, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean loss of a part, with its gradient, and what is told of it."""
        device = self.policy.device
        noise, timesteps = self._chance(part, number)
        latents = torch.cat([part.chosen_PCHW, part.rejected_PCHW]).to(device)
        condition = part.condition.to(device)
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            errors, of_reference = self.policy.errors(self.scheduler, latents, condition, noise, timesteps)
        (chosen, rejected), (of_chosen, of_rejected) = errors.chunk(2), of_reference.chunk(2)
        found = diffusion_dpo_loss(chosen, rejected, of_chosen, of_rejected, self.recipe.beta)
        right = (found.margin_P > 0).float()
        told = [found.loss.detach(), right.mean(), found.margin_P.mean()]
        return found.loss, torch.stack([*told, chosen.detach().mean(), rejected.detach().mean()])

    def _chance(self, part: PairBatch, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise and timestep of each pair, which its two images share."""
        noise, timesteps = [], []
        for prompt_id, latents_CHW in zip(part.prompt_ids, part.chosen_PCHW, strict=True):
            seed = int(content_id(self.recipe.seed, number, prompt_id)[:15], 16)
            generator = torch.Generator().manual_seed(seed)
            noise.append(torch.randn(latents_CHW.shape, generator=generator))
            timesteps.append(torch.randint(self.scheduler.config.num_train_timesteps, (), generator=generator))
        return torch.stack(noise).to(self.policy.device), torch.stack(timesteps).to(self.policy.device)
