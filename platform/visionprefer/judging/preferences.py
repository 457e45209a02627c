"""Scores become preferences: a pure function of tables, rebuilt whole whenever wanted.

Shapes: N images, P pairs.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionprefer.judging.opinions import contradicted
from visionprefer.judging.scores import DECIMALS, Scores, scores
from visionprefer.recipe import PreferenceSettings
from visionprefer.schema import PREFERENCES


def preferences(judgements: pa.Table, plan: pa.Table, settings: PreferenceSettings) -> pa.Table:
    """Compare the images of each prompt, by every scorer and overall.

    Image 0 of a pair is the one of the lower candidate number. With `best_worst` each aspect has one pair a prompt, the
    highest score against the lowest, equal scores taken by the lower candidate number; if all are equal, the pair is
    the first two images, and a tie. Images without a score stand in no pair. A pair of which a judge says now this and
    now the opposite is a tie, whatever its margin; see `opinions`.

    Columns in: of JUDGEMENTS those of `scores`, and repeat and rank where images were shown together; of PLAN image_id,
    prompt_id, prompt, split and candidate.
    Columns out: PREFERENCES, sorted by prompt_id, aspect (the rubric's, other scorers by name, "overall") and
    candidates.

    References: all pairs are VisionPrefer (arXiv 2404.15100, section 3); `best_worst` is AGFSync (arXiv 2403.13352)
    Eq. 6 and 7, which leave a prompt of equal scores without a pair: here that is its tie.

    Raises:
        InputError: as `scores` does.
    """
    plan = plan.select(["image_id", "prompt_id", "prompt", "split", "candidate"])
    scored = scores(judgements, plan, settings.weights)
    if not scored.aspects:
        return PREFERENCES.empty_table()
    pairs = _compared(scored, settings)
    return labelled(pairs, np.where(contradicted(judgements, plan, pairs, settings), 0.5, pairs["label"].to_numpy()))


def in_order(pairs: pa.Table, prompt_ids: pa.ChunkedArray) -> pa.Table:
    """PREFERENCES with the prompts in another order, in which each of them is."""
    return pairs.take(np.argsort(pc.index_in(pairs["prompt_id"], prompt_ids).to_numpy(), kind="stable"))


def labelled(pairs: pa.Table, label_P: np.ndarray) -> pa.Table:
    """PREFERENCES with other labels."""
    place = pairs.column_names.index("label")
    return pairs.set_column(place, pairs.schema.field("label"), pa.array(label_P, pa.float64()))


def _compared(scored: Scores, settings: PreferenceSettings) -> pa.Table:
    prompt_N = scored.images["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    pairs = {"all": _all_pairs, "best_worst": _best_worst}[settings.pairs]
    by_aspect = [pairs(prompt_N, score_N) for score_N in scored.values_NA.T]
    aspect_P = np.repeat(np.arange(len(by_aspect)), [len(image_0) for image_0, _ in by_aspect])
    image_0_P, image_1_P = (np.concatenate(images) for images in zip(*by_aspect, strict=True))
    order = np.lexsort((image_1_P, image_0_P, aspect_P, prompt_N[image_0_P]))
    aspect_P, image_0_P, image_1_P = aspect_P[order], image_0_P[order], image_1_P[order]

    score_0_P, score_1_P = scored.values_NA[image_0_P, aspect_P], scored.values_NA[image_1_P, aspect_P]
    margin_P = np.abs(score_0_P - score_1_P).round(DECIMALS)
    is_tie_P = margin_P <= round(settings.tie_margin, DECIMALS)
    columns = {name: scored.images[name].take(image_0_P) for name in ("prompt_id", "prompt", "split")}
    columns["image_id_0"] = scored.images["image_id"].take(image_0_P)
    columns["image_id_1"] = scored.images["image_id"].take(image_1_P)
    columns["aspect"] = pa.array(scored.aspects).take(pa.array(aspect_P))
    columns |= {"score_0": score_0_P, "score_1": score_1_P, "margin": margin_P}
    columns["label"] = np.where(is_tie_P, 0.5, score_0_P > score_1_P)
    return pa.table(columns, schema=PREFERENCES)


def _all_pairs(prompt_N: np.ndarray, score_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each image that has a score, with each later one of its prompt."""
    scored = np.flatnonzero(~np.isnan(score_N))
    prompt = prompt_N[scored]
    later = np.searchsorted(prompt, prompt, side="right") - np.arange(len(scored)) - 1
    first = np.repeat(np.arange(len(scored)), later)
    nth = np.arange(len(first)) - np.repeat(np.cumsum(later) - later, later)
    return scored[first], scored[first + 1 + nth]


def _best_worst(prompt_N: np.ndarray, score_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best image of each prompt with the worst of the others."""
    scored = np.flatnonzero(~np.isnan(score_N))
    best = _firsts(scored, prompt_N, -score_N)
    worst = _firsts(np.setdiff1d(scored, best), prompt_N, score_N)
    best = best[np.isin(prompt_N[best], prompt_N[worst])]  # a prompt with one image has no others
    return np.minimum(best, worst), np.maximum(best, worst)


def _firsts(images: np.ndarray, prompt_N: np.ndarray, key_N: np.ndarray) -> np.ndarray:
    """Of each prompt the image whose key is lowest, the first of several."""
    ordered = images[np.lexsort((images, key_N[images], prompt_N[images]))]
    return ordered[_begins(prompt_N[ordered])]


def _begins(group_N: np.ndarray) -> np.ndarray:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.diff(group_N, prepend=-1))
