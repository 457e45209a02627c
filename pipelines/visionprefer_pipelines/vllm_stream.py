"""The engine `vllm`, in the stream: units of rows become shards of replies through ray.data.llm.

    units ─ open_shards ─ prepare images ─ chat template ─ vLLM engines ─ CommitReplies ─ shards of replies

Between the first and the last flow requests, one a row. A shard is committed when the last of its requests has come
back. A reply that holds no verdict is asked for once more in the shard's next generation, by a second pass over the
stream: the first pass commits it as failed, so that nothing that was paid for is lost in between.
"""

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import ray
from PIL import Image
from ray.data import ActorPoolStrategy, Dataset

from visionprefer.engine_settings import EngineSettings
from visionprefer.errors import InputError, missing_extra
from visionprefer.judging.asking import Questions, done_and_failed, enter
from visionprefer.judging.engine import Reply, Request, Row, chat
from visionprefer.judging.vllm_engine import ENVIRONMENT, described, engine_arguments, sampling
from visionprefer.models import Model
from visionprefer.shards import Shards
from visionprefer_pipelines.demand import wanted
from visionprefer_pipelines.measures import RowMeasures
from visionprefer_pipelines.units import Batch, Read, named, telling_what_to_mend

AROUND = 0.1  # CPU cores reserved for each worker of the stages around the engine
LONGEST_REASON = 600  # characters of what vLLM says
# What comes back that a reply is made of.
COLUMNS = (
    "unit",
    "generation",
    "rows",
    "row",
    "generated_text",
    "num_input_tokens",
    "num_generated_tokens",
    "__inference_error__",
)


def answered_by_vllm(
    units: Dataset,
    questions: Questions,
    settings: EngineSettings,
    model: Model,
    replies: Shards,
    read: Read,
    log: Any,
    reads_images: bool,
) -> Dataset:
    """The stream that asks about the rows of these units; each row that comes out is the name of a shard of replies.

    Raises:
        InputError: if vLLM is not installed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import vllm  # noqa: F401  absent, it would be missed far from here
        from ray.data.llm import build_processor
    except ImportError as error:
        raise missing_extra("vllm", "vllm") from error

    log.add.remote("say", f"{model.label} runs in vLLM, {described(settings)}")

    def open_shards(batch: Any) -> pa.Table:
        asked = []
        with telling_what_to_mend(log):
            for unit, generation in zip(batch["unit"].tolist(), batch["generation"].tolist(), strict=True):
                found = _asked(questions, read(replies, unit, generation), replies, unit, generation, settings)
                if not found:  # no image of the shard was made: no answer would come back to commit it
                    _commit(questions, replies, log, RowMeasures("replies"), unit, generation, [])
                asked += found
        return pa.Table.from_pylist(asked)

    asked = units.map_batches(open_shards, batch_size=1, num_cpus=AROUND)
    answered = build_processor(
        _processor(settings, model, reads_images),
        preprocess_map_kwargs={"num_cpus": AROUND},
        postprocess_map_kwargs={"num_cpus": AROUND},
    )(asked)
    return answered.map_batches(
        CommitReplies,
        fn_constructor_args=(questions, replies, log, settings.max_new_tokens),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=1),
        num_cpus=AROUND,
    )


@contextmanager
def telling_why_no_engine_starts() -> Iterator[None]:
    """Tell in a sentence why engines of vLLM do not start, where a stream fails for that."""
    try:
        yield
    except ray.exceptions.ActorDiedError as error:
        if (reason := _why_not_started(str(error))) is None:
            raise
        raise InputError(f"vLLM's engine does not start: {reason}") from error


def _why_not_started(told: str) -> str | None:
    """The engine's own error in what Ray tells of it, which is text and a traceback; None if it is of another actor."""
    found = list(re.finditer(r"^[\w.]*(?:Error|Exception): ", told, re.MULTILINE))
    if "vLLMEngineStage" not in told or not found:
        return None
    reason = " ".join(told[found[-1].end() :].split())[:LONGEST_REASON]
    if "See root cause above" in reason:  # said by another process, whose lines stay in Ray's log files
        reason += " It is in Ray's logs of that worker; `visionprefer estimate RECIPE` on such a machine shows it"
    return reason


