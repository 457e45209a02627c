"""A replica of one VP-Score: takes items of many requests, and scores them together.

Who only serves the model needs no torch: it is imported by who holds it.
"""

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from ray import serve
from ray.serve.metrics import Histogram

from visionprefer.errors import InputError
from visionprefer.imagebytes import open_image
from visionprefer.reward.squares import squares
from visionprefer_serve.metrics import SECONDS
from visionprefer_serve.settings import ServedModel
from visionprefer_serve.wire import FAILED, UNREADABLE, Answer, Item

if TYPE_CHECKING:
    from visionprefer.reward.vpscore import Scored


@serve.deployment
class Scorer:
    """Holds the model, decodes images and scores them.

    Args:
        name: by which the model is asked for.
        settings: of a ServedModel.
        max_pixels: of an image; larger ones are not decoded.
    """

    def __init__(self, name: str, settings: dict[str, Any], max_pixels: int) -> None:
        from visionprefer.reward.vpscore import VPScore

        chosen = ServedModel.model_validate(settings)
        self._model = VPScore.from_pretrained(chosen.path, "cuda" if chosen.workers.num_gpus else "cpu")
        self._name, self._most, self._size = name, max_pixels, self._model.config.inputs.image_size
        self._in_the_model = asyncio.Lock()
        self._queue = cast(Any, self._batch)
        self._queue.set_max_batch_size(chosen.max_batch_size)
        self._wait = chosen.batch_wait_ms / 1000
        self._queue.set_batch_wait_timeout_s(self._wait)
        self._under_way, self._forward_s = 0, 0.0  # batches; seconds of the last forward pass
        self._seconds = Histogram("visionprefer_forward_seconds", "Of a forward pass.", SECONDS, ("model",))
        self._seconds.set_default_tags({"model": name})

    async def score(self, items: list[Item]) -> list[Answer]:
        """An answer for each item; at most so many items as a batch holds."""
        return await self._batch(items)

    def about(self) -> dict[str, Any]:
        """What /v1/models says of the model."""
        config = self._model.config
        known = {"scores": list(config.scores), "image_size": self._size, "trained_on": config.trained_on}
        return {"name": self._name, "digest": self._model.digest, **known}

    async def check_health(self) -> None:
        """Run the model; Ray replaces a replica of which this raises."""
        [scored] = await self._score(["a picture"], np.zeros((1, 3, self._size, self._size), np.uint8))
        if not math.isfinite(scored.score):
            raise RuntimeError(f"the model's score of a black picture is {scored.score}")

    @serve.batch(max_concurrent_batches=2, batch_size_fn=lambda requests: sum(map(len, requests)))
    async def _batch(self, requests: list[list[Item]]) -> list[list[Answer]]:
        """While one batch is in the model, the images of the next are decoded.

        Ray closes a batch when its first item has waited long enough, whether or not the model is free: while it is
        not, the wait is as long as a forward pass, or all that arrives meanwhile would be batches of one.
        """
        self._under_way += 1
        self._queue.set_batch_wait_timeout_s(max(self._wait, self._forward_s))
        try:
            answers = iter(await self._answers([item for request in requests for item in request]))
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._queue.set_batch_wait_timeout_s(self._wait)
        return [[next(answers) for _ in request] for request in requests]

    async def _answers(self, items: list[Item]) -> list[Answer]:
        found = await asyncio.to_thread(lambda: [self._square(item) for item in items])
        sound = {place: square for place, square in enumerate(found) if isinstance(square, np.ndarray)}
        prompts = [items[place].prompt for place in sound]
        given = iter(await self._given(prompts, np.concatenate(list(sound.values()))) if sound else [])
        return [
            self._refused(UNREADABLE, str(square)) if isinstance(square, InputError) else next(given)
            for square in found
        ]

    async def _given(self, prompts: list[str], squares_NCHW: np.ndarray) -> list[Answer]:
        try:
            return [self._answer(found) for found in await self._score(prompts, squares_NCHW)]
        except Exception as error:  # noqa: BLE001  such as a GPU without memory
            return [self._refused(FAILED, f"the model failed: {type(error).__name__}")] * len(prompts)

    def _square(self, item: Item) -> np.ndarray | InputError:
        """One image at a time: decoded, it may take a thousand times its bytes."""
        try:
            return squares([open_image(item.image or b"", self._most)], self._size)
        except InputError as error:
            return error
        except Exception as error:  # noqa: BLE001  whatever a strange image does, the others of the batch are scored
            return InputError(f"the image cannot be used: {type(error).__name__}")

    async def _score(self, prompts: list[str], squares_NCHW: np.ndarray) -> "list[Scored]":
        async with self._in_the_model:
            started = time.perf_counter()
            scored = await asyncio.to_thread(self._model.score_squares, prompts, squares_NCHW)
            self._forward_s = time.perf_counter() - started
            self._seconds.observe(self._forward_s)
        return scored

    def _answer(self, found: "Scored") -> Answer:
        if not all(map(math.isfinite, (found.score, found.uncertainty, *found.aspects.values()))):
            return self._refused(FAILED, f"the model's score is {found.score}")
        named = {"model": self._name, "digest": str(self._model.digest)}
        return Answer(score=found.score, aspects=found.aspects, uncertainty=found.uncertainty, **named)

    def _refused(self, status: int, error: str) -> Answer:
        return Answer(model=self._name, digest=str(self._model.digest), status=status, error=error)
