"""How right the built-in judge is on pictures by the built-in image models: the figures of its card."""

import io
from collections import defaultdict
from typing import Any

from PIL import Image

from visionprefer.blocksworld.claims import claims
from visionprefer.blocksworld.measure import Figures, Share, share
from visionprefer.blocksworld.sight import look
from visionprefer.errors import InputError
from visionprefer.judging.judge import Request
from visionprefer.judging.rubric import UnusableReply, parse_reply, question
from visionprefer.judging.transformers_engine import TransformersEngine
from visionprefer.models import find_model
from visionprefer.run_folder import RunFolder
from visionprefer.schema import ASPECTS
from visionprefer.statistics import statistics

UNHELD = 256  # pictures judged again without a schema


class JudgeFigures(Figures):
    """How right a judge was in a run."""

    valid_JSON_without_a_schema: Share
    agreement: dict[str, str]  # with the oracle on the order of two pictures of a prompt; the judge's ties count half
    agreement_on_blank_pictures: str
    named_faults_that_are_there: dict[str, Share]  # by the aspect whose rationale names them


def judge(run: RunFolder) -> JudgeFigures:
    """Compare a run's judge with the oracle.

    Raises:
        InputError: if the run is not finished, or used no built-in model.
    """
    oracle = statistics(run).oracle
    if oracle is None:
        raise InputError(f"{run.store.root}: no built-in model was used there. Give a finished run of the quickstart")
    rows = [row for table in run.images.tables(["image_id", "prompt", "image"]) for row in table.to_pylist()]
    pictures = {row["image_id"]: Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB") for row in rows}
    prompts = {row["image_id"]: row["prompt"] for row in rows}
    agreement = {
        aspect: f"{100 * of.agreement:.1f} % ({100 * of.low:.1f} to {100 * of.high:.1f}, {of.pairs:,} pairs), "
        f"{100 * of.tie_rate:.1f} % ties of the judge"
        for aspect, of in oracle.aspects.items()
        if of.agreement is not None and of.low is not None and of.high is not None and of.tie_rate is not None
    }
    return JudgeFigures(
        valid_JSON_without_a_schema=_valid(run, pictures, prompts),
        agreement=agreement,
        agreement_on_blank_pictures="50 %: without pictures, all of a prompt get the same scores",
        named_faults_that_are_there=_named_faults(run, pictures),
    )


def _named_faults(run: RunFolder, pictures: dict[str, Image.Image]) -> dict[str, Share]:
    sights = {image_id: look(picture) for image_id, picture in pictures.items()}
    true = defaultdict(list)
    for row in run.judgements(["image_id", "scorer", "rationale"]).to_pylist():
        for claim in claims(row["rationale"] or "", sights[row["image_id"]]):
            true[row["scorer"]].append(claim.true)
            true["all"].append(claim.true)
    return {aspect: share(true[aspect]) for aspect in (*ASPECTS, "all") if true[aspect]}


def _valid(run: RunFolder, pictures: dict[str, Image.Image], prompts: dict[str, str]) -> Share:
    """How many replies hold a verdict if nothing holds the judge to the schema."""
    settings = run.recipe.judge.model_copy(update={"structured": False})
    engine = TransformersEngine(settings, find_model(settings.model, "transformers"))
    some = list(pictures)[:: max(1, len(pictures) // UNHELD)]
    replies = engine.ask([Request([pictures[i]], question(prompts[i]), 0, 0.0) for i in some])
    return share([_holds_verdict(reply.text) for reply in replies])


def _holds_verdict(text: Any) -> bool:
    try:
        parse_reply(text or "")
    except UnusableReply:
        return False
    return True
