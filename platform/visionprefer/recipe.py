"""A recipe: everything about a run, one frozen model per stage. It loads no torch and no ray, so that mistakes are told
at once.
"""

import difflib
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from visionprefer.engine_settings import EngineSettings
from visionprefer.schema import ASPECTS
from visionprefer.settings import Fraction, Range, Settings, Workers


class PromptSettings(Settings):
    """Where prompts come from, and which of them are kept."""

    path: str | None = Field(
        None,
        description="A .txt (one prompt a line), .csv, .tsv, .json, .jsonl or .parquet file, local, s3:// or gs://, or "
        "hf://datasets/OWNER/NAME with or without a file in it, or builtin:blocks-training or builtin:blocks-held-out. "
        "Left out when images.existing brings its own captions.",
    )
    column: str | None = Field(None, description="Column that holds the prompt; guessed, and said, if left out.")
    near_duplicate: Annotated[float, Field(gt=0, le=1)] | None = Field(
        0.8,
        description="Drop a prompt whose pairs of neighbouring words have this Jaccard similarity or more to those of "
        "an earlier one; null: keep all.",
    )
    block_list: str | None = Field(
        None, description="A text file of words or phrases, one a line: prompts that contain one are rejected."
    )
    sample: int | None = Field(None, ge=1, description="Number of prompts to keep, chosen by hash; null: all.")
    held_out: Fraction = Field(0.1, description="Share of the prompts that no training sees, chosen by hash.")


class ImageModel(Settings):
    """One text-to-image model of several, and what is drawn for its images."""

    model: str = Field(description="Folder of a diffusers pipeline, its hub id OWNER/NAME, or builtin:NAME.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id; resolved to a commit.")
    variant: str | None = Field(None, description="Weights variant in the folder, such as fp16.")
    share: Fraction | None = Field(None, description="Share of the images; left out everywhere: equal shares.")
    guidance_scale: float | list[float] | Range = Field(
        7.5, description="Classifier-free guidance: a number, a list or {low, high, step} to draw from."
    )
    num_inference_steps: Annotated[int, Field(ge=1)] | list[Annotated[int, Field(ge=1)]] | Range = Field(
        50, description="Denoising steps: a number, a list or {low, high, step} to draw from."
    )

    @model_validator(mode="after")
    def _has_values_to_draw(self) -> Self:
        for field in ("guidance_scale", "num_inference_steps"):
            if getattr(self, field) == []:
                raise ValueError(f"{field} is []: write a number, a list of numbers, or low, high and step")
        steps = self.num_inference_steps
        if isinstance(steps, Range) and (steps.low < 1 or any(value % 1 for value in steps.model_dump().values())):
            raise ValueError(
                f"num_inference_steps is {steps.model_dump()}: write low, high and step as whole numbers from 1"
            )
        return self


class ImageSettings(Settings):
    """How prompts become images, or where images lie that exist already."""

    models: list[ImageModel] = Field([], description="The models to generate with. Either this or existing.")
    existing: str | None = Field(
        None,
        description="Images that exist already, here or in a bucket: a folder with NAME.txt beside each image or a "
        "metadata.jsonl or .csv (file_name, text), a Parquet file with a prompt and an image column, or the folder of "
        "a run or an import, whose images keep their ids.",
    )
    images_per_prompt: int = Field(4, ge=1, description="Candidates for each prompt.")
    every_model: bool = Field(
        False,
        description="true: each model makes so many candidates, from the same noise as the others, to compare models; "
        "false: a model is drawn for each candidate.",
    )
    height: int | None = Field(None, ge=8, description="Pixels, a multiple of 8; null: the model's own size.")
    width: int | None = Field(None, ge=8, description="Pixels, a multiple of 8; null: the model's own size.")
    negative_prompt: str | None = Field(None, description="What guidance leads away from.")
    prompt_embedding_noise: float = Field(
        0.0, ge=0, description="σ of Gaussian noise on the prompt embedding of candidates 1 and up (AGFSync: 0.1)."
    )
    batch_size: int = Field(
        8, ge=1, description="Images that share a denoising pass. Part of what an image is: short batches are padded."
    )
    block_size: int = Field(32, ge=1, description="Images that are committed together; no effect on the images.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="Precision of the model; auto: float16 on a GPU, float32 on a CPU."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto: a GPU where there is one.")
    format: Literal["png", "webp"] = Field("png", description="How images are stored; both without loss.")
    workers: Workers = Workers()

    @model_validator(mode="after")
    def _size_fits_the_models(self) -> Self:
        size = {"height": self.height, "width": self.width}
        for field, value in size.items():
            if value is None and any(size.values()):
                raise ValueError(f"{size} is half a size: write {field} too, or neither")
            if value is not None and value % 8:
                raise ValueError(f"{field} is {value}: write a multiple of 8, such as {value // 8 * 8}")
        return self

    @model_validator(mode="after")
    def _compares_models_alike(self) -> Self:
        if self.every_model and any(model.share is not None for model in self.models):
            raise ValueError("every_model is true, and models have shares: each makes all images; leave out the shares")
        if self.every_model and self.prompt_embedding_noise:
            raise ValueError("every_model is for models that get the same noise: write prompt_embedding_noise: 0")
        if self.every_model and len(self.models) < 2:
            raise ValueError(f"every_model is true, and there are {len(self.models)} models: write two or more")
        return self

    @model_validator(mode="after")
    def _shares_add_up(self) -> Self:
        if bool(self.models) == bool(self.existing):
            raise ValueError("write either models (to generate) or existing (images that are there already)")
        shares = [model.share for model in self.models]
        if any(share is not None for share in shares):
            if any(share is None for share in shares):
                raise ValueError(f"shares are {shares}: give every model a share, or none")
            if abs(sum(share or 0 for share in shares) - 1) > 1e-6:
                total = sum(share or 0 for share in shares)
                raise ValueError(f"shares are {shares} and add up to {total:g}: write shares that add up to 1")
        return self


