"""A recipe: one YAML file that says everything about a run. One frozen model per stage; reading it loads no torch and
no ray, so that mistakes are told at once.
"""

import difflib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from visionprefer.errors import InputError
from visionprefer.schema import ASPECTS

Fraction = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """Settings of one stage: immutable, and without room for keys that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Range(Settings):
    """Evenly spaced values, drawn with equal chance."""

    low: float = Field(description="Smallest value.")
    high: float = Field(description="Largest value; drawn too.")
    step: float = Field(gt=0, description="Distance between neighbours. Images of equal value share batches.")

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.high < self.low:
            raise ValueError(f"high is {self.high}, which is below low, {self.low}: write low ≤ high")
        return self

    def values(self) -> list[float]:
        """low, low + step, … up to high."""
        return [round(self.low + i * self.step, 9) for i in range(int((self.high - self.low) / self.step + 1e-9) + 1)]


class Workers(Settings):
    """The actors of one stage, and what each of them reserves on the cluster."""

    actors: Annotated[int, Field(ge=1)] | tuple[int, int] = Field(
        1, description="Number of actors, or [fewest, most] to let Ray scale between the two."
    )
    num_cpus: float = Field(1, gt=0, description="CPU cores that each actor reserves.")
    num_gpus: float = Field(0, ge=0, description="GPUs that each actor reserves; 0.5 puts two actors on one GPU.")
    resources: dict[str, float] = Field({}, description="Custom resources of the cluster that each actor reserves.")

    @model_validator(mode="after")
    def _scales_upwards(self) -> Self:
        if isinstance(self.actors, tuple) and not 1 <= self.actors[0] <= self.actors[1]:
            raise ValueError(f"actors is {list(self.actors)}: write [fewest, most] with 1 ≤ fewest ≤ most")
        return self


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
        description="Images that exist already: a folder with NAME.txt beside each image or a metadata.jsonl or .csv "
        "(file_name, text), or a Parquet file with a prompt and an image column.",
    )
    images_per_prompt: int = Field(4, ge=1, description="Candidates for each prompt.")
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


class JudgeSettings(Settings):
    """Who scores the images, and how it is asked."""

    engine: Literal["transformers"] = Field("transformers", description="What runs the judge.")
    model: str = Field(description="Folder of an image-text-to-text model, its hub id OWNER/NAME, or builtin:NAME.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id; resolved to a commit.")
    structured: bool = Field(True, description="Hold the reply to the rubric's JSON schema while it is generated.")
    rationale_length: int = Field(400, ge=1, description="Most characters of a rationale.")
    max_new_tokens: int = Field(768, ge=1, description="Most tokens of a reply; one that is cut off is asked again.")
    temperature: float = Field(0.0, ge=0, description="0: the likeliest token; the second asking samples at least 0.7.")
    batch_size: int = Field(8, ge=1, description="Requests that share a forward pass.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="Precision of the model; auto: bfloat16 on a GPU, float32 on a CPU."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto: a GPU where there is one.")
    workers: Workers = Workers()


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
    tie_margin: float = Field(0.0, ge=0, description="Scores that differ by this or less are a tie (points of 1 to 5).")

    @model_validator(mode="after")
    def _weighs_something(self) -> Self:
        if not any(self.weights.values()):
            raise ValueError(f"weights are {self.weights}: write one that is not 0")
        return self


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


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and check it.

    Files and folders that it names are looked for beside the recipe first, then in the working directory.

    Args:
        path: a YAML file.
        overrides: `key.subkey=value` each, the value in YAML.

    Raises:
        InputError: naming each field that is wrong, its value and what to write.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a YAML file that can be read: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: a recipe is a mapping of fields; this file holds {type(data).__name__}")
    for override in overrides or []:
        _override(data, override)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{path}: " + "\n".join(_sentences(error))) from error
    return _with_paths(recipe, path.resolve().parent)


def recipe_schema() -> str:
    """The JSON schema of a recipe, for editors that complete and check YAML."""
    return json.dumps(Recipe.model_json_schema(), indent=2, ensure_ascii=False)


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise InputError(f"--set {override}: write --set key=value, such as --set images.batch_size=4")
    try:
        *parents, last = [int(part) if part.isdecimal() else part for part in key.split(".")]
        target: Any = data
        for parent in parents:
            target = target.setdefault(parent, {}) if isinstance(target, dict) else target[parent]
        target[last] = yaml.safe_load(value)
    except (IndexError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"--set {override}: the recipe has no such place as {key}: {error}") from error


def _sentences(error: ValidationError) -> list[str]:
    """One sentence per wrong field: where, what is wrong, the value found, the nearest name."""
    sentences = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in problem["loc"] if not _is_type_tag(part)) or "recipe"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            known = _fields_at(problem["loc"][:-1])
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
            hint = f"did you mean {near[0]}?" if near else "known here: " + ", ".join(known)
            sentences.append(f"{where}: no such field; {hint}")
        elif problem["type"] == "missing":
            sentences.append(f"{where}: missing; add it")
        elif problem["type"] == "value_error":
            sentences.append(f"{where}: {message}")
        else:
            sentences.append(f"{where}: {message[0].lower()}{message[1:]}, and it is {problem['input']!r}")
    return sentences


def _is_type_tag(part: int | str) -> bool:
    """pydantic adds the tried member of a union to the place of an error; people do not write it."""
    return (
        isinstance(part, str) and re.match(r"^(list|tuple|constrained-|function-|Range$|int$|float$)", part) is not None
    )


def _fields_at(loc: tuple[int | str, ...]) -> list[str]:
    """Field names of the settings that stand at a place in the recipe."""
    models: dict[str, type[Settings]] = {
        "prompts": PromptSettings,
        "images": ImageSettings,
        "judge": JudgeSettings,
        "preferences": PreferenceSettings,
        "models": ImageModel,
        "workers": Workers,
        "Range": Range,
    }
    names = [part for part in loc if isinstance(part, str) and part in models]
    return list(models[names[-1]].model_fields if names else Recipe.model_fields)


def _with_paths(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every local file it names as an absolute path."""

    def found(value: str | None) -> str | None:
        if value is None or "://" in value:
            return value
        for candidate in (folder / Path(value).expanduser(), Path(value).expanduser()):
            if candidate.exists():
                return str(candidate.resolve())
        return value

    prompts = recipe.prompts.model_copy(
        update={"path": found(recipe.prompts.path), "block_list": found(recipe.prompts.block_list)}
    )
    models = [model.model_copy(update={"model": found(model.model)}) for model in recipe.images.models]
    images = recipe.images.model_copy(update={"models": models, "existing": found(recipe.images.existing)})
    judge = recipe.judge.model_copy(update={"model": found(recipe.judge.model)})
    return recipe.model_copy(update={"prompts": prompts, "images": images, "judge": judge})
