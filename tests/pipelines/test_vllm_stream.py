"""What becomes of an engine that does not start: a sentence, found in what Ray tells of its actor."""

import pytest
from ray.exceptions import ActorDiedError

from visionprefer.errors import InputError
from visionprefer_pipelines.vllm_stream import LONGEST_REASON, telling_why_no_engine_starts

TOLD = """The actor died because of an error raised in its creation task, MapWorker(MapBatches({stage})).__init__()
  File "stages/engine.py", line 312, in __init__
    self._config = engine_args.create_engine_config()
RuntimeError: an earlier one

During handling of the above exception, another exception occurred:

  File "engine/arg_utils.py", line 1809, in create_model_config
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, max_model_len (1000000) is greater than {what}"""


def died(stage: str, what: str) -> ActorDiedError:
    error = ActorDiedError()
    error.error_msg = TOLD.format(stage=stage, what=what)
    return error


def test_an_engine_that_does_not_start_is_told_in_its_own_last_words() -> None:
    with pytest.raises(InputError) as told, telling_why_no_engine_starts():
        raise died("vLLMEngineStageUDF", "2048")
    assert str(told.value) == (
        "vLLM's engine does not start: 1 validation error for ModelConfig Value error, max_model_len (1000000) is "
        "greater than 2048"
    )


def test_where_the_reason_is_in_a_log_it_says_where_to_look() -> None:
    with (
        pytest.raises(InputError, match=r"See root cause above.*in Ray's logs.*visionprefer estimate"),
        telling_why_no_engine_starts(),
    ):
        raise died("vLLMEngineStageUDF", "2048\nRuntimeError: Engine core initialization failed. See root cause above.")


def test_the_reason_is_cut_where_it_is_long() -> None:
    with pytest.raises(InputError) as told, telling_why_no_engine_starts():
        raise died("vLLMEngineStageUDF", "x" * 10_000)
    assert len(str(told.value)) < LONGEST_REASON + 100


def test_the_death_of_another_actor_is_left_as_it_is() -> None:
    with pytest.raises(ActorDiedError), telling_why_no_engine_starts():
        raise died("MakeImages", "2048")
