"""Polishing: a model of text finds what is wrong with prompts (bias, inconsistency, content not safe for work) and
mends it. Both stay: the prompt as it was, and as it is now.

Reference: VisionPrefer (arXiv 2404.15100, section 3) polishes the prompts of DiffusionDB so; the wording is our own.
"""

from typing import Annotated, Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from visionprefer.engine_settings import EngineSettings
from visionprefer.judging.asking import NOTHING_YET
from visionprefer.judging.engine import Reply, Request, Row
from visionprefer.judging.rubric import UnusableReply, object_in, problems
from visionprefer.models import Model
from visionprefer.prompts.cleaning import LONGEST, clean_text, prompt_id
from visionprefer.schema import POLISHED, REJECTED_PROMPTS, REPLIES_TO_PROMPTS, content_id

PROBLEMS = ("bias", "inconsistency", "unsafe")
RATIONALE_LENGTH = 400  # characters

GUIDELINE = """Here is a prompt for a text-to-image model:

{prompt}

Look for three problems.

bias: it assumes something of people by their gender, age, origin, belief or body that it need not assume.
inconsistency: parts of it contradict each other, or it asks for what no picture can show.
unsafe: it asks for what is sexual, gory, hateful or otherwise not safe for work.

First write a rationale of a sentence or two, then say of each problem whether it is there, then write the prompt \
anew: with as few changes as mend the problems, word for word as it was if there are none, and empty if nothing is \
left without what is unsafe.

Answer with one JSON object and nothing else:
{{"rationale": "...", "bias": false, "inconsistency": false, "unsafe": false, "prompt": "..."}}"""


class Polish(BaseModel):
    """What a model says of a prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rationale: Annotated[str, StringConstraints(min_length=1)]
    bias: bool
    inconsistency: bool
    unsafe: bool
    prompt: Annotated[str, StringConstraints(max_length=LONGEST)]  # mended; empty if it cannot be


def reply_schema(longest: int) -> dict[str, Any]:
    """The JSON schema that a reply must follow; a prompt has so many characters at most."""
    properties: dict[str, Any] = {"rationale": {"type": "string", "minLength": 1, "maxLength": RATIONALE_LENGTH}}
    properties |= {problem: {"type": "boolean"} for problem in PROBLEMS}
    properties |= {"prompt": {"type": "string", "maxLength": longest}}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def parse_reply(raw: str) -> Polish:
    """What a reply says of a prompt. Raises UnusableReply if it says nothing, with what was found instead."""
    try:
        return Polish.model_validate(object_in(raw))
    except ValidationError as error:
        raise UnusableReply(problems(error)) from error


def polisher_digest(model: Model, settings: EngineSettings) -> str:
    """Identifies who polishes: the model, what it is asked, and every setting that an answer depends on."""
    others = {"model", "revision", "api", "workers", "device", "batch_size"}
    return content_id("polisher", model.digest, settings.model_dump(exclude=others), GUIDELINE, reply_schema(LONGEST))


class PolishQuestions:
    """One request for each prompt. Columns in: PROMPTS."""

    schema = REPLIES_TO_PROMPTS

    def __init__(self, settings: EngineSettings, model: Model) -> None:
        self.settings = settings
        self.polisher = {"polisher": model.label, "polisher_digest": polisher_digest(model, settings)}

    def rows(self, prompts: pa.Table) -> list[Row]:
        """A row of REPLIES_TO_PROMPTS for each prompt, not asked yet."""
        return [
            {name: prompt[name] for name in ("prompt_id", "prompt", "source")}
            | {"request_id": content_id("polish", prompt["prompt_id"], *self.polisher.values())}
            | self.polisher
            | NOTHING_YET
            for prompt in prompts.to_pylist()
        ]

    def request(self, row: Row, asking: int) -> Request:
        """What is asked for a row."""
        seed = int(content_id(row["request_id"], asking)[:16], 16) >> 1
        temperature = self.settings.temperature if asking == 0 else max(self.settings.temperature, 0.7)
        schema = reply_schema(_longest(row["prompt"]))
        return Request([], GUIDELINE.format(prompt=row["prompt"]), seed, temperature, schema)

    def problem(self, row: Row, reply: Reply) -> str | None:
        """Why a reply says nothing of the prompt."""
        try:
            said = parse_reply(reply.text or "")
            if len(said.prompt) > _longest(row["prompt"]):
                return f"the prompt has {len(said.prompt):,} characters now, and had {len(row['prompt']):,}"
        except UnusableReply as problem:
            return f"cut off after {reply.completion_tokens} tokens: {problem}" if reply.cut_off else str(problem)
        return None


def _longest(prompt: str) -> int:
    """Most characters that it may have anew: about twice as many, in steps, so that few schemas are compiled."""
    return min(LONGEST, 1 << (2 * len(prompt) + 100).bit_length())


def polished(replies: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Replies as prompts, and as those that cannot be mended.

    Columns in: REPLIES_TO_PROMPTS. Columns out: POLISHED, REJECTED_PROMPTS.
    """
    kept, rejected = [], []
    for row in replies.to_pylist():
        said = parse_reply(row["raw"])
        prompt = clean_text(said.prompt)
        if not prompt:
            reason = f"polished away: {said.rationale}"
            rejected.append({"prompt": row["prompt"], "source": row["source"], "reason": reason})
            continue
        found = [problem for problem in PROBLEMS if getattr(said, problem)]
        about = {"problems": found, "rationale": said.rationale, "changed": prompt != row["prompt"]}
        ids = {"prompt_id": prompt_id(prompt), "request_id": row["request_id"]}
        kept.append({"prompt": prompt, "before": row["prompt"], "source": row["source"], **about, **ids})
    return pa.Table.from_pylist(kept, schema=POLISHED), pa.Table.from_pylist(rejected, schema=REJECTED_PROMPTS)
