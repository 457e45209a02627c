"""Variants of a reward model, trained one after the other and tested alike."""

from pathlib import Path

from visionprefer.audit import known_preferences_of
from visionprefer.judging.trust import AspectAgreement
from visionprefer.reward import testing
from visionprefer.reward.ablation import AblationFigures, Trained, plot
from visionprefer.reward.recipe import AblationRecipe, RewardRecipe
from visionprefer.reward.steps import serves
from visionprefer.reward.vpscore import VPScore
from visionprefer.run_folder import RunFolder
from visionprefer.scorers.comparison import agreement_of_judge
from visionprefer.store import Store
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.reward import train_reward

FIGURES, PLOT = "ablation.json", "ablation.png"


def ablate(
    settings: AblationRecipe,
    recipes: dict[str, RewardRecipe],
    data: str,
    test: str,
    against: str,
    out: Path,
    progress: Progress,
    address: str | None = None,
) -> AblationFigures:
    """Train what is not trained yet, test all, and write ablation.json and ablation.png.

    Args:
        settings: variants and seeds.
        recipes: of each variant.
        data: folder of a finished run, to train on.
        test: folder of a finished run, on all images of which the models are tested.
        against: what is known of those images, as `audit.known_preferences_of` takes it.
        out: gets a folder for each model, and what was found.
        progress: told what happens.
        address: of a Ray cluster; None: see `cluster.connected`.
    """
    run = RunFolder(Store(test))
    known = known_preferences_of(run, against)
    judge = {} if against == "judge" else _shares(agreement_of_judge(run, known).aspects)
    models = []
    for variant, recipe in recipes.items():
        prompts = _prompts(data, recipe)
        for seed in settings.seeds:
            folder = out / f"{variant}-{seed}"
            progress.say(f"{variant}, seed {seed} → {folder}")
            seeded = recipe.model_copy(update={"seed": seed, "name": f"{recipe.name}-{variant}-{seed}"})
            train_reward(seeded, data, folder, progress, address)
            model = VPScore.from_pretrained(folder)
            found = testing.test(model, testing.score_run(model, run, None), known, str(folder), against)
            models.append(Trained(variant=variant, seed=seed, prompts=prompts, right=_shares(found.aspects)))
    figures = AblationFigures(against=f"{against} on {Path(test).name}", judge=judge, models=models)
    (out / FIGURES).write_text(figures.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (out / PLOT).write_bytes(plot(figures))
    return figures


def _shares(aspects: dict[str, AspectAgreement]) -> dict[str, float]:
    """Of the aspects in which something is known."""
    return {aspect: of.agreement for aspect, of in aspects.items() if of.agreement is not None}


def _prompts(data: str, recipe: RewardRecipe) -> int:
    run = RunFolder(Store(data))
    rows = (
        row for file in run.training_files() for row in run.store.read_table(file, ["prompt_id", "split"]).to_pylist()
    )
    return sum(serves(row, "training", recipe) for row in rows)
