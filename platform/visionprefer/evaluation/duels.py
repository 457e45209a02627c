"""Which of two image models wins, by the word of a judge, of a reward model and of the oracle.

Two images meet that models made of the same prompt from the same noise.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from visionprefer.blocksworld.agreement import known_preferences
from visionprefer.errors import InputError
from visionprefer.intervals import interval_over_prompts
from visionprefer.judging.scores import Scores
from visionprefer.run_folder import RunFolder
from visionprefer.schema import OVERALL

COLUMNS = ["image_id", "prompt_id", "prompt", "split", "candidate", "model"]
FULLY_RIGHT = "fully right"


class Duel(BaseModel):
    """All meetings of two models, by one score. Meetings = wins + ties + losses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    other: str  # the one that stands earlier in the recipe
    scorer: str  # whose word it is
    aspect: str
    meetings: int
    wins: int  # of `model`
    ties: int
    losses: int
    win_rate: float  # (wins + ties / 2) / meetings
    low: float  # of its 95 % interval, prompts drawn with replacement
    high: float


class Meeting(NamedTuple):
    """Two images of one prompt and one noise."""

    prompt_id: str
    prompt: str
    model: str
    other: str
    image_id: str  # by `model`
    other_image_id: str


# By aspect and pair of image ids: 1 where the first is better, 0 where the second is, 0.5 for a tie.
Verdicts = Mapping[str, Mapping[tuple[str, str], float]]


def meetings_of(run: RunFolder) -> list[Meeting]:
    """All meetings in a finished run, by prompt.

    Raises:
        InputError: if the models did not all draw from the same noise, or bear one name.
    """
    settings = run.recipe.images
    if not settings.every_model:
        raise InputError(
            f"{run.store.root}: its images are not made to compare models. Run a recipe with images.every_model: true"
        )
    by_noise: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in run.images.table(COLUMNS).to_pylist():
        by_noise[row["prompt_id"], row["candidate"] % settings.images_per_prompt].append(row)
    found = []
    for key in sorted(by_noise):
        for other, row in combinations(sorted(by_noise[key], key=lambda row: row["candidate"]), 2):
            if row["model"] == other["model"]:
                raise InputError(f"images.models: two are called {row['model']!r}: give their folders different names")
            names = (row["model"], other["model"], row["image_id"], other["image_id"])
            found.append(Meeting(row["prompt_id"], row["prompt"], *names))
    return found


def duels(meetings: Sequence[Meeting], verdicts: Mapping[str, Verdicts]) -> list[Duel]:
    """Count the meetings by models, scorer and aspect; those of which a scorer says nothing are left out.

    Args:
        meetings: of models.
        verdicts: by scorer.
    """
    by_models: dict[tuple[str, str], list[Meeting]] = defaultdict(list)
    for meeting in meetings:
        by_models[meeting.model, meeting.other].append(meeting)
    return [
        duel
        for (model, other), between in by_models.items()
        for scorer, by_aspect in verdicts.items()
        for aspect, said in by_aspect.items()
        if (duel := _duel(model, other, scorer, aspect, list(_labels(between, said))))
    ]


def of_preferences(preferences: pa.Table) -> Verdicts:
    """What a table of preferences says. Columns in: of PREFERENCES image_id_0, image_id_1, aspect and label."""
    found: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    for row in preferences.select(["image_id_0", "image_id_1", "aspect", "label"]).to_pylist():
        found[row["aspect"]][row["image_id_0"], row["image_id_1"]] = row["label"]
    return {OVERALL: found.pop(OVERALL), **found} if OVERALL in found else found


def of_scores(scores: Scores, meetings: Sequence[Meeting]) -> Verdicts:
    """What scores say of meetings; equal ones are a tie, and an image without a score meets nobody."""
    place = {image_id: row for row, image_id in enumerate(scores.images["image_id"].to_pylist())}
    pairs = [(one.image_id, one.other_image_id) for one in meetings]
    return {
        aspect: {
            pair: float((np.sign(column_N[place[pair[0]]] - column_N[place[pair[1]]]) + 1) / 2)
            for pair in pairs
            if all(image in place and not np.isnan(column_N[place[image]]) for image in pair)
        }
        for aspect, column_N in zip(scores.aspects, scores.values_NA.T, strict=True)
    }


def of_oracle(oracle: pa.Table, run: RunFolder, meetings: Sequence[Meeting]) -> Verdicts:
    """What the oracle says: which image is fully right, and its scores. Columns in: ORACLE."""
    right = {row["image_id"]: row["fully_right"] for row in oracle.to_pylist() if row["applicable"]}
    pairs = [(one.image_id, one.other_image_id) for one in meetings]
    known = {pair: (1 + right[pair[0]] - right[pair[1]]) / 2 for pair in pairs if all(image in right for image in pair)}
    weights = run.recipe.preferences.weights
    return {FULLY_RIGHT: known, **of_preferences(known_preferences(oracle, run.images.table(COLUMNS), weights))}


def _labels(meetings: Sequence[Meeting], said: Mapping[tuple[str, str], float]) -> Iterator[tuple[str, float]]:
    """Prompt and label, 1 for a win of the model, of the meetings that are spoken of."""
    for meeting in meetings:
        pair = (meeting.image_id, meeting.other_image_id)
        if pair in said:
            yield meeting.prompt_id, said[pair]
        elif pair[::-1] in said:
            yield meeting.prompt_id, 1 - said[pair[::-1]]


def _duel(model: str, other: str, scorer: str, aspect: str, labels: list[tuple[str, float]]) -> Duel | None:
    if not labels:
        return None
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for prompt_id, label in labels:
        by_prompt[prompt_id].append(label)
    label_M = np.array([label for _, label in labels])
    low, high = interval_over_prompts(
        np.array([sum(found) for found in by_prompt.values()]), np.array([len(found) for found in by_prompt.values()])
    )
    return Duel(
        model=model,
        other=other,
        scorer=scorer,
        aspect=aspect,
        meetings=len(labels),
        wins=int((label_M == 1).sum()),
        ties=int((label_M == 0.5).sum()),
        losses=int((label_M == 0).sum()),
        win_rate=float(label_M.mean()),
        low=low,
        high=high,
    )
