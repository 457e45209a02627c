"""How VP-Score learns: one optimizer step, one look at validation, and everything that going on needs.

Several workers each have a part of every step. Losses are summed over pairs and divided by the pairs of all workers, so
that how a step is cut, by workers or by accumulation, does not change what is learnt.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from visionprefer.reward.batches import Batch
from visionprefer.reward.loss import summed_losses
from visionprefer.reward.recipe import RewardRecipe
from visionprefer.reward.vpscore import Scores, VPScore

Total = Callable[[torch.Tensor], torch.Tensor]  # the sum of a tensor over all workers


class Fit:
    """A model in training.

    Args:
        model: to train, on its device.
        recipe: how.
        steps: of the whole training.
        dtype: of the passes.
        learner: the model, as it is called: wrapped where workers share the gradients' mean.
        workers: how many.
        total: sums over the workers.
    """

    def __init__(
        self,
        model: VPScore,
        recipe: RewardRecipe,
        steps: int,
        dtype: torch.dtype = torch.float32,
        learner: Any = None,
        workers: int = 1,
        total: Total = lambda tensor: tensor,
    ) -> None:
        self.model, self.recipe, self.dtype = model, recipe, dtype
        self.learner: Any = learner or model
        self.workers = workers
        self.total: Total = total
        self.device = next(model.parameters()).device
        self.learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(self.learnt, lr=recipe.learning_rate)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, _cosine(steps, recipe.warm_up))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)

    def step(self, parts: Sequence[Batch], number: int, worker: int = 0) -> dict[str, float]:
        """Learn from this worker's parts of a step; the gradients of all are added up.

        Args:
            parts: each is one forward pass.
            number: of the step: dropout follows from it, so that training that goes on learns the same.
            worker: which one this is.

        Returns:
            The loss of each score on the step's pairs, of all workers.

        Raises:
            FloatingPointError: if the loss is not a number.
        """
        self.model.train(self.recipe.dropout)
        torch.manual_seed(hash((self.recipe.seed, number, worker)))
        pairs = self.total(self._pairs(parts))
        summed = torch.zeros_like(pairs)
        for index, part in enumerate(parts):
            is_last = index == len(parts) - 1
            with contextlib.nullcontext() if is_last or self.learner is self.model else self.learner.no_sync():
                scores = self._scores(part, self.learner)
                losses = summed_losses(scores, part.to(self.device).pairs)
                # Every weight has a part in it, though it may be 0: workers wait for each other's gradients.
                loss = 0.0 * (scores.values_NS.sum() + scores.variance_N.sum())
                for place, value in losses.items():
                    loss = loss + value / pairs[place].clamp(min=1) / (pairs > 0).sum()
                    summed[place] += value.detach()
                self.scaler.scale(loss * self.workers).backward()
        means = self._told(self.total(summed), pairs)
        if not all(map(math.isfinite, means.values())):
            raise FloatingPointError(
                f"step {number}: the loss is {means}: write a smaller learning_rate, or dtype: float32"
            )
        if self.recipe.max_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.learnt, self.recipe.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return means

    @torch.inference_mode()
    def validate(self, batches: Iterator[Batch]) -> tuple[dict[str, float], dict[str, float]]:
        """Loss and accuracy of each score on batches of all workers; equal scores are wrong."""
        self.model.eval()
        places = len(self.recipe.scores)
        summed, right, pairs = torch.zeros(3, places, device=self.device).unbind()
        for batch in batches:
            scores = self._scores(batch, self.model)
            batch = batch.to(self.device)
            for place, value in summed_losses(scores, batch.pairs).items():
                chosen_P, rejected_P = scores.values_NS[:, place][batch.pairs[place]].unbind(dim=1)
                summed[place] += value
                right[place] += (chosen_P > rejected_P).sum()
            pairs += self._pairs([batch])
        pairs = self.total(pairs)
        return self._told(self.total(summed), pairs), self._told(self.total(right), pairs)

    @torch.inference_mode()
    def normalise(self, batches: Iterator[Batch]) -> None:
        """Take mean and standard deviation of each score over these images, of all workers, into the model."""
        self.model.eval()
        sums = torch.zeros(3, len(self.recipe.scores), dtype=torch.float64, device=self.device)
        for batch in batches:
            values_NS = self._scores(batch, self.model).values_NS.double()
            sums += torch.stack([torch.ones_like(values_NS).sum(0), values_NS.sum(0), (values_NS**2).sum(0)])
        count, first, second = self.total(sums)
        mean = first / count
        self.model.mean.copy_(mean)
        self.model.std.copy_((second / count - mean**2).clamp(min=1e-12).sqrt())

    def state(self) -> dict[str, Any]:
        """Everything that going on needs, as tensors and numbers."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for name, part in (("model", self.model), ("optimizer", self.optimizer), ("schedule", self.schedule)):
            part.load_state_dict(state[name])
        self.scaler.load_state_dict(state["scaler"])

    def _scores(self, batch: Batch, model: Any) -> Scores:
        squares, ids, mask, _ = batch.to(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            found = model(self.model.inputs.normalised(squares), ids, mask)
        return Scores(found[0].float(), found[1].float())

    def _pairs(self, batches: Sequence[Batch]) -> torch.Tensor:
        """How many pairs each score has: [S]."""
        counts = torch.zeros(len(self.recipe.scores), device=self.device)
        for batch in batches:
            for place, pairs in batch.pairs.items():
                counts[place] += len(pairs)
        return counts

    def _told(self, sums: torch.Tensor, pairs: torch.Tensor) -> dict[str, float]:
        """The mean over pairs of each score that has any."""
        means = (sums / pairs).tolist()
        return {name: mean for name, mean, n in zip(self.recipe.scores, means, pairs.tolist(), strict=True) if n}


def freeze(model: VPScore, share: float) -> None:
    """Let this share of each encoder's layers, from the bottom, and the embeddings below them, stay as they are.

    References: ImageReward (arXiv 2304.05977) section 3.2, with 0.7.
    """
    for embeddings, *layers in model.backbone.layers():
        for layer in [embeddings, *layers][: 1 + int(len(layers) * share)] if share else []:
            layer.requires_grad_(False)


def _cosine(steps: int, warm_up: float) -> Callable[[int], float]:
    first = round(steps * warm_up)

    def factor(step: int) -> float:
        if step < first:
            return (step + 1) / (first + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, steps - first)))

    return factor
