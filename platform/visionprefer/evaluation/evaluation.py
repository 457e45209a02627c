"""An evaluation of image models: its figures, its tables, and a page with the worst regressions first."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from visionprefer.blocksworld.agreement import ModelRightness, agreement
from visionprefer.errors import InputError
from visionprefer.evaluation.duels import (
    COLUMNS,
    Duel,
    Meeting,
    Verdicts,
    duels,
    meetings_of,
    of_oracle,
    of_preferences,
    of_scores,
)
from visionprefer.gallery import Gallery, Judged
from visionprefer.judging.scores import SCORED, Scores, scores
from visionprefer.report import environment
from visionprefer.run_folder import RunFolder
from visionprefer.schema import ASPECTS, OVERALL
from visionprefer.statistics.tables import Table, interval, share

MOST_SHOWN = 48  # meetings on the page, half of them from each end


class Evaluation(BaseModel):
    """How image models stand to each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    models: list[str]  # in the recipe's order: the first is what the others are compared with
    prompts: int
    meetings: int
    sorted_by: str  # whose overall score puts the page in order
    duels: list[Duel]
    oracle: list[ModelRightness]  # of each model's images; empty where it knows nothing


class Shown(NamedTuple):
    """A meeting on the page."""

    meeting: Meeting
    difference: float  # model − other
    model: Judged
    other: Judged


def write_evaluation(run: RunFolder, rewards: dict[str, Scores]) -> Evaluation:
    """Evaluate the models of a finished run; writes evaluation.json and evaluation.html into its folder.

    Args:
        run: a finished run of a recipe with `images.every_model`.
        rewards: scores of the run's images by reward models, by their names; the first puts the page in order.

    Raises:
        InputError: if the run is not finished, or was not made to compare models, or a reward bears a scorer's name.
    """
    run.check_finished()
    meetings, images, oracle = meetings_of(run), run.images.table(COLUMNS), run.oracle()
    weights = run.recipe.preferences.weights
    judge = ", ".join(run.counted_judges().values())
    if taken := [name for name in rewards if name in (judge, "oracle")]:
        raise InputError(f"--reward: a folder is called {taken[0]!r}, as another scorer is: give it another name")
    verdicts: dict[str, Verdicts] = {name: of_scores(found, meetings) for name, found in rewards.items()}
    verdicts[judge] = of_preferences(run.preferences())
    if oracle is not None:
        verdicts["oracle"] = of_oracle(oracle, run, meetings)
    judged = run.judgements(SCORED)
    first = next(iter(rewards.values()), None) or scores(judged, images, weights)
    known = agreement(judged, oracle, images, weights).models if oracle is not None else []
    models = list(dict.fromkeys(images.sort_by("candidate")["model"].to_pylist()))
    found = Evaluation(
        name=run.recipe.name,
        models=models,
        prompts=len({meeting.prompt_id for meeting in meetings}),
        meetings=len(meetings),
        sorted_by=next(iter(rewards), judge),
        duels=duels(meetings, verdicts),
        oracle=sorted(known, key=lambda of: models.index(str(of.model))),
    )
    run.store.write("evaluation.json", found.model_dump_json(indent=1).encode())
    run.store.write("evaluation.html", _page(run, found, _sorted(meetings, first)).encode())
    return found


def tables(found: Evaluation) -> list[Table]:
    """The figures for people to read; what there is nothing of is left out."""
    told = [
        _papers(found),
        *(_duels(found.duels, model, other) for model, other in dict.fromkeys((d.model, d.other) for d in found.duels)),
        _oracle(found.oracle),
    ]
    return [table for table in told if table.rows]


def _papers(found: Evaluation) -> Table:
    """#Win and WinRate as the papers lay them out: a row for each model, against the first, two columns a scorer."""
    overall = [duel for duel in found.duels if duel.other == found.models[0] and duel.aspect == OVERALL]
    scorers = list(dict.fromkeys(duel.scorer for duel in overall))
    by_place = {(duel.model, duel.scorer): duel for duel in overall}
    rows = []
    for model in found.models[1:]:
        row = [model]
        for scorer in scorers:
            duel = by_place.get((model, scorer))
            row += [f"{duel.wins:,}", share(duel.win_rate)] if duel else ["–", "–"]
        rows.append(row)
    columns = [f"{scorer} {what}" for scorer in scorers for what in ("#Win", "WinRate")]
    return Table(f"Overall, against {found.models[0]}", ["model", *columns], rows if scorers else [])


def _duels(every: Sequence[Duel], model: str, other: str) -> Table:
    rows = [
        [
            f"{duel.scorer}: {duel.aspect.replace('_', ' ')}",
            *(f"{count:,}" for count in (duel.wins, duel.ties, duel.losses)),
            share(duel.win_rate),
            interval(duel.low, duel.high),
        ]
        for duel in every
        if (duel.model, duel.other) == (model, other)
    ]
    return Table(f"{model} against {other}", ["by", "wins", "ties", "losses", "win rate", "95 % interval"], rows)


def _oracle(models: Sequence[ModelRightness]) -> Table:
    rows = [
        [
            str(of.model),
            f"{of.images:,}",
            share(of.fully_right),
            interval(of.low, of.high),
            *(f"{of.means[aspect]:.2f}" for aspect in ASPECTS),
        ]
        for of in models
    ]
    return Table("By the oracle", ["model", "images", "fully right", "95 % interval", *ASPECTS], rows)


def _sorted(meetings: Sequence[Meeting], scored: Scores) -> list[tuple[Meeting, float]]:
    """Meetings with a model's overall score less the other's, the worst regression first."""
    place = scored.aspects.index(OVERALL) if OVERALL in scored.aspects else -1
    values = dict(zip(scored.images["image_id"].to_pylist(), scored.values_NA[:, place], strict=True))
    found = [(one, values.get(one.image_id, np.nan) - values.get(one.other_image_id, np.nan)) for one in meetings]
    return sorted(((one, float(by)) for one, by in found if not np.isnan(by)), key=lambda pair: pair[1])


def _page(run: RunFolder, found: Evaluation, order: list[tuple[Meeting, float]]) -> str:
    ends = {
        "regressions": [one for one in order if one[1] < 0][: MOST_SHOWN // 2],
        "improvements": [one for one in reversed(order) if one[1] > 0][: MOST_SHOWN // 2],
    }
    gallery = Gallery(run)
    prompt_ids = list(dict.fromkeys(one.prompt_id for shown in ends.values() for one, _ in shown))
    judged = {one.row["image_id"]: one for of in gallery.judged(prompt_ids).values() for one in of}
    sections: dict[str, list[Shown]] = {
        title: [Shown(one, by, judged[one.image_id], judged[one.other_image_id]) for one, by in shown]
        for title, shown in ends.items()
    }
    pictures = [one for shown in sections.values() for case in shown for one in (case.model, case.other)]
    page: Any = environment().get_template("evaluation.html")
    html: str = page.render(
        found=found, tables=tables(found), sections=sections, thumbnails=gallery.thumbnails(pictures)
    )
    return html
