"""`visionprefer dpo`, `finetune`, `ppo` and `evaluate`: image models taught, and set against each other."""

from typing import TYPE_CHECKING, Annotated

import typer

from visionprefer.recipe_file import load_dpo_recipe, load_finetune_recipe, load_ppo_recipe
from visionprefer_pipelines.terminal import (
    Address,
    OutArgument,
    RecipeArgument,
    RunArgument,
    Set,
    console_of,
    path_of,
    training,
)

if TYPE_CHECKING:
    from visionprefer_pipelines.progress import Progress


def dpo(
    recipe: RecipeArgument,
    data: Annotated[str, typer.Option(help="Folder of a finished run, whose training table is learnt from.")],
    out: OutArgument,
    set_: Set = None,
    address: Address = None,
) -> None:
    """Train an image model on the preferences of a run, by Diffusion-DPO."""
    settings = load_dpo_recipe(path_of(recipe), set_)

    def train(progress: "Progress") -> None:
        from visionprefer_pipelines.dpo import train_dpo

        train_dpo(settings, data, out, progress, address)

    from visionprefer_pipelines.show_aligned import show_aligned

    show_aligned(out, training(settings.name, out, train), console_of())


def finetune(
    recipe: RecipeArgument,
    data: Annotated[str, typer.Option(help="Folder of a finished run, whose best images are learnt from.")],
    out: OutArgument,
    set_: Set = None,
    address: Address = None,
) -> None:
    """Train an image model on the best images of a run, where they are good enough: a round of DreamSync."""
    settings = load_finetune_recipe(path_of(recipe), set_)

    def train(progress: "Progress") -> None:
        from visionprefer_pipelines.finetune import train_finetune

        train_finetune(settings, data, out, progress, address)

    from visionprefer_pipelines.show_aligned import show_aligned

    show_aligned(out, training(settings.name, out, train), console_of())


def ppo(
    recipe: RecipeArgument,
    out: OutArgument,
    endpoint: Annotated[
        str, typer.Option(help="URL of a reward endpoint, as `visionprefer serve` starts it.")
    ] = "http://127.0.0.1:8000",
    set_: Set = None,
    address: Address = None,
) -> None:
    """Train an image model on its own images and what a reward endpoint says of them, by PPO."""
    settings = load_ppo_recipe(path_of(recipe), set_)

    def train(progress: "Progress") -> None:
        from visionprefer_pipelines.ppo import train_ppo

        train_ppo(settings, endpoint.rstrip("/"), out, progress, address)

    from visionprefer_pipelines.show_aligned import show_aligned

    show_aligned(out, training(settings.name, out, train), console_of())


def evaluate(
    run_dir: RunArgument,
    reward: Annotated[
        list[str] | None, typer.Option(help="Folder of a trained VP-Score that scores the images. May be repeated.")
    ] = None,
) -> None:
    """Set the image models of a run against each other; writes DIR/evaluation.html and DIR/evaluation.json.

    The run's recipe has every_model: true, so that all models draw each prompt from the same noise.
    """
    from visionprefer_pipelines.show_evaluation import show_evaluation

    show_evaluation(run_dir, reward or [], console_of())
