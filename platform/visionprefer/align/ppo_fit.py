"""How an image model learns by PPO from its own images: optimizer steps over the chains of one rollout.

Shapes: B samples, T steps of the denoising chain; C channels, H rows, W columns of latents.
"""

import math
from typing import Any, NamedTuple

import torch

from visionprefer.align.denoising import step
from visionprefer.align.policy import Policy, Total
from visionprefer.align.ppo import distance_from_reference, policy_loss
from visionprefer.align.ppo_recipe import PPORecipe
from visionprefer.align.rollout import Ask, Guided, Rollout, shuffled
from visionprefer.align.value import Value, ValueFit
from visionprefer.schema import content_id

_VALUES = 4 * 64 * 64  # latent values of the images that DDPO's clip range of 1e-4 was chosen for


class Experience(NamedTuple):
    """This worker's images of one rollout.

    Attributes:
        rollout: how they were made, by the policy as it is before the first step.
        guided: the prompts that they were made for.
        advantage_B: see `advantages`; NaN where the reward is missing.
    """

    rollout: Rollout
    guided: Guided
    advantage_B: torch.Tensor


class PPOFit:
    """A policy in training.

    Args:
        policy: to train, on its device.
        recipe: how.
        scheduler: see `rollout.sampler`; the rollouts' own.
        dtype: of the passes.
        workers: how many.
        total: sums over the workers.
    """

    def __init__(
        self,
        policy: Policy,
        recipe: PPORecipe,
        scheduler: Any,
        dtype: torch.dtype = torch.float32,
        workers: int = 1,
        total: Total = lambda tensor: tensor,
    ) -> None:
        self.policy, self.recipe, self.scheduler, self.dtype = policy, recipe, scheduler, dtype
        self.workers, self.total = workers, total
        self.optimizer = torch.optim.AdamW(policy.learnt, lr=recipe.learning_rate, weight_decay=1e-4)
        self.value = self._value_fit(recipe.value_learning_rate) if recipe.value_learning_rate else None

    def learn(self, experience: Experience, number: int, worker: int = 0) -> dict[str, float]:
        """Take the optimizer steps of one rollout: `updates` of them, each on as many of its images.

        Gradients are added up over all timesteps of an image before a step (DDPO, arXiv 2305.13301), in an order that
        is shuffled for each image.

        Args:
            experience: of this worker; each worker has as many images.
            number: of the rollout.
            worker: which one this is.

        Returns:
            Means over images and timesteps of all workers: the loss, the share that was clipped, the distance from the
            reference; `gap`, the largest difference of a ratio from 1 before the first step; `norm` of the gradients;
            with a value function, `value_error`.

        Raises:
            FloatingPointError: if something is not a number, or if rollout and learner disagree before the first step.
        """
        if self.dtype != torch.float32:
            experience = self._rescored(experience)
        rollout = experience.rollout
        clip_range = self.recipe.clip_range or 1e-4 * _VALUES / rollout.latents_BTCHW[0, 0].numel()
        orders = self._orders(rollout, number, worker)
        value_error = {}
        if self.value:
            seed = int(content_id("value", self.recipe.seed, number, worker)[:15], 16)
            hidden = experience.guided.condition.hidden_BTD
            value_error = {"value_error": self.value.learn(rollout, hidden, experience.advantage_B, seed)}
        size = len(orders) // self.recipe.updates
        told: list[dict[str, float]] = []
        for update in range(self.recipe.updates):
            rows = slice(update * size, (update + 1) * size)
            told.append(self._update(experience, orders, rows, clip_range, is_first=update == 0))
        means = {name: sum(one[name] for one in told) / len(told) for name in told[0]}
        return means | {"gap": told[0]["gap"]} | value_error

    def state(self) -> dict[str, Any]:
        """Everything that going on needs, as tensors and numbers."""
        state = {"optimizer": self.optimizer.state_dict(), "learnt": self.policy.learnt_state()}
        return state | ({"value": self.value.state()} if self.value else {})

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.policy.load_learnt(state["learnt"])
        if self.value:
            self.value.load(state["value"])

    def _value_fit(self, learning_rate: float) -> ValueFit:
        unet = self.policy.unet.config
        with torch.random.fork_rng():  # the same on all workers, and the same policy with it and without
            torch.manual_seed(self.recipe.seed)
            value = Value(
                unet.in_channels * unet.sample_size**2, unet.cross_attention_dim, len(self.scheduler.timesteps)
            )
        return ValueFit(value.to(self.policy.device), learning_rate, self.total)

    def _orders(self, rollout: Rollout, number: int, worker: int) -> torch.Tensor:
        """Which steps of each image are learnt from, in which order: [B, learnt steps]."""
        allowed = self.recipe.learnt_steps
        chosen = rollout.chosen_T.nonzero().flatten()
        chosen = chosen[(chosen >= allowed.start) & (chosen < allowed.stop)]
        if not len(chosen):
            raise ValueError(
                f"timestep_range is {list(self.recipe.timestep_range)}, whose steps add no noise, so that nothing was "
                "chosen in them: write one that begins earlier"
            )
        learnt = max(1, round(len(chosen) * self.recipe.timestep_fraction))
        samples = len(rollout.latents_BTCHW)
        return chosen[shuffled(len(chosen), samples, (self.recipe.seed, number, worker))[:, :learnt]]

    def _update(
        self, experience: Experience, orders: torch.Tensor, rows: slice, clip_range: float, is_first: bool
    ) -> dict[str, float]:
        summed = torch.zeros(3, device=self.policy.device)
        gap = 0.0
        places = [
            slice(start, min(start + self.recipe.batch_size, rows.stop))
            for start in range(rows.start, rows.stop, self.recipe.batch_size)
        ]
        passes = [(place, turn) for place in places for turn in range(orders.shape[1])]
        counts = self.total(experience.advantage_B[rows].isfinite().sum().float().to(self.policy.device))
        for index, (place, turn) in enumerate(passes):
            with self.policy.without_sync(index < len(passes) - 1):
                loss, told, ratio_B = self._loss(experience, place, orders[place, turn], clip_range)
                here = experience.advantage_B[place].isfinite().sum().to(self.policy.device)
                share = here / counts.clamp(min=1) / orders.shape[1]
                (loss * share * self.workers).backward()
            summed += told * share
            gap = max(gap, float((ratio_B - 1).abs().max()))
        if is_first and gap > clip_range / 10 and self.dtype == torch.float32:
            raise FloatingPointError(
                f"before the first step rollout and learner disagree: a ratio of probabilities is {gap:.2g} from 1, "
                f"and the clip range is {clip_range:.2g}. Let both compute in float32, with the same weights"
            )
        norm = torch.nn.utils.clip_grad_norm_(self.policy.learnt, self.recipe.max_grad_norm)
        if not math.isfinite(float(norm)):
            raise FloatingPointError(f"the gradients' norm is {float(norm)}: write a smaller learning_rate")
        if counts > 0:  # else momentum alone would move the weights
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss_, clipped, distance = self.total(summed).tolist()
        return {"loss": loss_, "clipped": clipped, "distance": distance, "gap": gap, "norm": float(norm)}

    def _loss(
        self, experience: Experience, place: slice, turn_B: torch.Tensor, clip_range: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The mean loss of one step of some images, what is told of it, and the ratios."""
        device, rollout = self.policy.device, experience.rollout
        row_B = torch.arange(place.start, place.stop)
        advantage_B = experience.advantage_B[place].to(device)
        if self.value:
            advantage_B = advantage_B - self.value.expected(
                rollout, experience.guided.condition.hidden_BTD, row_B, turn_B
            )
        counts_B = advantage_B.isfinite()
        answer, log_prob_B = self._score(experience, place, turn_B, self.policy.predict)
        old_B = rollout.log_prob_BT[row_B, turn_B].to(device)
        found = policy_loss(log_prob_B, old_B, advantage_B.float(), counts_B, clip_range)
        loss, distance = found.loss, torch.zeros((), device=device)
        if self.recipe.kl_weight:
            of_reference, _ = self._score(experience, place, turn_B, self.policy.reference)
            distance = distance_from_reference(answer, of_reference, counts_B)
            loss = loss + self.recipe.kl_weight * distance
        told = torch.stack([loss.detach(), found.clipped, distance.detach()])
        return loss, told, torch.where(counts_B, found.ratio_B, 1.0)

    def _score(
        self, experience: Experience, place: slice, turn_B: torch.Tensor, ask: Ask
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A model's answers at one step of some images, guidance applied, and how likely it makes what was drawn."""
        device, rollout = self.policy.device, experience.rollout
        row_B = torch.arange(place.start, place.stop)
        latents, drawn = (rollout.latents_BTCHW[row_B, turn].to(device) for turn in (turn_B, turn_B + 1))
        timesteps_B = rollout.timesteps_T[turn_B].to(device)
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            answer = experience.guided.part(place).to(device).answer(ask, latents, timesteps_B)
        return answer, step(self.scheduler, answer, timesteps_B, latents, drawn).log_prob_B

    @torch.no_grad()
    def _rescored(self, experience: Experience) -> Experience:
        """The same with the learner's own log-probabilities: in half precision rounding alone exceeds a clip range."""
        rollout = experience.rollout
        log_prob_BT = rollout.log_prob_BT.clone()
        for start in range(0, len(log_prob_BT), self.recipe.batch_size):
            place = slice(start, min(start + self.recipe.batch_size, len(log_prob_BT)))
            for turn in rollout.chosen_T.nonzero().flatten().tolist():
                turn_B = torch.full((place.stop - place.start,), turn)
                log_prob_BT[place, turn] = self._score(experience, place, turn_B, self.policy.predict)[1].cpu()
        return experience._replace(rollout=rollout._replace(log_prob_BT=log_prob_BT))
