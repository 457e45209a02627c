"""A reward model tested on the images of a run, against preferences that are known.

Shapes: N images, S scores.
"""

import io
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from pydantic import BaseModel, ConfigDict

from visionprefer.errors import InputError
from visionprefer.intervals import interval_of_pairs
from visionprefer.judging import trust
from visionprefer.judging.scores import Scores
from visionprefer.judging.trust import AspectAgreement
from visionprefer.reward.accuracy import (
    Comparison,
    hpd_accuracy,
    imagereward_accuracy,
    pickapic_accuracy,
    pickapic_threshold,
)
from visionprefer.reward.vpscore import Scored, VPScore
from visionprefer.run_folder import RunFolder
from visionprefer.statistics.tables import Table, interval, share

AT_ONCE = 256  # images decoded together


class Half(BaseModel):
    """The pairs of which the model is more certain, or those of which it is less."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int
    right: float | None  # None: of no pair
    low: float | None  # of the 95 % interval, prompts taken for independent
    high: float | None


class RewardFigures(BaseModel):
    """How a reward model orders pairs of images of one prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    against: str
    images: int
    aspects: dict[str, AspectAgreement]
    protocols: dict[str, float | None]  # accuracy of the first score, by the protocol's name; None: of no pair
    certain: Half
    uncertain: Half


class ScoredImages(NamedTuple):
    """What a model says of the images of a run."""

    scores: Scores
    said: dict[str, Scored]  # by image id


def score_run(model: VPScore, run: RunFolder, split: str | None) -> ScoredImages:
    """Score the images of a run for their own prompts.

    Args:
        model: that scores.
        run: with images.
        split: whose prompts: "train", "held_out"; None: all.

    Raises:
        InputError: if the run has no image of this split.
    """
    columns = ["image_id", "prompt_id", "prompt", "split", "candidate"]
    images = run.images.table(columns)
    images = images if split is None else images.filter(pc.field("split") == split)
    if not images.num_rows:
        raise InputError(f"{run.store.root}: no image of split {split}. Write --split all")
    said: dict[str, Scored] = {}
    for shard in run.images.tables(["image_id", "prompt", "split", "image"]):
        rows = shard if split is None else shard.filter(pc.field("split") == split)
        for start in range(0, rows.num_rows, AT_ONCE):
            part = rows.slice(start, AT_ONCE).to_pylist()
            pictures = [Image.open(io.BytesIO(row["image"]["bytes"])) for row in part]
            found = model.score([row["prompt"] for row in part], pictures)
            said |= {row["image_id"]: one for row, one in zip(part, found, strict=True)}
    images = images.sort_by([("prompt_id", "ascending"), ("candidate", "ascending")]).combine_chunks()
    rows = [said[image_id] for image_id in images["image_id"].to_pylist()]
    values_NS = np.array([[one.score, *one.aspects.values()] for one in rows])
    return ScoredImages(Scores(images, list(model.config.scores), values_NS), said)


def test(model: VPScore, found: ScoredImages, known: pa.Table, name: str, against: str) -> RewardFigures:
    """Set what a model says against preferences that are known.

    Args:
        model: that scored.
        found: what it said.
        known: of PREFERENCES prompt_id, image_id_0, image_id_1, aspect and label, of these images.
        name: of the model.
        against: what `known` is, in words.

    Raises:
        InputError: if no pair is about two of these images.
    """
    pairs = trust.compare(found.scores, known)
    if not pairs.num_rows:
        raise InputError(f"{against}: no pair is about two images that were scored, in an aspect that has a score")
    first = model.config.scores[0]
    comparisons = _comparisons(found, known.filter(pc.field("aspect") == first))
    return RewardFigures(
        model=name,
        against=against,
        images=len(found.said),
        aspects=trust.agreements(pairs, [name for name in model.config.scores if name in pairs["aspect"].to_pylist()]),
        protocols=_protocols(comparisons),
        **_halves(model, found, pairs.filter(pc.field("aspect") == first)),
    )


def tables(figures: RewardFigures) -> list[Table]:
    """The figures for people to read."""
    agreement = [
        [aspect, f"{of.pairs:,}", share(of.agreement), interval(of.low, of.high)]
        for aspect, of in figures.aspects.items()
    ]
    halves = [
        [name, f"{half.pairs:,}", share(half.right), interval(half.low, half.high)]
        for name, half in (("more certain", figures.certain), ("less certain", figures.uncertain))
    ]
    protocols = [[name, share(value)] for name, value in figures.protocols.items()]
    return [
        Table("Agreement", ["score", "pairs", "agreement", "95 % interval"], agreement),
        Table("By the certainty of the first score", ["half", "pairs", "agreement", "95 % interval"], halves),
        Table("Accuracy of the first score", ["protocol", "accuracy"], protocols),
    ]


def _comparisons(found: ScoredImages, known: pa.Table) -> dict[str, list[Comparison]]:
    """Pairs by prompt, ties among them."""
    prompts: dict[str, list[Comparison]] = defaultdict(list)
    for row in known.select(trust.COLUMNS).to_pylist():
        if row["image_id_0"] in found.said and row["image_id_1"] in found.said:
            score_0, score_1 = (found.said[row[name]].score for name in ("image_id_0", "image_id_1"))
            prompts[row["prompt_id"]].append(Comparison(row["label"], score_0, score_1))
    return prompts


def _protocols(prompts: dict[str, list[Comparison]]) -> dict[str, float | None]:
    """Pick-a-Pic's threshold is chosen on the first half of the prompts, by id, and used on the other."""
    every = [one for prompt in prompts.values() for one in prompt]
    found = {"ImageReward": imagereward_accuracy(every), "HPD v2": hpd_accuracy(prompts.values())}
    order = sorted(prompts)
    validation, rest = (
        [one for prompt in half for one in prompts[prompt]]
        for half in (order[: len(order) // 2], order[len(order) // 2 :])
    )
    if validation:
        threshold = pickapic_threshold(validation)
        found[f"Pick-a-Pic (threshold {threshold:g})"] = pickapic_accuracy(rest, threshold)
    return found


def _halves(model: VPScore, found: ScoredImages, pairs: pa.Table) -> dict[str, Half]:
    certainty, right = [], []
    for row in pairs.to_pylist():
        chance = model.preference(found.said[row["image_id_0"]], found.said[row["image_id_1"]])
        certainty.append(abs(chance - 0.5))
        right.append((row["said"] * row["better"] + 1) / 2)
    order = np.argsort(certainty, kind="stable")
    wins = np.array(right)[order]
    prompt = pairs["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy()[order]
    middle = len(wins) // 2
    return {
        "uncertain": _half(wins[:middle], prompt[:middle]),
        "certain": _half(wins[middle:], prompt[middle:]),
    }


def _half(wins_P: np.ndarray, prompt_P: np.ndarray) -> Half:
    if not len(wins_P):
        return Half(pairs=0, right=None, low=None, high=None)
    low, high = interval_of_pairs(wins_P, prompt_P)
    return Half(pairs=len(wins_P), right=wins_P.mean(), low=low, high=high)
