"""Which images an image model is fine-tuned on: the best of each prompt, if it is good enough."""

import math

from visionprefer.align.recipe import FinetuneRecipe
from visionprefer.errors import InputError
from visionprefer.judging.scores import SCORED, scores
from visionprefer.run_folder import RunFolder


def best_images(run: RunFolder, recipe: FinetuneRecipe) -> list[str]:
    """Ids of the best image of each training prompt, of those with all scores that the recipe asks for; the first of
    several that are as good.

    DreamSync (arXiv 2311.17946, section 3) keeps an image if both of its scorers give more than a threshold.

    Raises:
        InputError: if the run has no scores by a name that the recipe gives, or is not finished.
    """
    plan = run.images.table(["image_id", "prompt_id", "candidate", "split"])
    found = scores(run.judgements(SCORED), plan, run.recipe.preferences.weights)
    for field, names in (("aspect", [recipe.aspect]), ("min_scores", recipe.min_scores)):
        for name in names:
            if name not in found.aspects:
                known = ", ".join(found.aspects) or "none"
                raise InputError(f"{field}: the run has no scores by {name!r}. Write some of: {known}")
    best: dict[str, tuple[float, str]] = {}
    for image, values in zip(found.images.to_pylist(), found.values_NA.tolist(), strict=True):
        score_of = dict(zip(found.aspects, values, strict=True))
        value = score_of[recipe.aspect]
        enough = all(score_of[name] >= least for name, least in recipe.min_scores.items())
        if image["split"] != "train" or not enough or math.isnan(value):
            continue
        if image["prompt_id"] not in best or value > best[image["prompt_id"]][0]:
            best[image["prompt_id"]] = (value, image["image_id"])
    return [image_id for _, image_id in best.values()]
