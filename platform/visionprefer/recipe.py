"""A recipe: everything about a run, one frozen model per stage. It loads no torch and no ray, so that mistakes are told
at once.
"""

import difflib
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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


class Price(Settings):
    """What a server charges, in any currency."""

    prompt: float = Field(ge=0, description="For a million tokens of requests.")
    completion: float = Field(ge=0, description="For a million tokens of replies.")


class ApiSettings(Settings):
    """Where a server stands that speaks OpenAI's protocol, and how much it may be asked."""

    base_url: str | None = Field(
        None, description="Address of the server, such as http://127.0.0.1:8000/v1; null: OpenAI's own."
    )
    key_from: str = Field(
        "OPENAI_API_KEY", description="Environment variable that holds the key. The key itself is written nowhere."
    )
    concurrency: int = Field(32, ge=1, description="Most requests in flight.")
    requests_per_minute: float | None = Field(None, gt=0, description="Most requests a minute, evenly spaced.")
    tokens_per_minute: float | None = Field(None, gt=0, description="Most tokens a minute, those of replies too.")
    timeout: float = Field(120, gt=0, description="Seconds that a request may take.")
    retries: int = Field(6, ge=0, description="Tries after the first, where the server is busy or the line is cut.")
    price: Price | None = Field(None, description="What the server charges, for the costs of replies and the budget.")
    budget: float | None = Field(None, gt=0, description="Most money that a run may cost; it stops before that.")
    image_tokens: int = Field(4096, ge=0, description="Most tokens that an image counts for, to reserve its price.")

    @model_validator(mode="after")
    def _holds_no_secret_and_can_count(self) -> Self:
        if self.base_url and ("@" in self.base_url or "?" in self.base_url):
            raise ValueError("base_url may hold a key, and recipes are kept: write it without user and query")
        if self.budget and not self.price:
            raise ValueError(f"budget is {self.budget:g}, and price is missing: write price.prompt, price.completion")
        return self


_SAID_ELSEWHERE = {
    "temperature": "temperature",
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "seed": "the recipe's seed",
    "response_format": "structured",
    "structured_outputs": "structured",
}


class EngineSettings(Settings):
    """What runs a model that answers, and how it is asked."""

    engine: Literal["transformers", "vllm", "openai"] = Field(
        "transformers",
        description="What runs the model: transformers or vllm on the cluster; openai, a server of that protocol.",
    )
    model: str = Field(
        description="Folder of a model, its hub id OWNER/NAME, or builtin:NAME; "
        "with engine openai, the name that the server knows."
    )
    api: ApiSettings = Field(
        ApiSettings(), description="With engine openai: where it is, and how much it may be asked."
    )
    engine_kwargs: dict[str, Any] = Field(
        {}, description="With engine vllm: further arguments of it, such as max_model_len or tensor_parallel_size."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id; resolved to a commit.")
    sampling: dict[str, Any] = Field(
        {},
        description="With engine vllm or openai: what a request says beside the temperature, in vLLM's words, such as "
        "top_p, top_k, presence_penalty or repetition_penalty.",
    )
    structured: bool = Field(True, description="Hold the reply to its JSON schema while it is generated.")
    max_new_tokens: int = Field(768, ge=1, description="Most tokens of a reply; one that is cut off is asked again.")
    temperature: float = Field(0.0, ge=0, description="0: the likeliest token; the second asking samples at least 0.7.")
    batch_size: int = Field(8, ge=1, description="Requests that share a forward pass; vllm packs them itself.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="Precision of the model; auto: bfloat16 on a GPU, float32 on a CPU."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto: a GPU where there is one.")
    workers: Workers = Workers()

    @model_validator(mode="after")
    def _asks_whom_it_says(self) -> Self:
        if self.api != ApiSettings() and self.engine != "openai":
            raise ValueError(f"api is for engine openai, and engine is {self.engine}: write one or leave out the other")
        if self.engine_kwargs and self.engine != "vllm":
            raise ValueError(f"engine_kwargs is for vllm, and engine is {self.engine}: write engine: vllm or drop it")
        if self.sampling and self.engine == "transformers":
            raise ValueError("sampling is for engines vllm and openai: transformers knows the temperature alone")
        for name, field in _SAID_ELSEWHERE.items():
            if name in self.sampling:
                raise ValueError(f"sampling.{name} is said by {field}: write that, and leave this out")
        if self.engine == "openai" and self.workers.actors != 1:
            raise ValueError("engine openai keeps its limits in one actor: write api.concurrency in place of workers")
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
