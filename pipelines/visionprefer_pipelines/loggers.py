"""Where the numbers of a training go if its recipe asks for it: TensorBoard or MLflow, through their own clients."""

import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from visionprefer.buckets import is_in_bucket
from visionprefer.errors import InputError, missing_extra
from visionprefer.schema import content_id

NEEDED = {"tensorboard": ["tensorboard"], "mlflow": ["mlflow", "sqlalchemy", "alembic"]}
URI = "MLFLOW_TRACKING_URI"
_PARAMETERS_AT_ONCE = 100  # as many as MLflow takes


def check(logger: str | None, out: str) -> None:
    """Raise InputError if what a logger needs is not installed, or it cannot write to where a training goes."""
    for package in NEEDED[logger] if logger else ():
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, "loggers")
    if is_in_bucket(out) and (logger == "tensorboard" or (logger == "mlflow" and not os.environ.get(URI))):
        raise InputError(
            f"logger is {logger}, whose files cannot lie in a bucket, and --out is {out}: write a folder, or logger: "
            f"mlflow and the address of a server into {URI}"
        )


def flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    """The values of nested mappings, their names joined by slashes."""
    found: dict[str, Any] = {}
    for name, value in nested.items():
        found |= (
            {f"{name}/{key}": inner for key, inner in flat(value).items()}
            if isinstance(value, Mapping)
            else {name: value}
        )
    return found


class TensorBoard:
    """Event files in OUT/tensorboard."""

    def __init__(self, out: str) -> None:
        self.folder = f"{out}/tensorboard"
        self.writer: Any = None
        self.last, self.told = 0, set[str]()  # the last step, and what of it

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write what was measured after so many steps."""
        from torch.utils.tensorboard import SummaryWriter

        is_again = step < self.last or (step == self.last and not self.told.isdisjoint(numbers))
        if self.writer is None or is_again:  # it begins, or goes on from a checkpoint: what came later is void
            self.close()
            self.writer = SummaryWriter(self.folder, purge_step=step, flush_secs=10)
        self.told = set(numbers) | (self.told if step == self.last and not is_again else set())
        self.last = step
        for name, number in numbers.items():
            self.writer.add_scalar(name, number, step)

    def close(self) -> None:
        """Write what is not written yet."""
        if self.writer is not None:
            self.writer.close()


class MLflow:
    """A run on the server that MLFLOW_TRACKING_URI names or, if it names none, in OUT/mlflow.db.

    Args:
        out: folder of the training.
        trained_on: everything that decides what is learnt; the recipe in it becomes the run's parameters.
        say: told if the server takes nothing any more; training goes on.

    Raises:
        InputError: if no server answers.
    """

    def __init__(self, out: str, trained_on: Mapping[str, Any], say: Callable[[str], None]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves the machine unasked
        from mlflow import MlflowClient, MlflowException

        self.say, self.is_answered = say, True
        self.uri = os.environ.get(URI) or f"sqlite:///{out}/mlflow.db"
        try:
            self.client = MlflowClient(tracking_uri=self.uri)
            self.run = self._begun(out, trained_on)
        except MlflowException as error:
            raise InputError(f"{URI} {self.uri}: {error}. Write the address of a server, or none") from error

    def _begun(self, out: str, trained_on: Mapping[str, Any]) -> str:
        """The run of this training: another one than last time if it is another training or folder."""
        from mlflow.entities import Param

        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "visionprefer")
        known = self.client.get_experiment_by_name(title)
        experiment = known.experiment_id if known else self.client.create_experiment(title)
        tags = {"visionprefer": content_id(out, trained_on)}
        before = self.client.search_runs([experiment], f"tags.visionprefer = '{tags['visionprefer']}'")
        run = before[0] if before else self.client.create_run(experiment, tags=tags, run_name=PurePosixPath(out).name)
        name = str(run.info.run_id)
        self.client.update_run(name, status="RUNNING")
        told = [Param(key, str(value)) for key, value in flat(trained_on["recipe"]).items()]
        for start in range(0, len(told), _PARAMETERS_AT_ONCE):
            self.client.log_batch(name, params=told[start : start + _PARAMETERS_AT_ONCE])
        return name

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send what was measured after so many steps."""
        from mlflow import MlflowException
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        if not self.is_answered:
            return
        try:
            self.client.log_batch(self.run, [Metric(name, number, now, step) for name, number in numbers.items()])
        except MlflowException as error:
            self.is_answered = False
            self.say(f"MLflow at {self.uri} takes nothing any more, and is told nothing any more: {error}")

    def close(self) -> None:
        """Say that the training has ended."""
        if self.is_answered:
            self.client.set_terminated(self.run)
