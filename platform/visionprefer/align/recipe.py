"""The recipe of an image model that learns from preferences."""

from typing import Literal, Self

from pydantic import Field, model_validator

from visionprefer.recipe import Fraction, Settings, Workers
from visionprefer.schema import OVERALL


class DPORecipe(Settings):
    """How an image model is trained by Diffusion-DPO. Left out, everything is as in the paper (arXiv 2311.12908)."""

    name: str = Field(pattern=r"^[\w.-]+$", description="Name of what is trained, for its card.")
    seed: int = Field(0, ge=0, description="Of LoRA's weights, the batches, timesteps and noise.")
    model: str = Field(description="Folder of a Stable Diffusion 1, 2 or XL, its hub id OWNER/NAME, or builtin:NAME.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id; resolved to a commit.")
    variant: str | None = Field(None, description="Variant of the weights, such as fp16.")
    aspect: str = Field(OVERALL, description="Whose preferences are learnt from.")
    weights: dict[str, float] | None = Field(
        None,
        description="Weights of the aspects in the overall preference; one that is left out has none. Without weights, "
        "the overall preference is as the run has it.",
    )
    min_margin: float = Field(0.0, ge=0, description="Leave out pairs whose scores differ by less (points of 1 to 5).")
    pairs: Literal["all", "best_against_worst"] = Field(
        "all",
        description="all: each epoch draws one pair of each prompt anew; best_against_worst: always that of the "
        "largest margin, as in AGFSync.",
    )
    lora_rank: int | None = Field(
        None, ge=1, description="Rank of LoRA matrices, which alone are trained then; null: all weights of the UNet."
    )
    beta: float = Field(5000.0, gt=0, description="How closely the model is held to what it was: the larger, the more.")
    steps: int = Field(2000, ge=1, description="Optimizer steps.")
    batch_size: int = Field(
        2048, ge=4, multiple_of=4, description="Pairs of one optimizer step, on all workers together."
    )
    accumulation: int = Field(1, ge=1, description="Forward passes that a worker makes of its part of a step.")
    learning_rate: float | None = Field(
        None, gt=0, description="Of AdamW, at its peak; null: 1e-8 times the batch size."
    )
    schedule: Literal["constant", "cosine"] = Field("constant", description="Of the learning rate, after the warm-up.")
    warm_up: Fraction = Field(0.25, description="Share of the steps in which the learning rate rises from 0.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients longer than this, all together, are cut to it.")
    ema: float | None = Field(
        None, gt=0, lt=1, description="Decay of a moving average of the weights, which is kept then; null: the last."
    )
    gradient_checkpointing: bool = Field(False, description="Whether to compute activations twice to save memory.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Precision of the passes; what learns stays in float32. auto: float16 on a GPU, else float32.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where the worker has one.")
    retries: int = Field(3, ge=0, description="How often training goes on from its checkpoint when a worker dies.")
    workers: Workers = Workers()

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate after the warm-up."""
        return self.learning_rate or 1e-8 * self.batch_size

    @model_validator(mode="after")
    def _weighs_the_overall_preference(self) -> Self:
        if self.weights is None:
            return self
        if not (self.weights and min(self.weights.values()) >= 0 and sum(self.weights.values()) > 0):
            raise ValueError(f"weights are {self.weights}: write some above 0 and none below, or leave weights out")
        if self.aspect != OVERALL:
            raise ValueError(f"weights are for aspect: {OVERALL}, and aspect is {self.aspect!r}: leave one of them out")
        return self

    @model_validator(mode="after")
    def _has_so_many_workers(self) -> Self:
        if not isinstance(self.workers.actors, int):
            raise ValueError(f"workers.actors is {list(self.workers.actors)}: write one number")
        return self
