"""VP-Score is trained on Ray Train, from the training table of a run. Running again goes on where it stopped."""

import json
import shutil
import time
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

import ray
import ray.train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from visionprefer.errors import InputError
from visionprefer.models import find_model
from visionprefer.recipe import Workers
from visionprefer.reward.batches import groups_of
from visionprefer.reward.card import write_card
from visionprefer.reward.recipe import RewardRecipe
from visionprefer.reward.vpscore import CONFIG, VPScore
from visionprefer.run_folder import RunFolder
from visionprefer.schema import content_id
from visionprefer.store import Store
from visionprefer_pipelines.cluster import connected
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.reward_worker import MODEL, Task, learn
from visionprefer_pipelines.units import commit_log

CHECKPOINTS = "checkpoints"
MADE_FROM = "training.json"
DECODERS = Workers(actors=1)  # tasks that decode images beside the workers


def train_reward(recipe: RewardRecipe, data: str, out: Path, progress: Progress, address: str | None = None) -> Path:
    """Train VP-Score, or go on training it.

    Args:
        recipe: how.
        data: folder of a finished run.
        out: folder that gets the model, its card, and `training.json` with how it went; checkpoints until it is done.
        progress: told what happens.
        address: of a Ray cluster; None: see `cluster.connected`.

    Returns:
        The folder of the model.

    Raises:
        InputError: if something that was given cannot be used. Checkpoints stay.
    """
    run = RunFolder(Store(data))
    files = run.training_files()
    if not files:
        raise InputError(f"{data}: no prompt has a pair that is not a tie, so there is nothing to learn from")
    backbone = find_model(recipe.backbone, "transformers", recipe.revision)
    groups = groups_of(run.store, files, recipe)
    workers = recipe.workers
    if len(groups["training"]) < int(str(workers.actors)):
        raise InputError(
            f"workers.actors is {workers.actors}, and there are {len(groups['training'])} groups of training prompts "
            "to share: write fewer workers"
        )
    trained_on = {
        "run": run.recipe.name,
        "training_table": Path(files[0]).stem.rpartition("-")[0],
        "backbone": backbone.label,
        "backbone_digest": backbone.digest,
        "recipe": recipe.model_dump(mode="json", exclude={"workers", "device", "retries"}),
    }
    if not _to_do(out, trained_on, progress):
        return out
    with connected(address, {"workers": workers, "decode": DECODERS}):
        log = commit_log()
        task = Task(recipe, backbone, trained_on, run.store, groups, log)
        result = _followed(_trainer(task, out), log, progress)
    _keep(out, result, trained_on)
    return out


def _to_do(out: Path, trained_on: dict[str, Any], progress: Progress) -> bool:
    """Whether there is something to train. Raises InputError if the folder holds another training."""
    made_from, digest = out / MADE_FROM, content_id(trained_on)
    if made_from.exists():
        if json.loads(made_from.read_text(encoding="utf-8"))["digest"] != digest:
            raise InputError(f"--out {out}: another recipe or table was trained there. Write another --out")
        if (out / CONFIG).exists():
            progress.say(f"{out} is trained already")
            return False
    elif out.exists() and any(out.iterdir()):
        raise InputError(f"--out {out}: the folder holds other things. Write a new folder")
    out.mkdir(parents=True, exist_ok=True)
    made_from.write_text(json.dumps({"digest": digest}), encoding="utf-8")
    return True


def _trainer(task: Task, out: Path) -> TorchTrainer:
    workers = task.recipe.workers
    resources = {"CPU": workers.num_cpus, **workers.resources}
    if workers.num_gpus:
        resources["GPU"] = workers.num_gpus
    return TorchTrainer(
        learn,
        train_loop_config={"task": task},
        scaling_config=ScalingConfig(
            num_workers=int(str(workers.actors)), use_gpu=workers.num_gpus > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="vpscore",
            storage_path=str((out / CHECKPOINTS).resolve()),
            failure_config=FailureConfig(max_failures=task.recipe.retries),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )


def _followed(trainer: TorchTrainer, log: Any, progress: Progress) -> Any:
    """Train, and pass on what the workers say meanwhile."""
    training: Future[Any] = Future()
    # No executor's thread: Python would wait for it, and a person who stops a training would wait for its end.
    Thread(target=_settle, args=(training, trainer), daemon=True).start()
    while not training.done():
        time.sleep(0.5)
        for _, sentence in ray.get(log.take.remote()):
            progress.say(sentence)
    for _, sentence in ray.get(log.take.remote()):
        progress.say(sentence)
    return training.result()


def _settle(training: "Future[Any]", trainer: TorchTrainer) -> None:
    try:
        training.set_result(trainer.fit())
    except BaseException as error:  # noqa: BLE001  raised again by whoever asks for the result
        training.set_exception(error)


def _keep(out: Path, result: Any, trained_on: dict[str, Any]) -> None:
    """Move the model out of the last checkpoint, and write how it was trained beside it."""
    with result.checkpoint.as_directory() as folder:
        for part in (Path(folder) / MODEL).iterdir():
            target = out / part.name
            if part.name != CONFIG:
                (shutil.copytree if part.is_dir() else shutil.copy)(part, target)
        course = {name: result.metrics[name] for name in ("history", "seconds")}
        record = {"digest": content_id(trained_on), **course, "trained_on": trained_on}
        (out / MADE_FROM).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        shutil.copy(Path(folder) / MODEL / CONFIG, out / CONFIG)  # last: where it is, the model is whole
    write_card(out, record, VPScore.from_pretrained(out).digest or "")
    shutil.rmtree(out / CHECKPOINTS)
