"""Scorers side by side: how often each puts two images of a prompt in the order that is known.

Shapes: N images, A aspects.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from visionprefer.errors import InputError
from visionprefer.judging import trust
from visionprefer.judging.scores import SCORED, Scores, scores
from visionprefer.judging.trust import AspectAgreement
from visionprefer.run_folder import RunFolder
from visionprefer.schema import ASPECTS, OVERALL
from visionprefer.scorers.scoring import FOLDER
from visionprefer.statistics.tables import Table, interval, share


class ScorerAgreement(BaseModel):
    """What one scorer is worth. A scorer of one number is set against every aspect with that number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scorer: str
    judge: str  # the model behind it
    images: int  # that have a score
    aspects: dict[str, AspectAgreement]  # of what is known


def compare(run: RunFolder, known: pa.Table, split: str | None = None) -> list[ScorerAgreement]:
    """Set each scorer that has written into a run against preferences that are known.

    Args:
        run: with files of `scoring.write_scores`.
        known: of PREFERENCES prompt_id, image_id_0, image_id_1, aspect and label.
        split: whose prompts count: "train", "held_out"; None: all.

    Raises:
        InputError: if no scorer has written, or no pair is about two images of this split.
    """
    images = _images(run, split)
    aspects = _in_order(known["aspect"].to_pylist())
    found = []
    for file in run.store.names(FOLDER):
        written = run.store.read_table(f"{FOLDER}/{file}").filter(pc.field("score").is_valid())
        place = pc.index_in(images["image_id"], written["image_id"].combine_chunks())
        value_N = written["score"].take(place).to_numpy()
        judged = Scores(images, aspects, np.repeat(value_N[:, None], len(aspects), axis=1))
        agreed = trust.agreements(trust.compare(judged, known), aspects)
        name, judge = file.removesuffix(".parquet"), written["judge"][0].as_py() if written.num_rows else ""
        found.append(ScorerAgreement(scorer=name, judge=judge, images=int(np.isfinite(value_N).sum()), aspects=agreed))
    if not found:
        raise InputError(f"{run.store.root}/{FOLDER}: no scorer has written there. Write --scorer clip=LOCATION")
    if not any(of.pairs for one in found for of in one.aspects.values()):
        raise InputError(f"{run.store.root}: of the known pairs none is about two images that have a score")
    return found


def agreement_of_judge(run: RunFolder, known: pa.Table, split: str | None = None) -> ScorerAgreement:
    """The run's own judge, each aspect by its own score; see `compare`."""
    images = _images(run, split)
    judgements = run.judgements(SCORED)
    judgements = judgements.filter(pc.is_in(judgements["image_id"], images["image_id"]))
    judged = scores(judgements, images, run.recipe.preferences.weights)
    agreed = trust.agreements(trust.compare(judged, known), _in_order(known["aspect"].to_pylist()))
    seen = pc.count_distinct(judgements["image_id"]).as_py()
    return ScorerAgreement(scorer="judge", judge=", ".join(run.counted_judges().values()), images=seen, aspects=agreed)


def tables(found: list[ScorerAgreement], against: str) -> list[Table]:
    """The agreements for people to read: of the most important aspect with intervals, then of the others.

    Args:
        found: of `compare`, and any others: VP-Score's is `ScorerAgreement(…, aspects=figures.aspects)` of its test.
        against: what is known, in words.
    """
    first, *others = _in_order(name for one in found for name in one.aspects)
    nothing = AspectAgreement(pairs=0, agreement=None, low=None, high=None, tie_rate=None)
    leading = []
    for one in found:
        of = one.aspects.get(first, nothing)
        figures = [f"{one.images:,}", f"{of.pairs:,}", share(of.agreement), interval(of.low, of.high)]
        leading.append([one.scorer, one.judge, *figures])
    shares = [[one.scorer, *(share(one.aspects.get(name, nothing).agreement) for name in others)] for one in found]
    columns = ["scorer", "model", "images", "pairs", "agreement", "95 % interval"]
    told = [Table(f"Agreement with {against}, {first}", columns, leading)]
    return told + ([Table("Agreement in other aspects", ["scorer", *others], shares)] if others else [])


def _images(run: RunFolder, split: str | None) -> pa.Table:
    images = run.images.table(["image_id", "prompt_id", "split", "candidate"])
    images = images if split is None else images.filter(pc.field("split") == split)
    if not images.num_rows:
        raise InputError(f"{run.store.root}: no image of split {split}. Write --split all")
    return images.combine_chunks()


def _in_order(aspects: Iterable[str]) -> list[str]:
    """The overall one first, then the rubric's in its order, then the others by name."""
    order = (OVERALL, *ASPECTS)
    return sorted(set(aspects), key=lambda name: (order.index(name) if name in order else len(order), name))
