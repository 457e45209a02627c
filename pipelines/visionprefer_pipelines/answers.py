"""Rows are asked about in a stream, whatever runs the model."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset

from visionprefer.engine_settings import EngineSettings
from visionprefer.judging.asking import Asker, Questions
from visionprefer.judging.openai_engine import OpenAIEngine
from visionprefer.judging.transformers_engine import TransformersEngine
from visionprefer.judging.vllm_engine import VLLMEngine
from visionprefer.models import Model
from visionprefer.settings import Workers
from visionprefer.shards import Shards
from visionprefer.statistics import paid_for
from visionprefer_pipelines.resting import stream_context
from visionprefer_pipelines.tables import Unit
from visionprefer_pipelines.units import AskAbout, Read
from visionprefer_pipelines.vllm_stream import answered_by_vllm

MOST_RAY_BLOCKS = 1000  # each costs the driver some milliseconds before the first of them runs


def answered(
    units: Dataset,
    questions: Questions,
    settings: EngineSettings,
    model: Model,
    replies: Shards,
    read: Read,
    log: Any,
    unit_size: int,
    reads_images: bool = True,
) -> Dataset:
    """The stream that asks about the rows of these units; each row that comes out is the name of a shard of replies.

    Args:
        units: as `source` makes them, or what an earlier stage committed.
        questions: what is asked about rows.
        settings, model: who answers.
        replies: where the answers go.
        read: the rows of a unit.
        log: told what is committed.
        unit_size: rows of a unit, about.
        reads_images: whether the model does.
    """
    if settings.engine == "vllm":
        return answered_by_vllm(units, questions, settings, model, replies, read, log, reads_images)
    # As many units at a time that a server has always as many requests as it may have.
    at_once = 2 + settings.api.concurrency // unit_size if settings.engine == "openai" else 1
    build = asker(questions, settings, model, replies, reads_images)
    return units.map_batches(
        AskAbout,
        fn_constructor_args=(build, replies, log, read),
        batch_size=1,
        **placement(settings.workers, at_once),
    )


def asker(
    questions: Questions, settings: EngineSettings, model: Model, replies: Shards | None, reads_images: bool = True
) -> Callable[[], Asker]:
    """What builds the stage, on the worker. In a stream engine vllm has stages of its own: see `vllm_stream`.

    What the budget has left follows from the replies that are there when it is built, which may be not for the first
    time: Ray starts an actor anew that has died.
    """
    if settings.engine == "openai":
        return lambda: Asker(questions, OpenAIEngine(settings, model, paid_for(replies) if replies else 0.0))
    if settings.engine == "vllm":
        return lambda: Asker(questions, VLLMEngine(settings, model))
    return lambda: Asker(questions, TransformersEngine(settings, model, reads_images))


def source(units: list[Unit]) -> Dataset:
    """One Ray block a unit, so that each goes on as soon as it is done; a few units a block in very long runs."""
    schema = pa.schema([("unit", pa.string()), ("generation", pa.int64())])
    size = -(-len(units) // MOST_RAY_BLOCKS) or 1
    chunks = [units[start : start + size] for start in range(0, len(units), size)] or [[]]
    stream_context()
    return ray.data.from_blocks([pa.Table.from_pylist([unit._asdict() for unit in chunk], schema) for chunk in chunks])


def placement(workers: Workers, calls_at_once: int = 1) -> dict[str, Any]:
    """How Ray is to place the actors of a stage."""
    least, most = (workers.actors,) * 2 if isinstance(workers.actors, int) else workers.actors
    compute = ActorPoolStrategy(
        min_size=least,
        max_size=most,
        max_concurrent_calls_per_actor=calls_at_once,
        enable_true_multi_threading=calls_at_once > 1,
    )
    placement = {"compute": compute, "num_cpus": workers.num_cpus, "num_gpus": workers.num_gpus}
    return placement | ({"resources": workers.resources} if workers.resources else {})