class CommitReplies:
    """Gathers the answers of each shard, and commits them together."""

    def __init__(self, questions: Questions, replies: Shards, log: Any, most_tokens: int) -> None:
        self.questions = questions
        self.replies = replies
        self.log = log
        self.most_tokens = most_tokens
        self.measures = RowMeasures("replies")
        self.arrived: dict[tuple[str, int], dict[str, Row]] = defaultdict(dict)  # by request, whatever comes twice
        self.committed: float | None = None  # when shards last were

    def __call__(self, batch: pa.Table) -> Batch:
        """Take up answers. Columns in: COLUMNS. Columns out: the names of shards that are complete."""
        complete = []
        for answer in batch.select(COLUMNS).to_pylist():
            place = (answer["unit"], answer["generation"])
            row = _row(self.questions, answer, self.most_tokens)
            self.arrived[place][row["request_id"]] = row
            if len(self.arrived[place]) == answer["rows"]:
                complete.append((*place, list(self.arrived.pop(place).values())))
        seconds = self._seconds_of_a_row(sum(len(rows) for *_, rows in complete))
        with telling_what_to_mend(self.log):
            return named(
                [_commit(self.questions, self.replies, self.log, self.measures, *shard, seconds) for shard in complete]
            )

    def _seconds_of_a_row(self, rows: int) -> float | None:
        """The share of so many rows in the time since others were committed, by all engines; None: these are the
        first.
        """
        if not rows:
            return None
        now, before = time.monotonic(), self.committed
        self.committed = now
        return None if before is None else (now - before) / rows


def _commit(
    questions: Questions,
    replies: Shards,
    log: Any,
    measures: RowMeasures,
    unit: str,
    generation: int,
    rows: list[Row],
    seconds_of_a_row: float | None = None,
) -> str:
    """Commit a shard's rows, unless they are there already. Returns its name."""
    commit = replies.written(unit, generation)
    if commit is None:
        done, failed = done_and_failed(rows, questions.schema)
        commit = replies.write(unit, generation, done, failed)
        measures.add(done, failed, seconds_of_a_row and seconds_of_a_row * len(rows))
    ray.get(log.add.remote(replies.folder, tuple(commit)))
    return commit.shard


def _asked(
    questions: Questions, table: pa.Table, replies: Shards, unit: str, generation: int, settings: EngineSettings
) -> list[dict[str, Any]]:
    """The requests about a unit's rows. One that was asked once before is asked for the second time."""
    rows = questions.rows(table)
    before: dict[str, Row] = {}
    if generation:
        failed = replies.failed_rows(f"{unit}.{generation - 1}").to_pylist()
        before = {row["request_id"]: row for row in failed if row["asked"] == 1}
    found = []
    for row in rows:
        if earlier := before.get(row["request_id"]):
            row["asked"] = earlier["asked"]
        request = questions.request(row, asking=generation)
        kept = json.dumps({name: value for name, value in row.items() if name in questions.schema.names})
        asked = _chat(request, settings) if request else _nothing()
        found.append({"unit": unit, "generation": generation, "rows": len(rows), "row": kept, **asked})
    return found


def _chat(request: Request, settings: EngineSettings) -> dict[str, Any]:
    """What ray.data.llm wants of a request."""
    return {"messages": chat(request), "sampling_params": sampling(request, settings)}


def _nothing() -> dict[str, Any]:
    """A request that costs a token, in the place of one that cannot be asked: every row has to come back."""
    white = Request([Image.new("RGB", (32, 32), "white")], ".", 0, 0.0, {})
    return _chat(white, EngineSettings(model="", structured=False, max_new_tokens=1))


def _row(questions: Questions, answer: dict[str, Any], most_tokens: int) -> Row:
    """The row of REPLIES with its answer."""
    row: Row = json.loads(answer["row"])
    if row["error"]:  # it could not be asked
        return row
    text, used, error = answer["generated_text"], answer["num_generated_tokens"] or 0, answer["__inference_error__"]
    # Ray does not hand on why the engine stopped.
    enter(
        questions,
        row,
        Reply(text, answer["num_input_tokens"] or 0, used, error=error or None, cut_off=used >= most_tokens),
    )
    return row


def _processor(settings: EngineSettings, model: Model, reads_images: bool) -> Any:
    from ray.data.llm import vLLMEngineProcessorConfig

    workers = settings.workers
    actors = workers.actors if isinstance(workers.actors, tuple) else (workers.actors, workers.actors)
    return vLLMEngineProcessorConfig(
        model_source=model.location,
        engine_kwargs=engine_arguments(settings, model),
        runtime_env={"env_vars": {name: os.environ[name] for name in ENVIRONMENT}},
        batch_size=settings.batch_size,
        concurrency=actors,
        placement_group_config={"bundle_per_worker": wanted(workers)},
        prepare_multimodal_stage={"chat_template_content_format": "openai", "num_cpus": AROUND}
        if reads_images
        else False,
        chat_template_stage={"num_cpus": AROUND},
        tokenize_stage=False,  # the engine does both
        detokenize_stage=False,
        should_continue_on_error=True,
        log_engine_metrics=False,
    )
