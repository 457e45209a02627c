"""How right the built-in judge is on pictures by the built-in image models: the figures of its card."""

import io
from collections import defaultdict

import pyarrow as pa
from PIL import Image

from visionprefer.blocksworld.agreement import agreement
from visionprefer.blocksworld.claims import claims
from visionprefer.blocksworld.measure import Figures, Share, share
from visionprefer.blocksworld.renderer import SIZE
from visionprefer.blocksworld.sight import look
from visionprefer.errors import InputError
from visionprefer.judging.asking import Asker
from visionprefer.judging.judge import JudgeQuestions, repeated
from visionprefer.judging.scores import judgements
from visionprefer.judging.transformers_engine import TransformersEngine
from visionprefer.judging.trust import AspectAgreement
from visionprefer.models import find_model
from visionprefer.recipe import JudgeSettings
from visionprefer.run_folder import RunFolder
from visionprefer.schema import ASPECTS

UNHELD = 256  # pictures judged again without a schema
AT_ONCE = 256  # pictures in memory


class JudgeFigures(Figures):
    """How right a judge was in a run."""

    valid_JSON_without_a_schema: Share
    agreement: dict[str, str]  # with the oracle on the order of two pictures of a prompt; the judge's ties count half
    agreement_on_blank_pictures: dict[str, str]  # of the same judge, with every picture of the run a white one
    named_faults_that_are_there: dict[str, Share]  # by the aspect whose rationale names them


def judge(run: RunFolder) -> JudgeFigures:
    """Compare a run's judge with the oracle, and with itself on blank pictures.

    Raises:
        InputError: if the run is not finished, or used no built-in model.
    """
    oracle = run.oracle()
    if oracle is None:
        raise InputError(f"{run.store.root}: no built-in model was used there. Give a finished run of the quickstart")
    images = run.images.table(["image_id", "prompt_id", "prompt", "split", "candidate", "model"])
    agreements = (
        agreement(verdicts, oracle, images, run.recipe.preferences.weights).aspects
        for verdicts in (run.judgements(), _on_blank_pictures(run))
    )
    told, told_of_blank = ({aspect: _told(of) for aspect, of in each.items() if of.pairs} for each in agreements)
    return JudgeFigures(
        valid_JSON_without_a_schema=_valid(run),
        agreement=told,
        agreement_on_blank_pictures=told_of_blank,
        named_faults_that_are_there=_named_faults(run),
    )


def _told(of: AspectAgreement) -> str:
    percent = [f"{100 * (value or 0):.1f}" for value in (of.agreement, of.low, of.high, of.tie_rate)]
    return "{} % ({} to {}, {:,} pairs), {} % ties of the judge".format(*percent[:3], of.pairs, percent[3])


def _on_blank_pictures(run: RunFolder) -> pa.Table:
    """What the run's judge says of the run's prompts, each with a white picture."""
    stage = _stage(run.recipe.judge)
    white = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE), "white").save(white, "PNG")
    images = run.images.table(["image_id", "prompt_id", "prompt"])
    blank = pa.array([{"bytes": white.getvalue(), "path": None}] * images.num_rows)
    blank_images = repeated(images.append_column("image", blank), run.recipe.judge.repeats)
    batches = blank_images.to_batches(max_chunksize=AT_ONCE)
    return judgements(pa.concat_tables(stage(pa.Table.from_batches([batch]))[0] for batch in batches))


def _stage(settings: JudgeSettings) -> Asker:
    model = find_model(settings.model, "transformers")
    return Asker(JudgeQuestions(settings, model), TransformersEngine(settings, model))


def _named_faults(run: RunFolder) -> dict[str, Share]:
    said = defaultdict(list)
    for row in run.judgements(["image_id", "scorer", "rationale"]).to_pylist():
        said[row["image_id"]].append((row["scorer"], row["rationale"] or ""))
    true = defaultdict(list)
    for table in run.images.tables(["image_id", "image"]):
        for image in table.to_pylist():
            sight = look(Image.open(io.BytesIO(image["image"]["bytes"])))
            for scorer, rationale in said[image["image_id"]]:
                for claim in claims(rationale, sight):
                    true[scorer].append(claim.true)
                    true["all"].append(claim.true)
    return {aspect: share(true[aspect]) for aspect in (*ASPECTS, "all") if true[aspect]}


def _valid(run: RunFolder) -> Share:
    """How many first replies hold a verdict if nothing holds the judge to the schema."""
    stage = _stage(run.recipe.judge.model_copy(update={"structured": False}))
    images = run.images.table(["image_id", "prompt_id", "prompt", "image"])
    some = images.take(list(range(0, images.num_rows, max(1, images.num_rows // UNHELD))))
    done, failed = stage(repeated(some, 1))
    first = [asked == 1 for asked in done["asked"].to_pylist()]
    return share([*first, *([False] * failed.num_rows)])
