"""The engine `vllm`, in the stream: image shards become shards of replies through ray.data.llm.

    shards ─ open_shards ─ prepare images ─ chat template ─ vLLM engines ─ CommitReplies ─ shards that are judged

Between the first and the last flow requests, one a row. A shard is committed when the last of its requests has come
back. A reply that holds no verdict is asked for once more in the shard's next generation, by a second pass over the
stream: the first pass commits it as failed, so that nothing that was paid for is lost in between.
"""

import json
import os
from collections import defaultdict
from typing import Any

import pyarrow as pa
import ray
from PIL import Image
from ray.data import ActorPoolStrategy, Dataset

from visionprefer.errors import missing_extra
from visionprefer.judging.judge import Reply, Request, Requests, Row, chat, done_and_failed, enter
from visionprefer.judging.rubric import JSON_FORM
from visionprefer.models import Model
from visionprefer.recipe import JudgeSettings
from visionprefer.store import Shards
from visionprefer_pipelines.units import Batch, images_to_judge, named, telling_what_to_mend

AROUND = 0.1  # CPU cores reserved for each worker of the stages around the engine
BESIDES = ("images", "prompt")  # of a row, what is not in its reply
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


def judged_by_vllm(shards: Dataset, settings: JudgeSettings, model: Model, replies: Shards, log: Any) -> Dataset:
    """The stream that judges these image shards; each row that comes out is the name of a shard that was judged.

    Raises:
        InputError: if vLLM is not installed.
    """
    # What it says of itself would stand between the lines of the run.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        import vllm  # noqa: F401  absent, it would be missed far from here
        from ray.data.llm import build_processor
    except ImportError as error:
        raise missing_extra("vllm", "vllm") from error

    log.add.remote("say", f"the judge runs in vLLM, {_described(settings)}")
    requests = Requests(settings, model)

    def open_shards(batch: Any) -> pa.Table:
        asked = []
        with telling_what_to_mend(log):
            for unit, generation in zip(batch["unit"].tolist(), batch["generation"].tolist(), strict=True):
                found = _asked(replies, unit, generation, requests, settings)
                if not found:  # no image of the shard was made: no answer would come back to commit it
                    _commit(replies, log, unit, generation, [])
                asked += found
        return pa.Table.from_pylist(asked)

    asked = shards.map_batches(open_shards, batch_size=1, num_cpus=AROUND)
    answered = build_processor(
        _processor(settings, model),
        preprocess_map_kwargs={"num_cpus": AROUND},
        postprocess_map_kwargs={"num_cpus": AROUND},
    )(asked)
    return answered.map_batches(
        CommitReplies,
        fn_constructor_args=(replies, log, settings.max_new_tokens),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=1),
        num_cpus=AROUND,
    )


class CommitReplies:
    """Gathers the answers of each shard, and commits them together."""

    def __init__(self, replies: Shards, log: Any, most_tokens: int) -> None:
        self.replies = replies
        self.log = log
        self.most_tokens = most_tokens
        self.arrived: dict[tuple[str, int], dict[str, Row]] = defaultdict(dict)  # by request, whatever comes twice

    def __call__(self, batch: pa.Table) -> Batch:
        """Take up answers. Columns in: COLUMNS. Columns out: the names of shards that are complete."""
        complete = []
        for answer in batch.select(COLUMNS).to_pylist():
            place = (answer["unit"], answer["generation"])
            row = _row(answer, self.most_tokens)
            self.arrived[place][row["request_id"]] = row
            if len(self.arrived[place]) == answer["rows"]:
                complete.append((*place, list(self.arrived.pop(place).values())))
        with telling_what_to_mend(self.log):
            return named([_commit(self.replies, self.log, *shard) for shard in complete])


def _commit(replies: Shards, log: Any, unit: str, generation: int, rows: list[Row]) -> str:
    """Commit a shard's rows, unless they are there already. Returns its name."""
    commit = replies.written(unit, generation)
    if commit is None:
        commit = replies.write(unit, generation, *done_and_failed(rows))
    ray.get(log.add.remote(replies.folder, tuple(commit)))
    return commit.shard


