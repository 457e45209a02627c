"""What settings of all kinds are made of."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """Settings of one stage: immutable, and without room for keys that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Range(Settings):
    """Evenly spaced values, drawn with equal chance."""

    low: float = Field(description="Smallest value.")
    high: float = Field(description="Largest value; drawn too.")
    step: float = Field(gt=0, description="Distance between neighbours. Images of equal value share batches.")

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.high < self.low:
            raise ValueError(f"high is {self.high}, which is below low, {self.low}: write low ≤ high")
        return self

    def values(self) -> list[float]:
        """low, low + step, … up to high."""
        return [round(self.low + i * self.step, 9) for i in range(int((self.high - self.low) / self.step + 1e-9) + 1)]


class Workers(Settings):
    """The actors of one stage, and what each of them reserves on the cluster."""

    actors: Annotated[int, Field(ge=1)] | tuple[int, int] = Field(
        1, description="Number of actors, or [fewest, most] to let Ray scale between the two."
    )
    num_cpus: float = Field(1, gt=0, description="CPU cores that each actor reserves.")
    num_gpus: float = Field(0, ge=0, description="GPUs that each actor reserves; 0.5 puts two actors on one GPU.")
    resources: dict[str, float] = Field({}, description="Custom resources of the cluster that each actor reserves.")

    @model_validator(mode="after")
    def _scales_upwards(self) -> Self:
        if isinstance(self.actors, tuple) and not 1 <= self.actors[0] <= self.actors[1]:
            raise ValueError(f"actors is {list(self.actors)}: write [fewest, most] with 1 ≤ fewest ≤ most")
        return self
