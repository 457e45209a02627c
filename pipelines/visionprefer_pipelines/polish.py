"""Prompts polished by a model of text before they become images. Running again goes on where it stopped."""

import json
import time
from typing import Any

import pyarrow as pa
import ray

from visionprefer.errors import InputError
from visionprefer.models import Model, find_model, served_model
from visionprefer.prompts import Prompts, read_prompts
from visionprefer.prompts.polishing import PolishQuestions, polished, polisher_digest
from visionprefer.recipe import PolishRecipe
from visionprefer.schema import REJECTED_PROMPTS, REPLIES_TO_PROMPTS, content_id
from visionprefer.shards import Commit, Counts, Shards
from visionprefer.statistics import spent
from visionprefer.store import Store
from visionprefer_pipelines.out_folder import alone, teaching
from visionprefer_pipelines.progress import SECONDS_BETWEEN_LINES, Progress
from visionprefer_pipelines.tables import Unit

PROMPTS_PER_UNIT = 64
UNITS_PER_FILE = 64  # a unit is a row group, so that a worker reads its own unit alone
BEFORE = "before"  # the prompts as they were
MADE_FROM = "polish.json"


def polish(
    recipe: PolishRecipe, out: str, progress: Progress, retry_failed: bool = False, address: str | None = None
) -> Counts:
    """Polish prompts, or go on polishing them.

    Args:
        recipe: which prompts, and who polishes them.
        out: folder, local or s3://, gs://. It gets `prompts.parquet`, for the recipe of a run, and
            `rejected_prompts.parquet`.
        progress: told what happens.
        retry_failed: take up again the prompts that failed before.
        address: of a Ray cluster; None: see `cluster.connected`.

    Returns:
        How many prompts are done and failed.

    Raises:
        InputError: if something that was given cannot be used. What was committed stays.
    """
    store = Store(out)
    with teaching(store), alone(store):
        store.remove_unfinished()
        settings = recipe.polish
        if settings.engine == "openai":
            model = served_model(settings.model, settings.api.base_url)
        else:
            model = find_model(settings.model, "transformers", settings.revision)
        prompts = read_prompts(recipe.prompts, recipe.seed)
        for note in prompts.notes:
            progress.say(note)
        units = _write_units(store, prompts.kept)
        replies = Shards(store, f"polished/{polisher_digest(model, settings)[:12]}", REPLIES_TO_PROMPTS)
        for name in replies.recover([], units=units):
            progress.say(f"{name} is damaged, or follows one that is: what it held is asked again")
        _ask(recipe, model, replies, units, prompts.kept.num_rows, progress, retry_failed, address)
        used = spent(replies)
        cost = "" if used["cost"] is None else f", at a cost of {used['cost']:,.2f}"
        progress.say(f"{used['prompt_tokens']:,} tokens read and {used['completion_tokens']:,} written{cost}")
        return _derive(store, prompts, replies)


