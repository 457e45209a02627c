"""What vLLM is started with and asked; the engine itself is tested where vLLM is installed."""

import importlib.util
import json

import pytest

from visionprefer.engine_settings import EngineSettings
from visionprefer.errors import InputError
from visionprefer.judging.engine import Request
from visionprefer.judging.vllm_engine import VLLMEngine, described, engine_arguments, sampling
from visionprefer.models import Model
from visionprefer.settings import Workers

MODEL = Model("OWNER/NAME", "abc", None, "digest")
SCHEMA = {"type": "object"}


def test_on_the_cpu_it_computes_in_float32_and_on_a_gpu_in_bfloat16_unless_the_recipe_says_otherwise() -> None:
    on_cpu = EngineSettings(model="OWNER/NAME", engine="vllm")
    on_gpu = on_cpu.model_copy(update={"workers": Workers(num_gpus=1)})
    said = on_gpu.model_copy(
        update={"dtype": "float16", "engine_kwargs": {"max_model_len": 8192, "enforce_eager": True}}
    )
    assert (engine_arguments(on_cpu, MODEL)["dtype"], engine_arguments(on_cpu, MODEL)["enforce_eager"]) == (
        "float32",
        True,
    )
    assert (engine_arguments(on_gpu, MODEL)["dtype"], engine_arguments(on_gpu, MODEL)["enforce_eager"]) == (
        "bfloat16",
        False,
    )
    found = engine_arguments(said, MODEL)
    assert (found["dtype"], found["enforce_eager"], found["max_model_len"]) == ("float16", True, 8192)
    assert found["revision"] == "abc"
    assert described(on_gpu) == "on GPUs, replies held to their schema"


def test_a_request_is_sampled_as_the_recipe_says_and_held_to_its_schema() -> None:
    settings = EngineSettings(model="m", engine="vllm", max_new_tokens=7, sampling={"top_p": 0.9})
    request = Request([], "?", 3, 0.5, SCHEMA)
    found = sampling(request, settings)
    held = json.loads(found.pop("structured_outputs")["json"])
    assert found == {"temperature": 0.5, "seed": 3, "max_tokens": 7, "top_p": 0.9}
    assert held.items() > SCHEMA.items()
    assert "structured_outputs" not in sampling(request, settings.model_copy(update={"structured": False}))


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is there")
def test_where_vllm_is_missing_it_says_what_to_install() -> None:
    with pytest.raises(InputError, match=r"vllm is not installed.*visionprefer\[vllm\]"):
        VLLMEngine(EngineSettings(model="OWNER/NAME", engine="vllm"), MODEL)
