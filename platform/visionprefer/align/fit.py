"""How an image model learns from images that are there: one optimizer step, and everything that going on needs.

Noise and timestep follow from the seed, the step and the prompt, so that how a step is cut, by workers or by
accumulation, does not change what is learnt.

Shapes: P prompts; C channels, H rows, W columns of latents.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from visionprefer.align.denoising import noised
from visionprefer.align.dpo import denoising_error, diffusion_dpo_loss
from visionprefer.align.encoded import ImageBatch, PairBatch
from visionprefer.align.policy import Policy, Total
from visionprefer.align.recipe import DPORecipe, FinetuneRecipe
from visionprefer.schema import content_id


class Fit(ABC):
    """A policy in training.

    Attributes:
        told: names of what `step` tells.

    Args:
        policy: to train, on its device.
        recipe: how.
        dtype: of the passes.
        workers: how many.
        total: sums over the workers.
    """

    told: tuple[str, ...]

    def __init__(
        self,
        policy: Policy,
        recipe: Any,
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

    def step(self, parts: Sequence[Any], number: int) -> dict[str, float]:
        """Learn from this worker's parts of a step; the gradients of all are added up.

        Args:
            parts: each is one forward pass.
            number: of the step.

        Returns:
            What `told` names, the means over the prompts of all workers.

        Raises:
            FloatingPointError: if the loss is not a number.
        """
        device = self.policy.device
        prompts = self.total(torch.tensor(float(sum(len(part.prompt_ids) for part in parts)), device=device))
        summed = torch.zeros(len(self.told), device=device)
        for index, part in enumerate(parts):
            with self.policy.without_sync(index < len(parts) - 1):
                loss, told = self._loss(part, number)
                share = len(part.prompt_ids) / prompts
                self.scaler.scale(loss * share * self.workers).backward()
            summed += told * len(part.prompt_ids)
        means = dict(zip(self.told, (self.total(summed) / prompts).tolist(), strict=True))
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

    @abstractmethod
    def _loss(self, part: Any, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean loss of a part, with its gradient, and what is told of it."""

    def _chance(self, prompt_ids: Sequence[str], shape: torch.Size, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise of that shape and a timestep for each prompt, which all its images share."""
        noise, timesteps = [], []
        for prompt_id in prompt_ids:
            seed = int(content_id(self.recipe.seed, number, prompt_id)[:15], 16)
            generator = torch.Generator().manual_seed(seed)
            noise.append(torch.randn(shape, generator=generator))
            timesteps.append(torch.randint(self.scheduler.config.num_train_timesteps, (), generator=generator))
        return torch.stack(noise).to(self.policy.device), torch.stack(timesteps).to(self.policy.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.policy.device.type, self.dtype, enabled=self.dtype != torch.float32)


class DPOFit(Fit):
    """A policy that learns from pairs by Diffusion-DPO.

    It tells DPO's loss, without what `sft_weight` adds; `right`, the share of the pairs that the policy has moved
    towards more than the reference; `margin`, what is inside the sigmoid; and the denoising errors of the policy.
    """

    told = ("loss", "right", "margin", "chosen_error", "rejected_error")
    recipe: DPORecipe

    def _loss(self, part: PairBatch, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        device = self.policy.device
        noise, timesteps = self._chance(part.prompt_ids, part.chosen_PCHW.shape[1:], number)
        latents = torch.cat([part.chosen_PCHW, part.rejected_PCHW]).to(device)
        with self._autocast():
            errors, of_reference = self.policy.errors(
                self.scheduler, latents, part.condition.to(device), noise, timesteps
            )
        (chosen, rejected), (of_chosen, of_rejected) = errors.chunk(2), of_reference.chunk(2)
        found = diffusion_dpo_loss(chosen, rejected, of_chosen, of_rejected, self.recipe.beta)
        loss = found.loss + self.recipe.sft_weight * self.recipe.beta / 2 * chosen.mean()
        right = (found.margin_P > 0).float()
        told = [found.loss.detach(), right.mean(), found.margin_P.mean()]
        return loss, torch.stack([*told, chosen.detach().mean(), rejected.detach().mean()])


class FinetuneFit(Fit):
    """A policy that learns from one image of each prompt, by its denoising error alone."""

    told = ("loss",)
    recipe: FinetuneRecipe

    def _loss(self, part: ImageBatch, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        device = self.policy.device
        noise, timesteps = self._chance(part.prompt_ids, part.images_PCHW.shape[1:], number)
        noisy, target = noised(self.scheduler, part.images_PCHW.to(device), noise, timesteps)
        with self._autocast():
            answer = self.policy.predict(noisy, timesteps, part.condition.to(device))
            loss = denoising_error(answer, target).mean()
        return loss, loss.detach()[None]