def _write_units(store: Store, prompts: pa.Table) -> list[str]:
    """Write the prompts as units of work, unless they are there. Returns the names of the units."""
    units = [prompts.slice(start, PROMPTS_PER_UNIT) for start in range(0, prompts.num_rows, PROMPTS_PER_UNIT)]
    digest = content_id("to polish", prompts["prompt_id"].to_pylist())
    if not store.exists(MADE_FROM):
        if others := [name for name in store.names("") if name != BEFORE]:
            raise InputError(
                f"--out {store.root}: the folder holds other things ({', '.join(others[:3])}). Write a new folder"
            )
        for file in range(-(-len(units) // UNITS_PER_FILE)):
            part = units[file * UNITS_PER_FILE : (file + 1) * UNITS_PER_FILE]
            store.write_tables(f"{BEFORE}/{file:05d}.parquet", prompts.schema, part)
        store.write(MADE_FROM, json.dumps({"prompts": digest}).encode())
    elif json.loads(store.read(MADE_FROM))["prompts"] != digest:
        raise InputError(f"--out {store.root}: other prompts are polished there. Write another --out")
    return [f"{number:06d}" for number in range(len(units))]


def prompts_of_unit(replies: Shards, unit: str, generation: int) -> pa.Table:
    """The prompts of a unit or, in a later generation, those that failed."""
    if generation:
        return replies.failed_rows(f"{unit}.{generation - 1}").select(["prompt_id", "prompt", "source"])
    file, group = divmod(int(unit), UNITS_PER_FILE)
    return replies.store.read_row_group(f"{BEFORE}/{file:05d}.parquet", group)


def _ask(
    recipe: PolishRecipe,
    model: Model,
    replies: Shards,
    units: list[str],
    planned: int,
    progress: Progress,
    retry_failed: bool,
    address: str | None,
) -> None:
    asks_once = recipe.polish.engine == "vllm"
    work = _work(replies, units, retry_failed, asks_once)
    counts = replies.counts(planned)
    progress.say(f"{counts.done} of {planned} prompts are polished already" if counts.done else f"{planned} prompts")
    if not work:
        return

    from visionprefer_pipelines.answers import answered, source
    from visionprefer_pipelines.cluster import connected
    from visionprefer_pipelines.units import commit_log
    from visionprefer_pipelines.vllm_stream import telling_why_no_engine_starts

    with connected(address, {"polish.workers": recipe.polish.workers}):
        log = commit_log()
        for _ in range(1 + asks_once):
            stream = answered(
                source(work),
                PolishQuestions(recipe.polish, model),
                recipe.polish,
                model,
                replies,
                prompts_of_unit,
                log,
                PROMPTS_PER_UNIT,
                reads_images=False,
            )
            with telling_why_no_engine_starts():
                _follow(stream, log, replies, planned, progress)
            replies.recover([], units=units)
            work = _work(replies, units, False, asks_once)
            if not work:
                break
    if pending := replies.counts(planned).pending:
        raise InputError(f"--out {replies.store.root}: {pending} prompts are not there yet. Run again to go on")


def _follow(stream: Any, log: Any, replies: Shards, planned: int, progress: Progress) -> None:
    """Run a stream, tell how far it is, and tell what a person can mend if it ends early."""
    told = time.monotonic()
    try:
        for _ in stream.iter_batches(batch_size=None):
            _take(log, replies, progress)
            if time.monotonic() - told > SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                counts = replies.counts(planned)
                progress.say(f"prompts {counts.done}/{planned} ({counts.failed} failed)")
    except Exception as error:
        if to_mend := _take(log, replies, progress):
            raise InputError(to_mend[0]) from error
        raise
    _take(log, replies, progress)


def _take(log: Any, replies: Shards, progress: Progress) -> list[str]:
    """Take up what the workers noted; returns what a person has to mend."""
    to_mend = []
    for kind, entry in ray.get(log.take.remote()):
        if kind == "mend":
            to_mend.append(entry)
        elif kind == "say":
            progress.say(entry)
        else:
            replies.add(Commit(*entry))
    return to_mend


def _work(replies: Shards, units: list[str], retry_failed: bool, asks_once: bool) -> list[Unit]:
    latest = replies.latest()
    work = [Unit(unit, 0) for unit in units if unit not in latest]
    for commit in latest.values():
        again = asks_once and commit.failed and 1 in replies.failed_rows(commit.shard)["asked"].to_pylist()
        if commit.failed and (retry_failed or again):
            work.append(Unit(commit.unit, commit.generation + 1))
    return work


def _derive(store: Store, prompts: Prompts, replies: Shards) -> Counts:
    kept, rejected = polished(replies.table())
    failed = replies.failed()
    reasons = [] if failed is None else failed.select(["prompt", "source", "error"]).to_pylist()
    lost = [{"prompt": row["prompt"], "source": row["source"], "reason": f"failed: {row['error']}"} for row in reasons]
    store.write_table("prompts.parquet", kept)
    rejects = pa.concat_tables([prompts.rejected, rejected, pa.Table.from_pylist(lost, schema=REJECTED_PROMPTS)])
    store.write_table("rejected_prompts.parquet", rejects)
    return replies.counts(prompts.kept.num_rows)
