"""What a run will take, from a few of its rows done on this machine: hours, tokens and money, with their spread."""

import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from visionprefer.errors import InputError
from visionprefer.existing import ImportImages
from visionprefer.images import GenerateImages
from visionprefer.plan import read_block, unit_of_block
from visionprefer.recipe import JudgeSettings, Recipe
from visionprefer.settings import Workers
from visionprefer.store import Store
from visionprefer_pipelines.preparation import Prepared, prepare

FILE = "estimate.json"


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Figures):
    """A sum over a whole run, with the 95 % interval of the sample's mean; null where one value tells no spread."""

    expected: float
    low: float | None
    high: float | None


class StageEstimate(_Figures):
    """One stage of a run."""

    rows: int
    sampled: int
    failed: int  # of the sampled
    hours: Spread  # of all its actors side by side, once they have started


class Estimate(_Figures):
    """What a run will take. The stages run side by side: the longer one tells how long."""

    images: StageEstimate
    replies: StageEstimate
    prompt_tokens: Spread
    completion_tokens: Spread
    cost: Spread | None  # in the currency of the recipe's prices


def estimate(recipe: Recipe, rows: int, say: Callable[[str], None]) -> Estimate:
    """Do a few rows of a recipe here, as one actor of each stage would, and reckon from them.

    Args:
        recipe: of the run.
        rows: images to make and judge, at least; whole batches are made, of every image model at least one.
        say: told what happens.

    Raises:
        InputError: if something that the recipe names cannot be used, or no image could be made.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        prepared = prepare(recipe, store)
        for note in prepared.notes:
            say(note)
        blocks = [read_block(store, unit_of_block(i)) for i in range(prepared.manifest["plan"]["blocks"])]
    batches = _batches(pa.concat_tables(blocks), recipe)
    if not batches:
        raise InputError("prompts: none is left, so that there is nothing to reckon. Look at the rejected ones")
    planned = sum(batch.num_rows for batch in batches)
    sample = _spread_out(batches, rows)
    say(f"making {sum(batch.num_rows for batch in sample)} of {planned:,} images")
    done, failed, seconds = _make(recipe, prepared, sample)
    images = StageEstimate(
        rows=planned,
        sampled=done.num_rows + failed,
        failed=failed,
        hours=_hours(seconds, len(batches), recipe.images.workers),
    )
    if not done.num_rows:
        raise InputError(f"images: none of the {failed} sampled could be made. Run the recipe to see the reasons")
    say(f"judging {done.num_rows} images")
    if recipe.judge.engine == "vllm":
        say("a run has several batches under way in vLLM, and stays below these hours")
    return _judge(recipe, prepared, done, images)


def _batches(plan: pa.Table, recipe: Recipe) -> list[pa.Table]:
    """The plan in pieces that are worked on together, those of one model side by side."""
    size = recipe.images.batch_size if recipe.images.models else recipe.images.block_size
    changes = np.zeros(plan.num_rows, dtype=bool)
    for column in ("block", "guidance_scale", "num_inference_steps"):
        codes = plan[column].combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
        changes |= np.diff(codes, prepend=codes[:1] - 1) != 0
    starts = [*np.flatnonzero(changes).tolist(), plan.num_rows]
    return [
        plan.slice(start, min(size, end - start))
        for begin, end in pairwise(starts)
        for start in range(begin, end, size)
    ]


def _spread_out(batches: list[pa.Table], rows: int) -> list[pa.Table]:
    """Batches evenly spaced over the plan, enough for so many rows and for a spread, and one of each model."""
    mean = sum(batch.num_rows for batch in batches) / len(batches)
    count = min(len(batches), max(3, -(-rows // int(mean) or 1)))
    places = set(np.linspace(0, len(batches) - 1, count).round().astype(int).tolist())
    digests = [batch["model_digest"][0].as_py() for batch in batches]
    return [batches[place] for place in sorted(places | {digests.index(digest) for digest in digests})]


def _make(recipe: Recipe, prepared: Prepared, sample: list[pa.Table]) -> tuple[pa.Table, int, list[float]]:
    """The images of some batches, how many failed, and the seconds of each batch without loading its model."""
    from visionprefer_pipelines.units import JUDGED_COLUMNS

    stage = ImportImages() if recipe.images.existing else GenerateImages(recipe.images, prepared.models)
    done, failed, seconds, warm = [], 0, [], None
    for batch in sample:
        digest = batch["model_digest"][0].as_py()
        if digest != warm:
            stage(batch)
            warm = digest
        began = time.monotonic()
        made, lost = stage(batch)
        seconds.append(time.monotonic() - began)
        done.append(made.select(JUDGED_COLUMNS))
        failed += lost.num_rows
    del stage
    _free_the_gpu()
    return pa.concat_tables(done), failed, seconds


def _free_the_gpu() -> None:
    """Give back what the image models took: vLLM, in a process of its own, wants nearly all of a GPU."""
    gc.collect()
    torch = sys.modules.get("torch")  # None where nothing was drawn
    if torch and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _judge(recipe: Recipe, prepared: Prepared, images: pa.Table, made: StageEstimate) -> Estimate:
    from visionprefer.judging.judge import JudgeQuestions, repeated
    from visionprefer_pipelines.answers import asker

    settings = recipe.judge
    stage = asker(JudgeQuestions(settings, prepared.judge), settings, prepared.judge, None)()
    remote = settings.engine == "openai"
    size = 1 if remote else settings.batch_size
    shown = 1
    if settings.mode == "joint":
        shown = max(1, round(made.rows / prepared.manifest["prompts"]["kept"]))
        images = _shown_together(images, shown)
    else:
        images = repeated(images, settings.repeats)
    parts = [images.slice(start, size * shown) for start in range(0, images.num_rows, size * shown)]

    def judged(part: pa.Table) -> tuple[list[pa.Table], float]:
        began = time.monotonic()
        tables = stage(part)
        return list(tables), time.monotonic() - began

    if remote:
        with ThreadPoolExecutor(settings.api.concurrency) as pool:
            found = list(pool.map(judged, parts))
    else:
        found = [judged(part) for part in parts]
    replies = pa.concat_tables([table for tables, _ in found for table in tables])
    times = [seconds for _, seconds in found]
    times = times if remote or len(times) == 1 else times[1:]  # the first warms up
    failed = sum(tables[1].num_rows for tables, _ in found)
    total = round(made.rows * (1 - made.failed / made.sampled) / shown * (1 + settings.swapped) * settings.repeats)
    asked, answered = (_sum(replies[name].to_pylist(), total) for name in ("prompt_tokens", "completion_tokens"))
    hours = _judging_hours(times, total, asked.expected + answered.expected, size, settings)
    return Estimate(
        images=made,
        replies=StageEstimate(rows=total, sampled=replies.num_rows, failed=failed, hours=hours),
        prompt_tokens=asked,
        completion_tokens=answered,
        cost=_sum(pc.fill_null(replies["cost"], 0.0).to_pylist(), total) if settings.api.price else None,
    )


def _shown_together(images: pa.Table, count: int) -> pa.Table:
    """The images as if each so many were of one prompt: what a request takes does not depend on whether they are."""
    first = [row // count * count for row in range(images.num_rows)]
    for name in ("prompt_id", "prompt"):
        images = images.set_column(images.column_names.index(name), name, images[name].take(pa.array(first)))
    return images.append_column("repeat", pa.array(first, pa.int32()))


def _judging_hours(times: Sequence[float], rows: int, tokens: float, size: int, settings: JudgeSettings) -> Spread:
    if settings.engine != "openai":
        return _hours(times, -(-rows // size), settings.workers)
    spread = _sum([seconds / settings.api.concurrency / 3600 for seconds in times], rows)
    limits = (rows, settings.api.requests_per_minute), (tokens, settings.api.tokens_per_minute)
    least = max(amount / most / 60 if most else 0.0 for amount, most in limits)
    return Spread(**{name: value and max(value, least) for name, value in spread.model_dump().items()})


def _hours(seconds: Iterable[float], batches: int, workers: Workers) -> Spread:
    most = workers.actors if isinstance(workers.actors, int) else workers.actors[1]
    return _sum([one / min(most, batches) / 3600 for one in seconds], batches)


def _sum(values: list[float], times: int) -> Spread:
    """So many times the mean of a sample, with Student's 95 % interval."""
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return Spread(expected=mean * times, low=None, high=None)
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return Spread(expected=mean * times, low=max(0.0, mean - half) * times, high=(mean + half) * times)
