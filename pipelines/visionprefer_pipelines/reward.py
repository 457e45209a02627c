"""VP-Score is trained on Ray Train, from the training table of a run. Running again goes on where it stopped."""

from pathlib import Path

from visionprefer.errors import InputError
from visionprefer.models import find_model
from visionprefer.reward.card import write_card
from visionprefer.reward.recipe import RewardRecipe
from visionprefer.reward.steps import epochs_of, groups_of
from visionprefer.run_folder import RunFolder
from visionprefer.store import Store
from visionprefer.training_table import check_weights
from visionprefer_pipelines.cluster import connected
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.reward_worker import Task, learn
from visionprefer_pipelines.row_groups import READERS
from visionprefer_pipelines.training import ANY_WAY, Run, is_to_do, train


def train_reward(
    recipe: RewardRecipe, data: str, out: str | Path, progress: Progress, address: str | None = None
) -> None:
    """Train VP-Score, or go on training it.

    Args:
        recipe: how.
        data: folder of a finished run.
        out: folder, local or s3://, gs://, that gets the model, its card, and `training.json` with how it went;
            checkpoints until it is done.
        progress: told what happens.
        address: of a Ray cluster; None: see `cluster.connected`.

    Returns:
        The folder of the model.

    Raises:
        InputError: if something that was given cannot be used. Checkpoints stay.
    """
    source = RunFolder(Store(data))
    files = source.training_files()
    if not files:
        raise InputError(f"{data}: no prompt has a pair that is not a tie, so there is nothing to learn from")
    check_weights(recipe.weights, source)
    backbone = find_model(recipe.backbone, "transformers", recipe.revision)
    groups = groups_of(source.store, files, recipe)
    epochs = epochs_of(groups["training"], recipe)
    trained_on = {
        "run": source.recipe.name,
        "training_table": Path(files[0]).stem.rpartition("-")[0],
        "backbone": backbone.label,
        "backbone_digest": backbone.digest,
        "recipe": recipe.model_dump(mode="json", exclude=ANY_WAY),
    }
    run = Run("vpscore", Store(out), trained_on, recipe)
    if not is_to_do(run, progress):
        return
    with connected(address, {"workers": recipe.workers, "readers": READERS}):
        task = Task(recipe, backbone, trained_on, source.store, epochs, list(groups["validation"]))
        train(run, learn, task, progress, write_card)
