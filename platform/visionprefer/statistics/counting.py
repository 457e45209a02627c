"""A run's tables become its figures."""

import math
import re
from collections import Counter
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from visionprefer.blocksworld.agreement import agreement
from visionprefer.errors import InputError
from visionprefer.judging.consistency import positions, self_consistency
from visionprefer.judging.scores import SCORED, Scores, scores
from visionprefer.run_folder import RunFolder
from visionprefer.schema import JUDGEMENTS, OVERALL
from visionprefer.shards import Counts, Shards
from visionprefer.statistics.figures import (
    AspectFigures,
    PromptFigures,
    ReplyFigures,
    RowFigures,
    SourceFigures,
    Statistics,
)
from visionprefer.statistics.win_rates import win_rates

FILE = "statistics.json"  # of a finished run
COMPARED = ["prompt_id", "image_id_0", "image_id_1", "label"]  # of PREFERENCES, where it is known by which aspect
LABELS = ["prompt_id", "label"]
DRAWN = ("model", "guidance_scale", "num_inference_steps")  # what images of a prompt differ in
BIN = 0.5  # points of score
LONGEST_REASON = 160  # characters

# What differs between failures of one kind: quoted text (to the end, where it was cut off) and numbers.
_PARTICULARS = re.compile(r"""(?<!\w)(?:'.*?(?:'(?!\w)|$)|".*?(?:"(?!\w)|$)|\d+(?:[.,]\d+)*(?!\w))""")


def write_statistics(run: RunFolder) -> None:
    """Keep what `statistics` counts beside a run that is just being finished."""
    run.store.write(FILE, statistics(run).model_dump_json(indent=1).encode())


def read_statistics(run: RunFolder) -> Statistics:
    """What was counted when a run was finished; counted anew if another version wrote that.

    Raises:
        InputError: if the run is not finished.
    """
    run.check_finished()
    try:
        return Statistics.model_validate_json(run.store.read(FILE))
    except (FileNotFoundError, ValidationError):
        return statistics(run)


def statistics(run: RunFolder) -> Statistics:
    """Count and average what a run made.

    Raises:
        InputError: if the run is not finished.
    """
    prompts = run.prompts()
    images = run.images.table(["image_id", "prompt_id", "prompt", "split", "candidate", *DRAWN])
    judgements, oracle, weights = run.judgements(SCORED), run.oracle(), run.recipe.preferences.weights
    scored = scores(judgements, images, weights)
    overall = run.preferences(COMPARED, where=pc.field("aspect") == OVERALL)
    counts = run.counts()
    return Statistics(
        name=run.recipe.name,
        prompts=_prompts(prompts, run.rejected_prompts(), run.manifest["prompts"]["not_sampled"]),
        images=RowFigures(**_rows(run.images, counts["images"])),
        replies=ReplyFigures(**_rows(run.replies, counts["replies"]), **spent(run.replies)),
        aspects={
            aspect: _aspect(run, aspect, score_N[~np.isnan(score_N)], prompts.num_rows)
            for aspect, score_N in zip(scored.aspects, scored.values_NA.T, strict=True)
        },
        sources=_sources(scored),
        win_rates={column: win_rates(overall, images, column) for column in DRAWN},
        prompts_without_choice=prompts.num_rows - _with_choice(run.preferences(LABELS, where=pc.field("label") != 0.5)),
        **_asked_again(run, images),
        oracle=agreement(judgements, oracle, images, weights) if oracle is not None else None,
    )


def _prompts(prompts: pa.Table, rejected: pa.Table, not_sampled: int) -> PromptFigures:
    return PromptFigures(
        kept=prompts.num_rows,
        rejected=rejected.num_rows,
        not_sampled=not_sampled,
        splits=_counted(prompts["split"].to_pylist()),
        reject_reasons=_counted([reason.partition(":")[0] for reason in rejected["reason"].to_pylist()]),
    )


