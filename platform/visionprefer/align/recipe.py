"""The recipe of an image model that learns from preferences."""

from typing import Literal, Self

from pydantic import Field, model_validator

from visionprefer.reward.recipe import OverallWeights
from visionprefer.schema import OVERALL
from visionprefer.settings import Fraction
from visionprefer.training_settings import TrainingSettings


class AlignRecipe(TrainingSettings):
    """What all recipes have by which an image model is taught."""

    name: str = Field(pattern=r"^[\w.-]+$", description="Name of what is trained, for its card.")
    seed: int = Field(0, ge=0, description="Of LoRA's weights and all that is drawn by lot: data, timesteps, noise.")
    model: str = Field(description="Folder of a Stable Diffusion 1, 2 or XL, its hub id OWNER/NAME, or builtin:NAME.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id; resolved to a commit.")
    variant: str | None = Field(None, description="Weights variant in the folder, such as fp16.")
    lora_rank: int | None = Field(
        None, ge=1, description="Rank of LoRA matrices, which alone are trained then; null: all weights of the UNet."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients longer than this, all together, are cut to it.")


class OfflineRecipe(AlignRecipe):
    """What recipes have that teach an image model from images that are there, in steps of so many prompts."""

    steps: int = Field(2000, ge=1, description="Optimizer steps.")
    batch_size: int = Field(2048, ge=1, description="Prompts of one optimizer step, on all workers together.")
    accumulation: int = Field(1, ge=1, description="Forward passes that a worker makes of its part of a step.")
    learning_rate: float | None = Field(
        None, gt=0, description="Of AdamW, at its peak; null: 1e-8 times the batch size."
    )
    schedule: Literal["constant_with_warmup", "cosine"] = Field(
        "constant_with_warmup", description="Of the learning rate, as diffusers names it; both rise at first."
    )
    warm_up: Fraction = Field(0.25, description="Share of the steps in which the learning rate rises from 0.")
    ema: float | None = Field(
        None, gt=0, lt=1, description="Decay of a moving average of the weights, which is kept then; null: the last."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again in the backward pass: slower, in less memory."
    )

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate after the warm-up."""
        return self.learning_rate or 1e-8 * self.batch_size


class DPORecipe(OfflineRecipe):
    """How an image model is trained by Diffusion-DPO. Left out, everything is as in the paper (arXiv 2311.12908)."""

    aspect: str = Field(OVERALL, description="Whose preferences are learnt from.")
    weights: OverallWeights = None
    min_margin: float = Field(0.0, ge=0, description="Leave out pairs whose scores differ by less (points of 1 to 5).")
    pairs: Literal["all", "best_worst"] = Field(
        "all",
        description="all: each epoch draws one pair of each prompt anew; best_worst: always that of the largest "
        "margin, as in AGFSync.",
    )
    beta: float = Field(5000.0, gt=0, description="How closely the model is held to what it was: the larger, the more.")
    sft_weight: float = Field(
        0.0,
        ge=0,
        description="Of the chosen images' own denoising error in the loss, in units of beta / 2 (RPO, arXiv "
        "2405.16436): 0.5 weighs it as much as DPO weighs it at first. Without it both images' errors may rise.",
    )
    shuffled_labels: bool = Field(
        False,
        description="Draw by lot which image of a pair counts as chosen: a control for what the labels teach. With an "
        "sft_weight it still learns from the images.",
    )

    @model_validator(mode="after")
    def _weighs_the_overall_preference(self) -> Self:
        if self.weights is not None and self.aspect != OVERALL:
            raise ValueError(f"weights are for aspect: {OVERALL}, and aspect is {self.aspect!r}: leave one of them out")
        return self


class FinetuneRecipe(OfflineRecipe):
    """How an image model is trained on the best image of each prompt, if that is good enough, and on nothing else.

    With `min_scores` it is a round of DreamSync (arXiv 2311.17946): draw, keep, train, and draw again with what was
    trained.
    """

    aspect: str = Field(OVERALL, description="Whose score says which image of a prompt is the best.")
    min_scores: dict[str, float] = Field(
        {}, description="Least score of an image by aspect; a prompt whose images all have less is left out."
    )
