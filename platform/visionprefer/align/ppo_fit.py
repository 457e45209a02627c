"""How an image model learns by PPO from its own images: optimizer steps over those of one rollout.

Shapes: B images, T places where each can be asked about: see `likelihood`.
"""

import math
from typing import Any, NamedTuple

import torch
from diffusers.training_utils import EMAModel

from visionprefer.align.likelihood import OfImages, OfSteps, Scored, noise_levels
from visionprefer.align.policy import Policy, Total
from visionprefer.align.ppo import mean_distance, policy_loss
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


class Learning(NamedTuple):
    """What the optimizer steps of one rollout have in common.

    Attributes:
        old_BT: log-probabilities by the policy that drew the images.
        old_answer_BTCHW: its answers; None where nobody asks how far they are.
        orders: where each image is learnt from: [B, learnt places].
    """

    experience: Experience
    likelihood: OfSteps | OfImages
    old_BT: torch.Tensor
    old_answer_BTCHW: torch.Tensor | None
    orders: torch.Tensor
    clip_range: float


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
        self.average = EMAModel(policy.learnt, decay=recipe.ema) if recipe.ema else None
        self.value = self._value_fit(recipe.value_learning_rate) if recipe.value_learning_rate else None

    def learn(self, experience: Experience, number: int, worker: int = 0) -> dict[str, float]:
        """Take the optimizer steps of one rollout: `updates` of them, each on as many of its images.

        Gradients are added up over all places of an image before a step (DDPO, arXiv 2305.13301), in an order that is
        shuffled for each image.

        Args:
            experience: of this worker; each worker has as many images.
            number: of the rollout.
            worker: which one this is.

        Returns:
            Means over images and places of all workers: the loss, the share that was clipped, the distances from the
            reference and from the policy that drew; `gap`, the largest difference of a ratio from 1 before the first
            step; `norm` of the gradients; with a value function, `value_error`.

        Raises:
            FloatingPointError: if something is not a number, or if rollout and learner disagree before the first step.
        """
        rollout = experience.rollout
        clip_range = self.recipe.clip_range or 1e-4 * _VALUES / rollout.latents_BTCHW[0, 0].numel()
        likelihood = self._likelihood(experience, number, worker)
        orders = self._orders(likelihood, len(rollout.latents_BTCHW), number, worker)
        # In half precision rounding alone exceeds a clip range, so that the rollout's own are of no use.
        old_BT = likelihood.old_BT if self.dtype == torch.float32 else None
        old_answer = None
        if old_BT is None or self.recipe.old_kl_weight:
            found_BT, old_answer = self._old(likelihood, rollout)
            old_BT = found_BT if old_BT is None else old_BT
        learning = Learning(experience, likelihood, old_BT, old_answer, orders, clip_range)
        value_error = {}
        if self.value:
            seed = int(content_id("value", self.recipe.seed, number, worker)[:15], 16)
            hidden = experience.guided.condition.hidden_BTD
            value_error = {"value_error": self.value.learn(rollout, hidden, experience.advantage_B, seed)}
        size = len(orders) // self.recipe.updates
        told: list[dict[str, float]] = []
        for update in range(self.recipe.updates):
            rows = slice(update * size, (update + 1) * size)
            told.append(self._update(learning, rows, is_first=update == 0))
        means = {name: sum(one[name] for one in told) / len(told) for name in told[0]}
        return means | {"gap": told[0]["gap"]} | value_error

    def state(self) -> dict[str, Any]:
        """Everything that going on needs, as tensors and numbers."""
        state = {"optimizer": self.optimizer.state_dict(), "learnt": self.policy.learnt_state()}
        state |= {"average": self.average.state_dict()} if self.average else {}
        return state | ({"value": self.value.state()} if self.value else {})

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.policy.load_learnt(state["learnt"])
        if self.average:
            self.average.load_state_dict(state["average"])
            self.average.to(self.policy.device)
        if self.value:
            self.value.load(state["value"])

    def kept(self) -> list[torch.Tensor]:
        """The weights that training is for, on the CPU: their moving average, if there is one."""
        if not self.average:
            return self.policy.learnt_state()
        return [weight.detach().cpu().clone() for weight in self.average.shadow_params]

    def _value_fit(self, learning_rate: float) -> ValueFit:
        unet = self.policy.unet.config
        with torch.random.fork_rng():  # the same on all workers, and the same policy with it and without
            torch.manual_seed(self.recipe.seed)
            value = Value(
                unet.in_channels * unet.sample_size**2, unet.cross_attention_dim, len(self.scheduler.timesteps)
            )
        return ValueFit(value.to(self.policy.device), learning_rate, self.total)

    def _likelihood(self, experience: Experience, number: int, worker: int) -> OfSteps | OfImages:
        rollout, recipe = experience.rollout, self.recipe
        if recipe.objective == "ddpo":
            return OfSteps(self.scheduler, rollout, experience.guided, recipe.learnt_steps)
        seed = int(content_id("noise", recipe.seed, number, worker)[:15], 16)
        chance, images = torch.Generator().manual_seed(seed), rollout.latents_BTCHW[:, -1]
        levels = recipe.learnt_places
        train_timesteps = self.scheduler.config.num_train_timesteps
        timesteps_BT = noise_levels(len(images), levels, recipe.timestep_range, train_timesteps, chance)
        noise_BTCHW = torch.randn(len(images), levels, *images.shape[1:], generator=chance)
        return OfImages(self.scheduler, images, experience.guided.condition, timesteps_BT, noise_BTCHW)

    def _orders(self, likelihood: OfSteps | OfImages, images: int, number: int, worker: int) -> torch.Tensor:
        """Where each image is learnt from, in which order: [B, learnt places]."""
        places = likelihood.places
        if not len(places):
            raise ValueError(
                f"timestep_range is {list(self.recipe.timestep_range)}, whose steps add no noise, so that nothing was "
                "chosen in them: write one that begins earlier"
            )
        order = shuffled(len(places), images, (self.recipe.seed, number, worker))
        return places[order[:, : self.recipe.learnt_places]]

    @torch.no_grad()
    def _old(self, likelihood: OfSteps | OfImages, rollout: Rollout) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the policy as it is makes of each image at each place, and answers, as in `Learning`."""
        latents = rollout.latents_BTCHW
        shape = (len(latents), int(likelihood.places.max()) + 1)
        old_BT = torch.zeros(shape)
        old_answer = torch.zeros(*shape, *latents.shape[2:]) if self.recipe.old_kl_weight else None
        for start in range(0, shape[0], self.recipe.batch_size):
            rows = slice(start, min(start + self.recipe.batch_size, shape[0]))
            for place in likelihood.places.tolist():
                place_B = torch.full((rows.stop - rows.start,), place)
                scored = self._score(likelihood, rows, place_B, self.policy.predict)
                old_BT[rows, place] = scored.log_prob_B.cpu()
                if old_answer is not None:
                    old_answer[rows, place] = scored.answer_BCHW.float().cpu()
        return old_BT, old_answer

    def _score(self, likelihood: OfSteps | OfImages, rows: slice, place_B: torch.Tensor, ask: Ask) -> Scored:
        device = self.policy.device
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            return likelihood.score(rows, place_B, ask, device)

    def _update(self, learning: Learning, rows: slice, is_first: bool) -> dict[str, float]:
        summed = torch.zeros(4, device=self.policy.device)
        gap, orders, advantage_B = 0.0, learning.orders, learning.experience.advantage_B
        parts = [
            slice(start, min(start + self.recipe.batch_size, rows.stop))
            for start in range(rows.start, rows.stop, self.recipe.batch_size)
        ]
        passes = [(part, turn) for part in parts for turn in range(orders.shape[1])]
        counts = self.total(advantage_B[rows].isfinite().sum().float().to(self.policy.device))
        for index, (part, turn) in enumerate(passes):
            with self.policy.without_sync(index < len(passes) - 1):
                loss, of_part, ratio_B = self._loss(learning, part, orders[part, turn])
                here = advantage_B[part].isfinite().sum().to(self.policy.device)
                share = here / counts.clamp(min=1) / orders.shape[1]
                (loss * share * self.workers).backward()
            summed += of_part * share
            gap = max(gap, float((ratio_B - 1).abs().max()))
        if is_first and gap > learning.clip_range / 10 and self.dtype == torch.float32:
            raise FloatingPointError(
                f"before the first step rollout and learner disagree: a ratio of probabilities is {gap:.2g} from 1, "
                f"and the clip range is {learning.clip_range:.2g}. Let both compute in float32, with the same weights"
            )
        norm = torch.nn.utils.clip_grad_norm_(self.policy.learnt, self.recipe.max_grad_norm)
        if not math.isfinite(float(norm)):
            raise FloatingPointError(f"the gradients' norm is {float(norm)}: write a smaller learning_rate")
        if counts > 0:  # else momentum alone would move the weights
            self.optimizer.step()
            if self.average:
                self.average.step(self.policy.learnt)
        self.optimizer.zero_grad(set_to_none=True)
        told = dict(zip(("loss", "clipped", "distance", "old_distance"), self.total(summed).tolist(), strict=True))
        return told | {"gap": gap, "norm": float(norm)}

    def _loss(
        self, learning: Learning, rows: slice, place_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The mean loss of some images, each at one of its places; what is told of it; and the ratios."""
        device, experience, likelihood = self.policy.device, learning.experience, learning.likelihood
        row_B = torch.arange(rows.start, rows.stop)
        advantage_B = experience.advantage_B[rows].to(device)
        if self.value:
            hidden = experience.guided.condition.hidden_BTD
            advantage_B = advantage_B - self.value.expected(experience.rollout, hidden, row_B, place_B)
        counts_B = advantage_B.isfinite()
        scored = self._score(likelihood, rows, place_B, self.policy.predict)
        old_B = learning.old_BT[row_B, place_B].to(device)
        found = policy_loss(
            scored.log_prob_B, old_B, advantage_B.float(), counts_B, learning.clip_range, self.recipe.max_advantage
        )
        distance = old_distance = torch.zeros((), device=device)
        if self.recipe.kl_weight:
            of_reference = self._score(likelihood, rows, place_B, self.policy.reference)
            distance = mean_distance(scored.answer_BCHW, of_reference.answer_BCHW, counts_B)
        if learning.old_answer_BTCHW is not None:
            old_answer = learning.old_answer_BTCHW[row_B, place_B].to(device)
            old_distance = mean_distance(scored.answer_BCHW, old_answer, counts_B)
        loss = found.loss + self.recipe.kl_weight * distance + self.recipe.old_kl_weight * old_distance
        told = torch.stack([loss.detach(), found.clipped, distance.detach(), old_distance.detach()])
        return loss, told, torch.where(counts_B, found.ratio_B, 1.0)