class JudgeSettings(EngineSettings):
    """Who scores the images, and how it is asked."""

    mode: Literal["single", "joint"] = Field(
        "single",
        description="single: one image a request. joint: all images of a prompt in one, compared as they are scored.",
    )
    swapped: Fraction = Field(
        0.0,
        description="With mode joint: share of the prompts whose images are shown once more, in reverse order. A pair "
        "of which the judge says now this and now the opposite is a tie.",
    )
    repeats: int = Field(
        1, ge=1, description="With mode single: how often each image is judged, by other draws; the mean is its score."
    )
    rationale_length: int = Field(400, ge=1, description="Most characters of a rationale.")

    @model_validator(mode="after")
    def _may_say_something_else_again(self) -> Self:
        if self.swapped and self.mode != "joint":
            raise ValueError(f"swapped is {self.swapped:g}, and a single image has no order: write mode: joint, or 0")
        if self.repeats > 1 and self.mode == "joint":
            raise ValueError(f"repeats is {self.repeats}, and mode is joint: write swapped, or mode: single")
        if self.repeats > 1 and not self.temperature:
            raise ValueError(f"repeats is {self.repeats}, and temperature 0 says the same again: write temperature: 1")
        return self


class PreferenceSettings(Settings):
    """How scores become preferences."""

    pairs: Literal["all", "best_worst"] = Field(
        "all", description="all: every pair of a prompt's images. best_worst: highest against lowest score, one pair."
    )
    weights: dict[str, float] = Field(
        dict.fromkeys(ASPECTS, 1 / len(ASPECTS)),
        min_length=1,
        description="Weight of each scorer in the overall score, a weighted sum.",
    )
    judges: Literal["current", "mean", "vote"] = Field(
        "current",
        description="Whose scores count where several have judged into one folder. current: this recipe's judge. "
        "mean: the mean of all. vote: each judge has a vote on each pair; equal votes are a tie.",
    )
    tie_margin: float = Field(0.0, ge=0, description="Scores that differ by this or less are a tie (points of 1 to 5).")

    @model_validator(mode="after")
    def _weighs_something(self) -> Self:
        if not any(self.weights.values()):
            raise ValueError(f"weights are {self.weights}: write one that is not 0")
        return self


class PolishRecipe(Settings):
    """Prompts, and who polishes them before they become images."""

    name: str = Field(pattern=r"^[\w.-]+$", description="Name, for what is printed.")
    seed: int = Field(0, ge=0, description="Seed of the sample of prompts, where only some are kept.")
    prompts: PromptSettings
    polish: EngineSettings


class Recipe(Settings):
    """Prompts to preferences: everything about one run."""

    name: str = Field(pattern=r"^[\w.-]+$", description="Name of the run, for the dataset card and reports.")
    seed: int = Field(0, ge=0, description="Seed of every draw; another seed, other images.")
    prompts: PromptSettings = PromptSettings()
    images: ImageSettings
    judge: JudgeSettings
    preferences: PreferenceSettings = PreferenceSettings()

    @model_validator(mode="after")
    def _has_prompts(self) -> Self:
        if bool(self.prompts.path) == bool(self.images.existing):
            raise ValueError("write prompts.path, or images.existing whose captions are the prompts; one of the two")
        return self

    @model_validator(mode="after")
    def _weighs_what_is_scored(self) -> Self:
        for scorer, weight in self.preferences.weights.items():
            if scorer not in ASPECTS:
                near = difflib.get_close_matches(scorer, ASPECTS, n=1)
                hint = f"did you mean {near[0]}?" if near else "write some of " + ", ".join(ASPECTS)
                raise ValueError(f"preferences.weights.{scorer} is {weight:g}, and nothing scores that; {hint}")
        return self
