"""What the drivers of all trainings do alike: a folder that goes on where it stopped, Ray Train, what workers say."""

import functools
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any, NamedTuple

import ray
import ray.train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from visionprefer.errors import InputError
from visionprefer.schema import content_id
from visionprefer.settings import Workers
from visionprefer.store import Store
from visionprefer.training_settings import TrainingSettings
from visionprefer_pipelines import loggers
from visionprefer_pipelines.demand import fewest, wanted
from visionprefer_pipelines.machines import Waits
from visionprefer_pipelines.measures import training_numbers
from visionprefer_pipelines.out_folder import alone
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.training_worker import MODEL
from visionprefer_pipelines.units import commit_log

CHECKPOINTS = "checkpoints"
# Fields of recipes that change nothing that is learnt: a training may go on with others.
ANY_WAY = {
    "workers",
    "rollout_workers",
    "device",
    "retries",
    "retry_for",
    "accumulation",
    "gradient_checkpointing",
    "logger",
    "watch",
}
MADE_FROM = "training.json"


class Run(NamedTuple):
    """One training.

    Attributes:
        name: of what is trained.
        store: the folder that gets it.
        trained_on: everything that decides what is learnt, for `training.json`.
        settings: the recipe.
        others: who works beside them, by the recipe's field.
    """

    name: str
    store: Store
    trained_on: dict[str, Any]
    settings: TrainingSettings
    others: dict[str, Workers] = {}  # noqa: RUF012  a tuple's default, which nobody changes


def is_trained(out: str | Path) -> bool:
    """Whether the folder holds what was trained, and not just the beginning of it."""
    store = Store(out)
    return store.exists(MADE_FROM) and "trained_on" in json.loads(store.read(MADE_FROM))


def is_to_do(run: Run, progress: Progress) -> bool:
    """Whether there is something to train.

    Raises:
        InputError: if the folder holds another training, or the recipe's logger cannot be used.
    """
    store, digest = run.store, content_id(run.trained_on)
    loggers.check(run.settings.logger, store.root)
    if store.exists(MADE_FROM):
        record = json.loads(store.read(MADE_FROM))
        if record["digest"] != digest:
            raise InputError(f"--out {store.root}: another recipe or table was trained there. Write another --out")
        if "trained_on" in record:
            progress.say(f"{store.root} is trained already")
            return False
    elif store.names(""):
        raise InputError(f"--out {store.root}: the folder holds other things. Write a new folder")
    store.write(MADE_FROM, json.dumps({"digest": digest}).encode())
    return True


def train(
    run: Run,
    learn: Callable[[dict[str, Any]], None],
    task: Any,
    progress: Progress,
    write_card: Callable[[Path, dict[str, Any], str], None],
) -> None:
    """Train, or go on training; then put what was trained into the run's folder, with its card and `training.json`.

    Args:
        run: what, and where.
        learn: what each worker does, given {"task": task, "log": a CommitLog}. The last checkpoint of its Course holds
            what was trained.
        task: for the workers.
        progress: told what the workers say.
        write_card: given the folder, the record, and the name that the folder will have.

    Raises:
        InputError: if the same training goes on in the same folder already.
    """
    log, store = commit_log(), run.store
    with alone(store, f"{CHECKPOINTS}/.lock"):
        result = _followed(_trainer(run, learn, {"task": task, "log": log}), log, run, progress)
        course = {name: result.metrics[name] for name in ("history", "seconds")}
        record = {"digest": content_id(run.trained_on), **course, "trained_on": run.trained_on}
        with result.checkpoint.as_directory() as folder:
            write_card(Path(folder) / MODEL, record, PurePosixPath(store.root).name)
            store.add_folder(Path(folder) / MODEL)
        # Last: where it says what it was trained on, everything is there.
        store.write(MADE_FROM, (json.dumps(record, indent=2) + "\n").encode())
        store.delete_folder(CHECKPOINTS)


def _trainer(run: Run, learn: Callable[[dict[str, Any]], None], config: dict[str, Any]) -> TorchTrainer:
    workers = run.settings.workers
    # Workers that keep a checkpoint wait until Ray's controller looks; by its own setting, every two seconds.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    return TorchTrainer(
        # No train_loop_config: Ray's controller would import what it is made of, transformers and all.
        functools.partial(learn, config),
        scaling_config=ScalingConfig(
            num_workers=fewest(workers), use_gpu=workers.num_gpus > 0, resources_per_worker=wanted(workers)
        ),
        run_config=RunConfig(
            name=run.name,
            storage_path=f"{run.store.root}/{CHECKPOINTS}",
            failure_config=FailureConfig(max_failures=run.settings.retries),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )


def _followed(trainer: TorchTrainer, log: Any, run: Run, progress: Progress) -> Any:
    """Train, and pass on what the workers say, show and measure meanwhile, and what they wait for."""
    numbers = _Numbers(run, progress)
    training: Future[Any] = Future()
    # No executor's thread: Python would wait for it, and a person who stops a training would wait for its end.
    Thread(target=_settle, args=(training, trainer), daemon=True).start()
    waits, told = Waits({"workers": run.settings.workers, **run.others}), ""
    try:
        while not training.done():
            time.sleep(0.5)
            _pass_on(log, run.store, numbers, progress)
            if (now := waits.now()) and now != told:
                progress.say(now)
            told = now
        _pass_on(log, run.store, numbers, progress)
    finally:
        numbers.close()
    return training.result()


def _pass_on(log: Any, store: Store, numbers: "_Numbers", progress: Progress) -> None:
    for kind, entry in ray.get(log.take.remote()):
        if kind == "file":
            store.write(*entry)
        elif kind == "numbers":
            numbers.log(*entry)
        else:
            progress.say(entry)


class _Numbers:
    """What a training measures goes to Prometheus, and to a logger if the recipe names one."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self.name, self.gauge = run.name, training_numbers()
        self.logger: loggers.TensorBoard | loggers.MLflow | None = None
        if run.settings.logger == "tensorboard":
            self.logger = loggers.TensorBoard(run.store.root)
        elif run.settings.logger == "mlflow":
            self.logger = loggers.MLflow(run.store.root, run.trained_on, progress.say)

    def log(self, step: int, numbers: dict[str, float]) -> None:
        for name, number in numbers.items():
            self.gauge.set(number, {"training": self.name, "number": name})
        if self.logger:
            self.logger.log(step, numbers)

    def close(self) -> None:
        if self.logger:
            self.logger.close()


def _settle(training: "Future[Any]", trainer: TorchTrainer) -> None:
    try:
        training.set_result(trainer.fit())
    except BaseException as error:  # noqa: BLE001  raised again by whoever asks for the result
        training.set_exception(error)
