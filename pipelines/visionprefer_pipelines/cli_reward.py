"""`visionprefer reward`: reward models trained, tested, and set beside each other."""

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from visionprefer.recipe_file import load_ablation_recipe, load_reward_recipe
from visionprefer.reward.recipe import AblationRecipe, RewardRecipe
from visionprefer_pipelines.terminal import (
    Address,
    Against,
    OutArgument,
    RecipeArgument,
    Set,
    console_of,
    interrupt,
    path_of,
    training,
)

if TYPE_CHECKING:
    from visionprefer_pipelines.progress import Progress

rewards = typer.Typer(no_args_is_help=True, help="Train reward models, and learn how far they can be trusted.")


@rewards.command("train")
def reward_train(
    recipe: RecipeArgument,
    data: Annotated[str, typer.Option(help="Folder of a finished run, whose training table is learnt from.")],
    out: OutArgument,
    set_: Set = None,
    address: Address = None,
) -> None:
    """Train VP-Score on the preferences of a run."""
    settings = load_reward_recipe(path_of(recipe), set_)

    def train(progress: "Progress") -> None:
        from visionprefer_pipelines.reward import train_reward

        train_reward(settings, data, out, progress, address)

    from visionprefer_pipelines.show_reward import show_reward

    show_reward(out, data, training(settings.name, out, train), console_of())


@rewards.command("test")
def reward_test(
    model: Annotated[str, typer.Argument(metavar="DIR", help="Folder of a trained VP-Score.")],
    data: Annotated[str, typer.Option(help="Folder of a finished run, whose images are scored.")],
    against: Against = "judge",
    split: Annotated[Literal["held_out", "train", "all"], typer.Option(help="Of which prompts.")] = "held_out",
) -> None:
    """Set a reward model's order of images against preferences that are known."""
    from visionprefer_pipelines.show_reward import show_reward_test

    show_reward_test(model, data, against, split, console_of())


@rewards.command("ablate")
def reward_ablate(
    recipe: RecipeArgument,
    data: Annotated[str, typer.Option(help="Folder of a finished run, to train on.")],
    test: Annotated[str, typer.Option(help="Folder of a finished run, on all of whose images the models are tested.")],
    out: Annotated[Path, typer.Option(help="Folder for models, table and plot. Run again to go on.")],
    against: Against = "judge",
    address: Address = None,
) -> None:
    """Train variants of a reward model, and set them beside each other."""
    from visionprefer_pipelines.ablation import ablate
    from visionprefer_pipelines.progress import Progress
    from visionprefer_pipelines.show_reward import show_ablation

    settings = load_ablation_recipe(path_of(recipe))
    variants = variants_of(settings)
    signal.signal(signal.SIGTERM, interrupt)
    console = console_of()
    try:
        with Progress(console) as progress:
            figures = ablate(settings, variants, data, test, against, out, progress, address)
    except KeyboardInterrupt:
        console.print(f"\nStopped. What was trained is kept in {out}. Give the same command to go on")
        raise typer.Exit(130) from None
    show_ablation(out, figures, console)


def variants_of(settings: AblationRecipe) -> dict[str, RewardRecipe]:
    """The recipe of each variant."""
    base = path_of(settings.base)
    return {
        name: load_reward_recipe(base, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
        for name, changes in settings.variants.items()
    }


@rewards.command("compare")
def reward_compare(
    data: Annotated[str, typer.Option(help="Folder of a finished run, whose images are scored.")],
    scorers: Annotated[
        list[str] | None,
        typer.Option(
            "--scorer",
            metavar="[LABEL:]NAME=LOCATION[,BESIDE]",
            help="clip, laion_aesthetic, imagereward, pickscore, hpsv2 or vqa, and where its checkpoint lies. May be "
            "repeated; those that were given before are shown without.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Folder of a trained VP-Score, to stand beside them.")] = None,
    against: Against = "judge",
    split: Annotated[Literal["held_out", "train", "all"], typer.Option(help="Of which prompts.")] = "held_out",
) -> None:
    """Set published scores, and VP-Score beside them, against preferences that are known."""
    from visionprefer_pipelines.show_reward import show_comparison

    show_comparison(data, scorers or [], model, against, split, console_of())
