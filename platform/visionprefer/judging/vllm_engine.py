"""The engine `vllm`: how it is set up and asked, and an engine in this process, for a few rows.

In a run it is the stream that drives vLLM (`visionprefer_pipelines.vllm_stream`), with the same settings.
"""

import json
import os
from typing import Any

from visionprefer.buckets import is_in_bucket
from visionprefer.engine_settings import EngineSettings
from visionprefer.errors import InputError, missing_extra
from visionprefer.judging.engine import Reply, Request, chat, in_batches
from visionprefer.judging.rubric import JSON_FORM
from visionprefer.models import Model

# Read when vLLM is imported; its own lines would stand between ours.
ENVIRONMENT = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_KVCACHE_SPACE": "1"}


class VLLMEngine:
    """Runs a model in vLLM, as many requests at a time as the recipe's batch size says.

    Raises:
        InputError: if vLLM is not installed, or its engine does not start, with the engine's reason.
    """

    def __init__(self, settings: EngineSettings, model: Model) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            from vllm import LLM
        except ImportError as error:
            raise missing_extra("vllm", "vllm") from error

        self.settings = settings
        self.name = model.label
        arguments = engine_arguments(settings, model)
        try:
            self.engine = LLM(model=model.location, **arguments)
        except Exception as error:  # engines raise errors of every kind
            raise InputError(f"model {model.name!r} cannot be run by vLLM: {error}") from error

    def ask(self, requests: list[Request]) -> list[Reply]:
        """Answer all requests, in batches of the recipe's size."""
        return in_batches(requests, self.settings.batch_size, self._generate)

    def describe(self) -> str:
        """What was chosen, for the person at the terminal."""
        return f"{self.name} runs in vLLM, {described(self.settings)}"

    def _generate(self, requests: list[Request]) -> list[Reply]:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams
        from vllm.v1.engine.exceptions import EngineDeadError

        asked = []
        for request in requests:
            said = sampling(request, self.settings)
            if held := said.pop("structured_outputs", None):
                said["structured_outputs"] = StructuredOutputsParams(**held)
            asked.append(SamplingParams(**said))
        try:
            answers = self.engine.chat(
                [chat(request) for request in requests], asked, use_tqdm=False, chat_template_content_format="openai"
            )
        except EngineDeadError as error:  # no later request would be answered either
            raise InputError(f"model {self.name!r}: vLLM's engine died: {error}") from error
        return [
            Reply(
                answer.outputs[0].text,
                len(answer.prompt_token_ids or ()),
                len(answer.outputs[0].token_ids),
                cut_off=answer.outputs[0].finish_reason == "length",
            )
            for answer in answers
        ]


def engine_arguments(settings: EngineSettings, model: Model) -> dict[str, Any]:
    """What vLLM's engine is started with; the recipe's `engine_kwargs` come last.

    Raises:
        InputError: if the model lies where vLLM cannot load it from.
    """
    if is_in_bucket(model.name):
        raise InputError(
            f"model {model.name}: engines of vLLM load from the hub, or from a folder that every machine sees at one "
            "place. Write one of these, or engine: transformers"
        )
    on_cpu = not settings.workers.num_gpus
    dtype = settings.dtype if settings.dtype != "auto" else "float32" if on_cpu else "bfloat16"
    return {
        "dtype": dtype,
        "structured_outputs_config": {"backend": "guidance"},
        "enforce_eager": on_cpu,
        "revision": model.revision,
        "disable_log_stats": True,
        **settings.engine_kwargs,
    }


def sampling(request: Request, settings: EngineSettings) -> dict[str, Any]:
    """How a request is sampled, in vLLM's words."""
    said: dict[str, Any] = {
        "temperature": request.temperature,
        "seed": request.seed,
        "max_tokens": settings.max_new_tokens,
        **settings.sampling,
    }
    if settings.structured:
        said["structured_outputs"] = {"json": json.dumps(request.schema | {"x-guidance": JSON_FORM})}
    return said


def described(settings: EngineSettings) -> str:
    """Where it runs, and whether replies are held to their schema, for the person at the terminal."""
    where = "on GPUs" if settings.workers.num_gpus else "on the CPU"
    return where + (", replies held to their schema" if settings.structured else "")
