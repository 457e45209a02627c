"""The rubric of joint mode: all images of a prompt in one request, so that a judge compares what it scores.

Scores and ranks for each aspect in one reply are what VisionPrefer asks of GPT-4V (arXiv 2404.15100, section 3); the
wording is our own.
"""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from visionprefer.judging.rubric import SCORES, WHAT_IS_JUDGED, UnusableReply, object_in, problems, verdict_schema
from visionprefer.schema import ASPECTS, content_id

GUIDELINE = f"""You are judging {{count}} images that text-to-image models made from this prompt:

{{prompt}}

Judge four aspects, each by itself. For each, first write a rationale that says what you see in the images, one after \
the other in the order shown, and how they differ. Then give each image a score from 1 to 5, and each a rank, 1 for \
the best and equal ranks for images between which there is no difference. Scores and ranks follow from the rationale \
and stand in the order in which the images are shown.

{WHAT_IS_JUDGED}

Answer with one JSON object and nothing else:
{{example}}"""


class JointAspectVerdict(BaseModel):
    """What a judge says of one aspect of several images; scores and ranks in the order shown."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rationale: Annotated[str, StringConstraints(min_length=1)]
    scores: list[Annotated[int, Field(ge=SCORES[0], le=SCORES[1])]]
    ranks: list[Annotated[int, Field(ge=1)]]


class JointVerdict(BaseModel):
    """What a judge says of several images."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt_following: JointAspectVerdict
    aesthetic: JointAspectVerdict
    fidelity: JointAspectVerdict
    harmlessness: JointAspectVerdict

    @model_validator(mode="after")
    def _counts_alike(self) -> Self:
        counts = {len(given) for _, verdict in self for given in (verdict.scores, verdict.ranks)}
        if len(counts) > 1:
            raise ValueError(f"lists of {sorted(counts)} scores and ranks")
        return self


def question(prompt: str, count: int) -> str:
    """What the judge is asked about so many images made from this prompt."""
    numbers = ", ".join(["1"] * count)
    each = f'{{"rationale": "...", "scores": [{numbers}], "ranks": [{numbers}]}}'
    example = ", ".join(f'"{aspect}": {each}' for aspect in ASPECTS)
    return GUIDELINE.format(count=count, prompt=prompt, example=f"{{{example}}}")


def reply_schema(rationale_length: int, count: int) -> dict[str, Any]:
    """The JSON schema that a reply about so many images must follow; see `rubric.reply_schema`."""

    def numbers(most: int) -> dict[str, Any]:
        one = {"type": "integer", "enum": list(range(1, most + 1))}
        return {"type": "array", "items": one, "minItems": count, "maxItems": count}

    return verdict_schema(rationale_length, scores=numbers(SCORES[1]), ranks=numbers(count))


def rubric_digest() -> str:
    """Identifies what judges are asked in joint mode, and how they must answer."""
    return content_id("joint rubric", GUIDELINE, reply_schema(1, 2))


def parse_reply(raw: str, count: int) -> JointVerdict:
    """The verdict on so many images in a reply.

    Raises:
        UnusableReply: if there is none, with what was found instead.
    """
    try:
        verdict = JointVerdict.model_validate(object_in(raw))
    except ValidationError as error:
        raise UnusableReply(problems(error)) from error
    found = len(verdict.prompt_following.scores)
    if found != count:
        raise UnusableReply(f"the reply scores {found} images, and {count} were shown")
    return verdict
