"""What follows from a run's replies: judgements, preferences and the training table, some prompts at a time."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionprefer.judging.between_judges import voted_preferences
from visionprefer.judging.preferences import in_order, preferences
from visionprefer.judging.scores import judgements
from visionprefer.run_folder import RunFolder
from visionprefer.schema import JUDGEMENTS, PREFERENCES
from visionprefer.store import ROWS_PER_GROUP
from visionprefer.training_table import write_training

PROMPTS_AT_ONCE = 2**13  # compared together: each such part reads judgements.parquet once


def write_derived(run: RunFolder, digest: str) -> tuple[dict[str, str], list[str]]:
    """Write judgements, preferences and the training table of a run, all of whose replies are there.

    Preferences and training table are in the order of prompts.parquet. Memory grows with the run by the ids and prompts
    of its images alone.

    Args:
        run: the run.
        digest: of everything that the tables are made of.

    Returns:
        The SHA-256 of each file, and the names of the training table's files.
    """
    tables = {"judgements": (JUDGEMENTS, _judgements), "preferences": (PREFERENCES, _preferences)}
    files = {}
    for name, (schema, made) in tables.items():
        files[f"{name}.parquet"], _ = run.store.write_tables(f"{name}.parquet", schema, made(run), ROWS_PER_GROUP)
    return files, write_training(run.store, run.images, digest)


def _judgements(run: RunFolder) -> Iterator[pa.Table]:
    """What the judges said, each under a name that no other has."""
    place = JUDGEMENTS.names.index("judge")
    waiting: list[pa.Table] = []
    for judge, name in run.counted_judges().items():
        for replies in run.replies_of(judge).tables():
            said = judgements(replies)
            waiting.append(said.set_column(place, JUDGEMENTS.field("judge"), pa.repeat(name, said.num_rows)))
            if sum(table.num_rows for table in waiting) >= ROWS_PER_GROUP:
                yield pa.concat_tables(waiting)
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _preferences(run: RunFolder) -> Iterator[pa.Table]:
    """Preferences of PROMPTS_AT_ONCE prompts at a time, from judgements.parquet."""
    settings = run.recipe.preferences
    columns = [name for name in JUDGEMENTS.names if name != "rationale"]  # the most of their bytes
    prompt_ids = run.store.read_table("prompts.parquet", ["prompt_id"])["prompt_id"]
    plan = run.plan(["image_id", "prompt_id", "prompt", "split", "candidate"])
    part_N = pc.index_in(plan["prompt_id"], prompt_ids).to_numpy() // PROMPTS_AT_ONCE
    for part in np.unique(part_N):
        planned = plan.filter(pa.array(part_N == part))
        said = run.store.read_table(
            "judgements.parquet", columns, pc.field("prompt_id").isin(planned["prompt_id"].unique())
        )
        if settings.judges == "vote" and said.num_rows:
            by_judge = [said.filter(pc.equal(said["judge"], judge)) for judge in run.counted_judges().values()]
            pairs = voted_preferences(by_judge, planned, settings)
        else:
            pairs = preferences(said, planned, settings)
        yield in_order(pairs, prompt_ids)
