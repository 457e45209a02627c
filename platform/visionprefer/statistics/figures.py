"""The figures of a run. Where there is nothing to take a mean or a share of, there is none, and no zero."""

from pydantic import BaseModel, ConfigDict

from visionprefer.blocksworld.agreement import OracleFigures
from visionprefer.judging.consistency import Position, SelfConsistency
from visionprefer.statistics.win_rates import WinRate


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PromptFigures(_Figures):
    """The prompts that were read."""

    kept: int
    rejected: int
    not_sampled: int
    splits: dict[str, int]  # of those kept
    reject_reasons: dict[str, int]  # by kind, the commonest first


class RowFigures(_Figures):
    """Rows of a paid-for table: planned = done + failed + pending."""

    planned: int
    done: int
    failed: int
    pending: int
    failure_reasons: dict[str, int]  # the commonest first, … in place of what differs between failures of one kind


class ReplyFigures(RowFigures):
    """The replies, and what was spent on them: also on failures that a later generation made good."""

    asked_twice: int  # requests whose first reply could not be used
    prompt_tokens: int
    completion_tokens: int
    cost: float | None  # in the currency of the recipe's prices; null where nothing is charged


class AspectFigures(_Figures):
    """One scorer, or the weighted sum."""

    images: int  # that have a score
    mean: float | None
    standard_error: float | None  # of the mean, the images taken for independent
    scores: dict[float, int]  # images by score, rounded down to half points
    pairs: int  # choices + ties
    choices: int
    ties: int
    tie_rate: float | None  # ties / pairs
    prompts_without_choice: int  # of those kept: no pair by this aspect, or ties alone


class SourceFigures(_Figures):
    """The images of one model."""

    model: str | None  # null for images that existed already
    images: int  # done
    share: float  # of all images done
    means: dict[str, float | None]  # of the scores, by aspect


class Statistics(_Figures):
    """A finished run in figures."""

    name: str
    prompts: PromptFigures
    images: RowFigures
    replies: ReplyFigures
    aspects: dict[str, AspectFigures]  # the rubric's, other scorers, "overall"
    sources: list[SourceFigures]  # the most images first
    win_rates: dict[str, list[WinRate]]  # overall, by column of the plan; empty where no pair differs in it
    prompts_without_choice: int  # kept, but no aspect gives them a choice: the training table lacks them
    self_consistency: list[SelfConsistency]  # of the run's judge; empty where no order was turned round
    positions: list[Position]  # empty where images were judged one by one
    oracle: OracleFigures | None  # null where the run used no built-in model
