"""What an endpoint serves, and how much it takes."""

from typing import Self

from pydantic import Field, model_validator

from visionprefer.settings import Settings, Workers


class ServedModel(Settings):
    """One VP-Score, and the replicas that hold it."""

    path: str = Field(description="Folder of a trained VP-Score, local or s3://, gs://.")
    workers: Workers = Field(Workers(), description="Replicas; [fewest, most] lets Ray Serve scale between the two.")
    max_batch_size: int = Field(32, ge=1, description="Images of one forward pass.")
    batch_wait_ms: float = Field(2.0, ge=0, description="How long the first image of a batch waits for others.")
    max_queued_requests: int = Field(128, ge=1, description="Batches that may wait; more are refused with 429.")


class EndpointSettings(Settings):
    """An endpoint: its models by name, the first of which answers where none is named, and its limits."""

    models: dict[str, ServedModel] = Field(min_length=1)
    tokens: str | None = Field(None, description="File of bearer tokens, one a line; else VISIONPREFER_TOKENS.")
    max_body_bytes: int = Field(64 * 2**20, ge=1, description="Of a request.")
    max_items: int = Field(256, ge=1, description="Of a request.")
    max_pixels: int = Field(4096 * 4096, ge=1, description="Of an image.")
    max_prompt_length: int = Field(4000, ge=1, description="Characters of a prompt.")
    timeout_s: float = Field(60.0, gt=0, description="For a body to arrive, and then for its scores.")

    @model_validator(mode="after")
    def _a_whole_request_may_wait(self) -> Self:
        for name, model in self.models.items():
            if self.max_items > (most := model.max_batch_size * model.max_queued_requests):
                raise ValueError(f"max_items is {self.max_items}, and model {name} queues {most}: write that or less")
        return self

    @model_validator(mode="after")
    def _names_fit_into_an_address(self) -> Self:
        for name in self.models:
            if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or not name.isascii():
                raise ValueError(f"the model's name is {name!r}: write letters, digits, '.', '_' and '-'")
        return self
