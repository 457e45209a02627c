"""What becomes of an engine that does not start: a sentence, found in what Ray tells of its actor. And how long a row
takes where engines mix the shards.
"""

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from ray.exceptions import ActorDiedError

from visionprefer.errors import InputError
from visionprefer_pipelines import vllm_stream
from visionprefer_pipelines.vllm_stream import COLUMNS, LONGEST_REASON, CommitReplies, telling_why_no_engine_starts

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


def answers(unit: str, rows: list[int], of: int) -> pa.Table:
    known = dict.fromkeys(COLUMNS) | {"unit": unit, "generation": 0, "rows": of}
    return pa.Table.from_pylist([known | {"row": f"{unit}-{row}"} for row in rows])


def test_a_row_takes_its_share_of_the_time_since_others_were_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    now, committed = iter([10.0, 14.0, 20.0]), {}

    def commit(*given: Any) -> str:
        *_, unit, _, rows, seconds = given
        committed[unit] = (len(rows), seconds)
        return str(unit)

    monkeypatch.setattr(vllm_stream, "_commit", commit)
    monkeypatch.setattr(vllm_stream, "_row", lambda _, answer, __: {"request_id": answer["row"]})
    monkeypatch.setattr(vllm_stream, "time", SimpleNamespace(monotonic=lambda: next(now)))
    gather = CommitReplies(None, None, None, 100)
    gather(answers("a", [0, 1], of=2))
    gather(answers("b", [0, 1], of=4))
    gather(pa.concat_tables([answers("b", [2, 3], of=4), answers("c", [0, 1, 2, 3], of=4)]))
    gather(answers("d", [0, 1, 2], of=3))
    assert committed == {"a": (2, None), "b": (4, 0.5), "c": (4, 0.5), "d": (3, 2.0)}