def _asked(
    replies: Shards, unit: str, generation: int, requests: Requests, settings: JudgeSettings
) -> list[dict[str, Any]]:
    """The requests about a shard's images. One that was asked once before is asked for the second time."""
    rows = requests.rows(images_to_judge(replies, unit, generation, settings.mode))
    before: dict[str, Row] = {}
    if generation:
        failed = replies.failed_rows(f"{unit}.{generation - 1}").to_pylist()
        before = {row["request_id"]: row for row in failed if row["asked"] == 1}
    found = []
    for row in rows:
        if earlier := before.get(row["request_id"]):
            row |= {name: earlier[name] for name in ("asked", "prompt_tokens", "completion_tokens")}
        request = requests.request(row, asking=generation)
        kept = json.dumps({name: value for name, value in row.items() if name not in BESIDES})
        asked = _chat(request, settings) if request else _nothing()
        found.append({"unit": unit, "generation": generation, "rows": len(rows), "row": kept, **asked})
    return found


def _chat(request: Request, settings: JudgeSettings) -> dict[str, Any]:
    """What ray.data.llm wants of a request."""
    sampling: dict[str, Any] = {
        "temperature": request.temperature,
        "seed": request.seed,
        "max_tokens": settings.max_new_tokens,
        **settings.sampling,
    }
    if settings.structured:
        schema = request.schema | {"x-guidance": JSON_FORM}
        sampling["structured_outputs"] = {"json": json.dumps(schema)}
    return {"messages": chat(request), "sampling_params": sampling}


def _nothing() -> dict[str, Any]:
    """A request that costs a token, in the place of one that cannot be asked: every row has to come back."""
    white = Request([Image.new("RGB", (32, 32), "white")], ".", 0, 0.0, {})
    return _chat(white, JudgeSettings(model="", structured=False, max_new_tokens=1))


def _row(answer: dict[str, Any], most_tokens: int) -> Row:
    """The row of REPLIES with its answer."""
    row: Row = json.loads(answer["row"])
    if row["error"]:  # it could not be asked
        return row
    text, used, error = answer["generated_text"], answer["num_generated_tokens"] or 0, answer["__inference_error__"]
    # Ray does not hand on why the engine stopped.
    enter(row, Reply(text, answer["num_input_tokens"] or 0, used, error=error or None, cut_off=used >= most_tokens))
    return row


def _processor(settings: JudgeSettings, model: Model) -> Any:
    from ray.data.llm import vLLMEngineProcessorConfig

    workers = settings.workers
    actors = workers.actors if isinstance(workers.actors, tuple) else (workers.actors, workers.actors)
    on_cpu = not workers.num_gpus
    dtype = settings.dtype if settings.dtype != "auto" else "float32" if on_cpu else "bfloat16"
    bundle = {"CPU": workers.num_cpus, **({} if on_cpu else {"GPU": workers.num_gpus}), **workers.resources}
    defaults = {"dtype": dtype, "structured_outputs_config": {"backend": "guidance"}, "enforce_eager": on_cpu}
    return vLLMEngineProcessorConfig(
        model_source=model.location,
        engine_kwargs={**defaults, "revision": model.revision, "disable_log_stats": True, **settings.engine_kwargs},
        runtime_env={"env_vars": {"VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")}},
        batch_size=settings.batch_size,
        concurrency=actors,
        placement_group_config={"bundle_per_worker": bundle},
        prepare_multimodal_stage={"chat_template_content_format": "openai", "num_cpus": AROUND},
        chat_template_stage={"num_cpus": AROUND},
        tokenize_stage=False,  # the engine does both
        detokenize_stage=False,
        should_continue_on_error=True,
        log_engine_metrics=False,
    )


def _described(settings: JudgeSettings) -> str:
    where = "on GPUs" if settings.workers.num_gpus else "on the CPU"
    held = ", replies held to the rubric's schema" if settings.structured else ""
    return where + held
