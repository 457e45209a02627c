"""A judge audited: its figures against preferences that are known, and a page of its worst mistakes."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from visionprefer.blocksworld.agreement import known_preferences
from visionprefer.errors import InputError
from visionprefer.gallery import Gallery
from visionprefer.judging import trust
from visionprefer.judging.scores import SCORED, scores
from visionprefer.judging.trust import AspectAgreement, Certainty, Leaning
from visionprefer.report import environment
from visionprefer.run_folder import RunFolder
from visionprefer.schema import OVERALL
from visionprefer.statistics import spent
from visionprefer.statistics.tables import NOTHING, Table, interval, share
from visionprefer.store import Store

MOST_DISAGREEMENTS = 24


class AuditFigures(BaseModel):
    """How far a judge can be trusted. Pairs known = compared + ties of what is known + those without a score."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: str
    against: str
    images: int  # that it judged
    known: int
    compared: int
    known_ties: int
    without_score: int
    aspects: dict[str, AspectAgreement]
    certainties: list[Certainty]
    leanings: dict[str, list[Leaning]]  # by column of IMAGES, of the overall order or else of all aspects together
    tokens_per_image: float | None  # read and written
    cost_per_1000_images: float | None  # in the currency of the recipe's prices


def known_of_oracle(run: RunFolder) -> pa.Table:
    """What the oracle prefers in a finished run of built-in models: PREFERENCES.

    Raises:
        InputError: if the run used no built-in model.
    """
    oracle = run.oracle()
    if oracle is None:
        raise InputError(
            f"{run.store.root}: the oracle knows the built-in models only, and none was used here. "
            "Write --against FILE, a Parquet file of preferences that are known"
        )
    images = run.images.table(["image_id", "prompt_id", "prompt", "split", "candidate"])
    return known_preferences(oracle, images, run.recipe.preferences.weights)


def known_preferences_of(run: RunFolder, against: str) -> pa.Table:
    """What is known of a run's images: "judge", "oracle", or a Parquet file as `read_known` takes it."""
    if against == "judge":
        return run.preferences()
    return known_of_oracle(run) if against == "oracle" else read_known(against)


def read_known(path: str) -> pa.Table:
    """Preferences that are known, from a Parquet file, local or s3://, gs://.

    Raises:
        InputError: if it cannot be read, or lacks a column.
    """
    folder, _, name = path.rpartition("/")
    try:
        known = Store(folder or ".").read_table(name)
    except (OSError, InputError) as error:
        raise InputError(f"--against {path}: no Parquet file can be read there: {error.__cause__ or error}") from error
    if missing := [name for name in trust.COLUMNS if name not in known.column_names]:
        raise InputError(
            f"--against {path}: there is no column {', '.join(missing)}. Write a file with the columns "
            f"{', '.join(trust.COLUMNS)}, as preferences.parquet has them"
        )
    return known


def write_audit(run: RunFolder, known: pa.Table, against: str) -> AuditFigures:
    """Audit the judge of a finished run; writes audit.json and audit.html into its folder.

    Args:
        run: a finished run.
        known: of PREFERENCES prompt_id, image_id_0, image_id_1, aspect and label; ids are those of the run's images.
        against: what `known` is, in words.

    Raises:
        InputError: if the run is not finished, or no pair is about images of the run.
    """
    columns = ["image_id", "prompt_id", "prompt", "split", "candidate", "model", "guidance_scale"]
    images = run.images.table(columns)
    judged = scores(run.judgements(SCORED), images, run.recipe.preferences.weights)
    pairs = trust.compare(judged, known)
    if not pairs.num_rows:
        raise InputError(
            f"{against}: of its {known.num_rows:,} pairs none is about two judged images of {run.store.root} in an "
            "aspect that the judge scores. Write image ids of that run, and aspects such as overall"
        )
    figures = _figures(run, images, known, pairs, against)
    run.store.write("audit.json", figures.model_dump_json(indent=1).encode())
    run.store.write("audit.html", _page(run, figures, trust.worst(pairs, MOST_DISAGREEMENTS)).encode())
    return figures


