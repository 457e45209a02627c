"""What the recipes of all trainings have."""

from typing import Literal, Self

from pydantic import Field, model_validator

from visionprefer.settings import Settings, Workers


class TrainingSettings(Settings):
    """Who trains, and how a step is computed."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Precision of the passes; weights stay in float32. auto: bfloat16 on a GPU, else float32."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where the worker has one.")
    retries: int = Field(3, ge=0, description="How often training goes on from the last checkpoint when a worker dies.")
    logger: Literal["tensorboard", "mlflow"] | None = Field(
        None,
        description="Where losses, rewards and the like go as they are measured. tensorboard: into OUT/tensorboard. "
        "mlflow: to the server that MLFLOW_TRACKING_URI names; without it, into OUT/mlflow.db.",
    )
    workers: Workers = Workers()

    @model_validator(mode="after")
    def _has_so_many_workers(self) -> Self:
        if not isinstance(self.workers.actors, int):
            raise ValueError(f"workers.actors is {list(self.workers.actors)}: write one number")
        return self
