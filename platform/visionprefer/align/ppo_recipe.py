"""The recipe of an image model that learns from its own images and what an endpoint says of them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from visionprefer.align.recipe import AlignRecipe
from visionprefer.recipe import PromptSettings
from visionprefer.schema import OVERALL
from visionprefer.settings import Settings, Workers


class Reward(Settings):
    """One reward of several: what an endpoint's model says of an image."""

    model: str | None = Field(None, description="The model's name there; null: the endpoint's first.")
    score: str = Field(OVERALL, description="Which of its scores: overall, or an aspect.")
    weight: float = Field(1.0, description="In the sum of the rewards.")

    @property
    def name(self) -> str:
        """What it is called in the log."""
        return f"{self.model}: {self.score}" if self.model else self.score


class Watch(Settings):
    """What becomes of images by every other score of the endpoint, while the rewards are maximised."""

    every: int = Field(10, ge=1, description="Rollouts between two looks.")
    images: int = Field(64, ge=1, description="Of a look: one a held-out prompt, from the same noise in every look.")
    stop_drop: float | None = Field(
        None, gt=0, description="Stop when another score has fallen by so many standard deviations; null: go on."
    )


class PPORecipe(AlignRecipe):
    """How an image model is trained by PPO. Left out, everything is as in DDPO (arXiv 2305.13301)."""

    prompts: PromptSettings = Field(description="What is drawn while training: those that are not held out.")
    rewards: tuple[Reward, ...] = Field((Reward(),), min_length=1, description="What is maximised: their sum.")
    objective: Literal["ddpo", "awm"] = Field(
        "ddpo",
        description="What is made likelier: ddpo, the noisy steps by which an image was drawn; awm, the image itself, "
        "by its denoising error (Advantage Weighted Matching, arXiv 2509.25050), however it was drawn.",
    )
    lora_rank: int | None = Field(
        4, ge=1, description="Rank of LoRA matrices, which alone are trained then; null: all weights of the UNet."
    )
    rollouts: int = Field(50, ge=1, description="How often images are drawn and learnt from.")
    images: int = Field(256, ge=2, description="Of one rollout, on all workers together.")
    images_per_prompt: int = Field(1, ge=1, description="Of one rollout.")
    updates: int = Field(2, ge=1, description="Optimizer steps of one rollout, each on as many of its images.")
    batch_size: int = Field(8, ge=1, description="Images that share a forward pass while learning.")
    rollout_batch_size: int = Field(16, ge=1, description="Images that share a forward pass while drawing.")
    num_inference_steps: int = Field(50, ge=1, description="Denoising steps.")
    guidance_scale: float = Field(
        5.0, description="Classifier-free guidance while drawing, and by ddpo also while learning."
    )
    timestep_range: tuple[float, float] = Field(
        (0.0, 1.0),
        description="Between which shares of the way from noise, 0, to image, 1, steps are learnt from. The last ones "
        "decide details, and their gradients are by far the largest. By awm it is learnt from as many noise levels.",
    )
    timestep_fraction: float = Field(1.0, gt=0, le=1, description="Share of these steps that are learnt from.")
    learning_rate: float = Field(3e-4, gt=0, description="Of AdamW.")
    ema: float | None = Field(
        None, gt=0, lt=1, description="Decay of a moving average of the weights, which is kept then; null: the last."
    )
    clip_range: float | None = Field(
        None, gt=0, description="Of the ratio of probabilities; null: 1e-4 for 4 × 64 × 64 latents, and as much in all."
    )
    max_advantage: float = Field(5.0, gt=0, description="Advantages are cut to between minus this and this.")
    kl_weight: float = Field(0.0, ge=0, description="Of the distance from the reference (DPOK); 0.001 or so.")
    old_kl_weight: float = Field(
        0.0, ge=0, description="Of the distance from the policy that drew the images; 1 or so holds awm back enough."
    )
    value_learning_rate: float | None = Field(
        None,
        gt=0,
        description="Of a network that expects the advantage from each step's latents and has it subtracted (DPOK), "
        "1e-4 there; null: none.",
    )
    buffer_size: int = Field(16, ge=1, description="Rewards kept of each prompt, to judge new ones by.")
    min_count: int = Field(16, ge=1, description="With fewer, a reward is judged by those of its rollout.")
    scale_rewards: Literal["group", "batch"] = Field(
        "group",
        description="What a reward's distance from the mean of its prompt is divided by: the deviation of that "
        "prompt's rewards; or that of all such distances in the rollout, by which a prompt weighs as much as its "
        "images differ.",
    )
    retry_for: float = Field(120.0, ge=0, description="Seconds for which an endpoint that fails is asked again.")
    watch: Watch | None = Field(Watch(), description="How often is looked at held-out prompts; null: never.")
    rollout_workers: Workers = Field(Workers(), description="Who draws; `workers` learn.")

    @model_validator(mode="after")
    def _has_so_many_rollout_workers(self) -> Self:
        if not isinstance(self.rollout_workers.actors, int):
            raise ValueError(f"rollout_workers.actors is {list(self.rollout_workers.actors)}: write one number")
        return self

    @model_validator(mode="after")
    def _learns_from_steps(self) -> Self:
        low, high = self.timestep_range
        if not 0 <= low < high <= 1 or not self.learnt_steps:
            raise ValueError(
                f"timestep_range is {list(self.timestep_range)}: write two shares of 0 to 1, as [0, 0.6], that have "
                f"one of {self.num_inference_steps} steps between them"
            )
        return self

    @model_validator(mode="after")
    def _expects_what_steps_are_worth(self) -> Self:
        if self.value_learning_rate and self.objective != "ddpo":
            raise ValueError(
                f"value_learning_rate is {self.value_learning_rate:g}, of a network that looks at the steps by which "
                f"an image was drawn, and objective is {self.objective}, which does not: leave it out"
            )
        return self

    @property
    def learnt_steps(self) -> range:
        """Which steps may be learnt from, counted from the noise."""
        low, high = (round(share * self.num_inference_steps) for share in self.timestep_range)
        return range(low, high)

    @property
    def learnt_places(self) -> int:
        """At how many steps, or noise levels, an image is learnt from, unless fewer of its steps were a choice."""
        return max(1, round(len(self.learnt_steps) * self.timestep_fraction))

    @model_validator(mode="after")
    def _computes_finely_enough(self) -> Self:
        if self.dtype == "float16":
            raise ValueError("dtype is float16, in which PPO's gradients vanish: write bfloat16 or float32")
        return self

    @model_validator(mode="after")
    def _names_each_reward_once(self) -> Self:
        names = [reward.name for reward in self.rewards]
        if len(set(names)) < len(names):
            raise ValueError(f"rewards are {names}: write each once, with its weight")
        return self

    @model_validator(mode="after")
    def _shares_images_out(self) -> Self:
        workers = int(str(self.workers.actors))
        if self.images % (workers * self.updates * self.images_per_prompt):
            raise ValueError(
                f"images is {self.images}: write a multiple of workers × updates × images_per_prompt, "
                f"{workers * self.updates * self.images_per_prompt}"
            )
        return self

    @model_validator(mode="after")
    def _counts_what_is_kept(self) -> Self:
        if self.min_count > self.buffer_size:
            raise ValueError(f"min_count is {self.min_count}: write at most buffer_size, {self.buffer_size}")
        return self
