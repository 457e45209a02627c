"""The recipe of a reward model: what it begins from, what it learns from and how; and of its variants."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from visionprefer.schema import ASPECTS, OVERALL
from visionprefer.settings import Fraction, Settings
from visionprefer.training_settings import TrainingSettings


def _weigh_something(weights: dict[str, float] | None) -> dict[str, float] | None:
    if weights is not None and not (weights and min(weights.values()) >= 0 and sum(weights.values()) > 0):
        raise ValueError(f"weights are {weights}: write some above 0 and none below, or leave weights out")
    return weights


OverallWeights = Annotated[
    dict[str, float] | None,
    AfterValidator(_weigh_something),
    Field(
        description="Weights of the aspects in the overall preference; one that is left out has none. Without weights, "
        "the overall preference is as the run has it."
    ),
]


class RewardRecipe(TrainingSettings):
    """How VP-Score is trained. Left out, everything is as in ImageReward."""

    name: str = Field(pattern=r"^[\w.-]+$", description="Name of the model, for its card and for who asks an endpoint.")
    seed: int = Field(0, ge=0, description="Of the heads' weights, the batches and dropout.")
    backbone: str = Field(description="Folder of a BLIP or CLIP, its hub id OWNER/NAME, or builtin:NAME.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id; resolved to a commit.")
    scores: tuple[str, ...] = Field(
        (OVERALL, *ASPECTS),
        min_length=1,
        description="Aspects of the training table that get a score each. The first is the score that counts.",
    )
    weights: OverallWeights = None
    min_margin: float = Field(0.0, ge=0, description="Leave out pairs whose scores differ by less (points of 1 to 5).")
    data_fraction: float = Field(1.0, gt=0, le=1, description="Share of the training prompts to use, chosen by hash.")
    validation: Fraction = Field(
        0.1, description="Share of the training prompts that choose the best epoch and train nothing, chosen by hash."
    )
    epochs: int = Field(10, ge=1, description="Passes over the training prompts.")
    batch_size: int = Field(
        64,
        ge=4,
        multiple_of=4,
        description="Prompts of one optimizer step, on all workers together; up to three more where a row group of the "
        "training table, which is not divided, has them. Prompts without a pair to learn from do not count.",
    )
    accumulation: int = Field(1, ge=1, description="Forward passes that a worker makes of its part of a step.")
    learning_rate: float = Field(1e-5, gt=0, description="Of Adam, at its peak; it falls to 0 as a cosine.")
    max_grad_norm: float | None = Field(
        None, gt=0, description="Gradients longer than this, all weights together, are cut to it; None: none is."
    )
    warm_up: Fraction = Field(0.0, description="Share of the steps in which the learning rate rises from 0.")
    frozen: Fraction = Field(0.7, description="Share of each encoder's layers that stay as they are, from the bottom.")
    dropout: bool = Field(True, description="Whether layers drop activations while training.")

    @model_validator(mode="after")
    def _names_each_score_once(self) -> Self:
        if len(set(self.scores)) < len(self.scores):
            raise ValueError(f"scores are {list(self.scores)}: write each once")
        return self


class AblationRecipe(Settings):
    """Variants of a recipe, each trained with each seed."""

    name: str = Field(pattern=r"^[\w.-]+$")
    base: str = Field(description="The recipe of a reward model: a YAML file, or the name of one of the package.")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="Each variant is trained once with each.")
    variants: dict[str, dict[str, Any]] = Field(
        min_length=1, description="What each variant sets differently, by its name; the first is the others' measure."
    )

    @model_validator(mode="after")
    def _names_make_folders(self) -> Self:
        for name in self.variants:
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"the variant's name is {name!r}: write letters, digits, '-' and '_'")
        return self

    @model_validator(mode="after")
    def _leaves_seeds_alone(self) -> Self:
        if taken := [name for name, changes in self.variants.items() if "seed" in changes]:
            raise ValueError(f"variant {taken[0]} sets a seed: write it into seeds")
        return self
