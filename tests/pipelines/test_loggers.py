"""Numbers of trainings, read back by the loggers' own readers."""

import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from visionprefer.errors import InputError
from visionprefer_pipelines import loggers

TRAINED_ON = {"method": "dpo", "recipe": {"lora_rank": 4, "prompts": {"path": "prompts.txt", "held_out": 0.5}}}


def test_nested_numbers_have_flat_names() -> None:
    assert loggers.flat({"a": 1, "b": {"c": 2.0, "d": {"e": None}}, "f": {}}) == {"a": 1, "b/c": 2.0, "b/d/e": None}


def test_tensorboard_forgets_what_came_after_the_checkpoint_that_training_goes_on_from(tmp_path: Path) -> None:
    """Once within a process, as when a worker died, and once in another one."""
    first = loggers.TensorBoard(str(tmp_path))
    for step in (1, 2, 3):
        first.log(step, {"loss": float(step)})
    first.log(3, {"validation": 3.0})  # of the same step, and nothing is void
    for step in (3, 4, 5):
        first.log(step, {"loss": 10.0 * step})
    first.log(4, {"loss": 400.0, "right": 0.5})
    first.close()
    second = loggers.TensorBoard(str(tmp_path))
    second.log(4, {"loss": 444.0})
    second.close()
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(1, 1), (2, 2), (3, 30), (4, 444)]
    assert read.Scalars("validation") == read.Scalars("right") == []


def test_mlflow_gets_a_run_with_the_recipe_and_the_same_one_when_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    said: list[str] = []
    for step in (1, 2):
        logger = loggers.MLflow(str(tmp_path), TRAINED_ON, said.append)
        logger.log(step, {"loss": 1 / step, "right/overall": 0.25})
        logger.close()
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("visionprefer")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == (tmp_path.name, "FINISHED")
    assert run.data.params == {"lora_rank": "4", "prompts/path": "prompts.txt", "prompts/held_out": "0.5"}
    told = client.get_metric_history(run.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in told] == [(1, 1.0), (2, 0.5)]
    assert run.data.metrics["right/overall"] == 0.25
    assert said == []


def test_a_training_goes_on_when_mlflow_takes_nothing_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    said: list[str] = []
    logger = loggers.MLflow(str(tmp_path), TRAINED_ON, said.append)
    logger.client.delete_run(logger.run)  # what is deleted takes no numbers
    logger.log(1, {"loss": 1.0})
    logger.log(2, {"loss": 1.0})
    logger.close()
    [sentence] = said
    assert "takes nothing any more" in sentence


def test_an_address_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://somewhere")
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI nonsense://somewhere: "):
        loggers.MLflow(str(tmp_path), TRAINED_ON, print)


@pytest.mark.parametrize(("logger", "package"), [("tensorboard", "tensorboard"), ("mlflow", "sqlalchemy")])
def test_what_is_not_installed_is_told_with_the_command(
    logger: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loggers.check(None, "/runs")
    loggers.check(logger, "/runs")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package} is not installed. Write: pip install 'visionprefer\[loggers\]'"):
        loggers.check(logger, "/runs")


def test_files_of_a_logger_cannot_lie_in_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for logger in ("tensorboard", "mlflow"):
        with pytest.raises(InputError, match=f"logger is {logger}.*s3://bucket/dpo: write a folder, or logger: mlflow"):
            loggers.check(logger, "s3://bucket/dpo")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    loggers.check("mlflow", "s3://bucket/dpo")
