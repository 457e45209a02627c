"""The figures of a run as tables of text, for a terminal or a page."""

from typing import NamedTuple

from visionprefer.blocksworld.agreement import OracleFigures
from visionprefer.judging.consistency import Position, SelfConsistency
from visionprefer.schema import ASPECTS
from visionprefer.statistics.figures import AspectFigures, PromptFigures, ReplyFigures, SourceFigures, Statistics
from visionprefer.statistics.win_rates import WinRate

NOTHING = "–"
UNKNOWN = "not told"  # the model of images that existed already
REASONS = 10  # of each kind that are shown, the commonest


class Table(NamedTuple):
    """Text in rows. The first column says what a row is about, the others are figures."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def tables(statistics: Statistics) -> list[Table]:
    """All figures for people to read; what there is nothing of is left out."""
    told = [
        _prompts(statistics.prompts, statistics.prompts_without_choice),
        _rows(statistics),
        _reasons("Why prompts were rejected", statistics.prompts.reject_reasons),
        _reasons("Why images failed", statistics.images.failure_reasons),
        _reasons("Why replies failed", statistics.replies.failure_reasons),
        _replies(statistics.replies),
        _preferences(statistics.aspects),
        _scores(statistics.aspects),
        _histogram(statistics.aspects),
        _sources(statistics.sources),
        _means(statistics.sources, list(statistics.aspects)),
        *(_wins(column, rates) for column, rates in statistics.win_rates.items()),
        _self_consistency(statistics.self_consistency),
        _positions(statistics.positions),
        *(_oracle(statistics.oracle) if statistics.oracle else []),
    ]
    return [table for table in told if table.rows]


def _prompts(figures: PromptFigures, without_choice: int) -> Table:
    read = figures.kept + figures.rejected + figures.not_sampled
    counts = {"read": read, "rejected": figures.rejected, "not sampled": figures.not_sampled, "kept": figures.kept}
    counts |= {f"kept, in {split}": prompts for split, prompts in figures.splits.items()}
    counts["kept, without a choice"] = without_choice
    return Table("Prompts", ["", "prompts"], [[name, _count(count)] for name, count in counts.items()])


def _rows(statistics: Statistics) -> Table:
    rows = [
        [name, *map(_count, (figures.planned, figures.done, figures.failed, figures.pending))]
        for name, figures in (("images", statistics.images), ("replies", statistics.replies))
    ]
    return Table("Images and replies", ["", "planned", "done", "failed", "to do"], rows)


def _reasons(title: str, reasons: dict[str, int]) -> Table:
    rows = [[reason, _count(count)] for reason, count in list(reasons.items())[:REASONS]]
    if len(reasons) > REASONS:
        others = list(reasons.values())[REASONS:]
        rows.append([f"{len(others)} other reasons", _count(sum(others))])
    return Table(title, ["reason", "rows"], rows)


def _replies(figures: ReplyFigures) -> Table:
    rows = [
        ["requests asked twice", _count(figures.asked_twice)],
        ["tokens read", _count(figures.prompt_tokens)],
        ["tokens written", _count(figures.completion_tokens)],
    ]
    if figures.cost is not None:
        rows.append(["cost", f"{figures.cost:,.2f}"])
    return Table("Spent on judging", ["", "in all"], rows if figures.planned else [])


def _preferences(aspects: dict[str, AspectFigures]) -> Table:
    rows = [
        [
            aspect,
            *map(_count, (figures.pairs, figures.choices, figures.ties)),
            share(figures.tie_rate),
            _count(figures.prompts_without_choice),
        ]
        for aspect, figures in aspects.items()
    ]
    columns = ["aspect", "pairs", "choices", "ties", "tie rate", "prompts without a choice"]
    return Table("Preferences", columns, rows)


def _scores(aspects: dict[str, AspectFigures]) -> Table:
    rows = [
        [aspect, _count(figures.images), _score(figures.mean), _score(figures.standard_error, decimals=3)]
        for aspect, figures in aspects.items()
    ]
    return Table("Scores", ["aspect", "images", "mean", "standard error"], rows)


def _histogram(aspects: dict[str, AspectFigures]) -> Table:
    bins = sorted({score for figures in aspects.values() for score in figures.scores})
    rows = [[f"{low:g}", *(_count(figures.scores.get(low, 0)) for figures in aspects.values())] for low in bins]
    return Table("Images by score, in half points", ["score from", *aspects], rows)


def _sources(sources: list[SourceFigures]) -> Table:
    rows = [[source.model or UNKNOWN, _count(source.images), share(source.share)] for source in sources]
    return Table("Source models", ["model", "images", "share"], rows)


def _means(sources: list[SourceFigures], aspects: list[str]) -> Table:
    rows = [[source.model or UNKNOWN, *(_score(source.means[aspect]) for aspect in aspects)] for source in sources]
    return Table("Mean scores by source model", ["model", *aspects], rows)


def _wins(column: str, rates: list[WinRate]) -> Table:
    name = column.replace("_", " ")
    rows = [
        [
            rate.value if isinstance(rate.value, str) else f"{rate.value:g}",
            _count(rate.comparisons),
            share(rate.rate),
            interval(rate.low, rate.high),
        ]
        for rate in rates
    ]
    return Table(f"Win rate by {name}, overall", [name, "comparisons", "win rate", "95 % interval"], rows)


def _self_consistency(aspects: list[SelfConsistency]) -> Table:
    rows = [[of.aspect, _count(of.pairs), share(of.same), share(of.opposed)] for of in aspects]
    return Table("The judge asked again about the same images", ["aspect", "pairs", "same", "opposed"], rows)


def _positions(places: list[Position]) -> Table:
    rows = [[str(of.position), _count(of.comparisons), share(of.win_rate), interval(of.low, of.high)] for of in places]
    columns = ["place", "comparisons", "win rate", "95 % interval"]
    return Table("Win rate by place among the images shown together", columns, rows)


def _oracle(figures: OracleFigures) -> list[Table]:
    judge = [
        [
            aspect,
            _count(found.pairs),
            share(found.agreement),
            interval(found.low, found.high),
            share(found.tie_rate),
        ]
        for aspect, found in figures.aspects.items()
    ]
    right = [
        [found.model or UNKNOWN, _count(found.images), share(found.fully_right), interval(found.low, found.high)]
        for found in figures.models
    ]
    means = [[found.model or UNKNOWN, *map(_score, found.means.values())] for found in figures.models]
    return [
        Table("The judge against the oracle", ["aspect", "pairs", "agreement", "95 % interval", "judge's ties"], judge),
        Table("Images that are fully right", ["model", "images", "fully right", "95 % interval"], right),
        Table("Mean scores by source model, of the oracle", ["model", *ASPECTS], means),
    ]


def _count(count: int) -> str:
    return f"{count:,}"


def share(value: float | None) -> str:
    """A share in percent."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def interval(low: float | None, high: float | None) -> str:
    """An interval of shares, in percent."""
    return NOTHING if low is None else f"{100 * low:.1f} to {share(high)}"


def _score(score: float | None, decimals: int = 2) -> str:
    return NOTHING if score is None else f"{score:.{decimals}f}"
