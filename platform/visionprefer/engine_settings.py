"""What runs a model that answers, a judge or a writer, and how it is asked."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from visionprefer.settings import Settings, Workers


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