def _asked_again(run: RunFolder, images: pa.Table) -> dict[str, Any]:
    """How far the judge of the recipe agrees with itself, and what it gives to places; nothing where it was asked about
    each image by itself, and once.
    """
    own = pc.field("judge") == run.counted_judges().get(run.manifest["judge"], "")
    asked = run.judgements(["repeat", "rank"], where=own)
    if not pc.max(asked["repeat"]).as_py() and asked["rank"].null_count == asked.num_rows:
        return {"self_consistency": [], "positions": []}
    names = [name for name in JUDGEMENTS.names if name != "rationale"]  # the most of their bytes
    judgements, preferences = run.judgements(names, where=own), run.preferences([*COMPARED, "aspect"])
    consistency = self_consistency(judgements, images, preferences, run.recipe.preferences)
    return {"self_consistency": consistency, "positions": positions(judgements)}


def _rows(shards: Shards, counts: Counts) -> dict[str, Any]:
    failed = shards.failed()
    reasons = [] if failed is None else [_kind(reason) for reason in failed["error"].to_pylist()]
    return {"planned": sum(counts), **counts._asdict(), "failure_reasons": _counted(reasons)}


def spent(replies: Shards) -> dict[str, Any]:
    """Askings, tokens and money that replies have cost, the useless ones too; no money where none is charged."""
    columns = ["asked", "prompt_tokens", "completion_tokens", "cost"]
    listed = [commit.shard for commit in replies.commits.values() if commit.failed]
    failed = [replies.failed_rows(shard).select(columns) for shard in listed]
    rows = pa.concat_tables([replies.table(columns), *failed])
    return {
        "asked_twice": pc.sum(pc.greater(rows["asked"], 1), min_count=0).as_py(),
        "prompt_tokens": pc.sum(rows["prompt_tokens"], min_count=0).as_py(),
        "completion_tokens": pc.sum(rows["completion_tokens"], min_count=0).as_py(),
        "cost": pc.sum(rows["cost"]).as_py(),
    }


def paid_for(replies: Shards) -> float:
    """Money that replies have cost, by all files of theirs that are there and can be read, whoever lists them."""
    total = 0.0
    for folder in (replies.folder, f"failed/{replies.folder}"):
        for name in replies.store.sizes(folder):
            with suppress(FileNotFoundError, InputError):
                cost = replies.store.read_table(f"{folder}/{name}", ["cost"])["cost"]
                total += pc.sum(cost).as_py() or 0.0
    return total


def _aspect(run: RunFolder, aspect: str, score_N: np.ndarray, prompts: int) -> AspectFigures:
    preferences = run.preferences(LABELS, where=pc.field("aspect") == aspect)
    pairs = preferences.num_rows
    ties = pc.sum(pc.equal(preferences["label"], 0.5), min_count=0).as_py()
    bins, images = np.unique(np.floor(score_N / BIN) * BIN, return_counts=True)
    return AspectFigures(
        images=len(score_N),
        mean=_mean(score_N),
        standard_error=float(score_N.std(ddof=1)) / math.sqrt(len(score_N)) if len(score_N) > 1 else None,
        scores=dict(zip(bins.tolist(), images.tolist(), strict=True)),
        pairs=pairs,
        choices=pairs - ties,
        ties=ties,
        tie_rate=ties / pairs if pairs else None,
        prompts_without_choice=prompts - _with_choice(preferences),
    )


def _sources(scored: Scores) -> list[SourceFigures]:
    model_N = scored.images["model"].combine_chunks().dictionary_encode(null_encoding="encode")
    figures = []
    for code, images in Counter(model_N.indices.to_numpy().tolist()).most_common():
        values_NA = scored.values_NA[model_N.indices.to_numpy() == code]
        means = {
            aspect: _mean(score_N[~np.isnan(score_N)])
            for aspect, score_N in zip(scored.aspects, values_NA.T, strict=True)
        }
        model = model_N.dictionary[code].as_py()
        figures.append(SourceFigures(model=model, images=images, share=images / len(model_N), means=means))
    return figures


def _with_choice(preferences: pa.Table) -> int:
    """Prompts that have a pair which is no tie."""
    chosen = pc.not_equal(preferences["label"], 0.5)
    return int(pc.count_distinct(preferences["prompt_id"].filter(chosen)).as_py())


def _mean(score_N: np.ndarray) -> float | None:
    return float(score_N.mean()) if len(score_N) else None


def _counted(values: list[str]) -> dict[str, int]:
    """How often each is there, the commonest first."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _kind(reason: str) -> str:
    """A failure without the particulars of its row."""
    return _PARTICULARS.sub("…", reason.partition("\n")[0])[:LONGEST_REASON]