def tables(figures: AuditFigures) -> list[Table]:
    """The figures for people to read; what there is nothing of is left out."""
    agreement = [
        [aspect, f"{of.pairs:,}", share(of.agreement), interval(of.low, of.high), share(of.tie_rate)]
        for aspect, of in figures.aspects.items()
    ]
    by_place = {
        (of.points, of.aspect): f"{share(of.agreement)} ({of.pairs:,})\n{100 * of.low:.0f} to {100 * of.high:.0f} %"
        for of in figures.certainties
    }
    certainty = [
        [str(points), *(by_place.get((points, aspect), NOTHING) for aspect in figures.aspects)]
        for points in sorted({of.points for of in figures.certainties})
    ]
    told = [
        Table("Agreement", ["aspect", "pairs", "agreement", "95 % interval", "judge's ties"], agreement),
        Table("Agreement by points between the scores (pairs; 95 % interval)", ["points", *figures.aspects], certainty),
        *(_leaning(column, leanings) for column, leanings in figures.leanings.items()),
    ]
    return [table for table in told if table.rows]


def _leaning(column: str, leanings: list[Leaning]) -> Table:
    name = column.replace("_", " ")
    rows = [
        [
            of.value if isinstance(of.value, str) else f"{of.value:g}",
            f"{of.pairs:,}",
            share(of.judge),
            share(of.known),
            f"{100 * of.low:+.1f} to {100 * of.high:+.1f}",
        ]
        for of in leanings
    ]
    return Table(f"Preferred by {name}", [name, "pairs", "by the judge", "known", "95 % interval of more"], rows)


def _figures(run: RunFolder, images: pa.Table, known: pa.Table, pairs: pa.Table, against: str) -> AuditFigures:
    aspects = pc.unique(pairs["aspect"]).to_pylist()
    overall = pairs.filter(pc.field("aspect") == OVERALL)
    ties = pc.sum(pc.equal(known["label"], 0.5), min_count=0).as_py()
    shown = pc.list_flatten(run.replies.table(["image_ids"])["image_ids"])
    paid, judged = spent(run.replies), pc.count_distinct(shown).as_py()  # in joint mode a reply is about several
    tokens = paid["prompt_tokens"] + paid["completion_tokens"]
    return AuditFigures(
        judge=", ".join(run.counted_judges().values()),
        against=against,
        images=judged,
        known=known.num_rows,
        compared=pairs.num_rows,
        known_ties=ties,
        without_score=known.num_rows - ties - pairs.num_rows,
        aspects=trust.agreements(pairs, aspects),
        certainties=trust.certainties(pairs),
        leanings={
            column: trust.leanings(overall if overall.num_rows else pairs, images, column)
            for column in ("model", "guidance_scale")
        },
        tokens_per_image=tokens / judged if tokens else None,
        cost_per_1000_images=None if paid["cost"] is None else 1000 * paid["cost"] / judged,
    )


def _page(run: RunFolder, figures: AuditFigures, wrong: list[dict[str, Any]]) -> str:
    gallery = Gallery(run)
    judged = {
        one.row["image_id"]: one for of in gallery.judged([row["prompt_id"] for row in wrong]).values() for one in of
    }
    cases = []
    for row in wrong:
        chosen, better = (int(row[side] < 0) for side in ("said", "better"))
        sides = [judged[row[f"image_id_{place}"]] for place in (chosen, better)]
        cases.append(row | {"judge_prefers": sides[0], "better": sides[1]})
    shown = [one for case in cases for one in (case["judge_prefers"], case["better"])]
    return (
        environment()
        .get_template("audit.html")
        .render(figures=figures, tables=tables(figures), cases=cases, thumbnails=gallery.thumbnails(shown))
    )
