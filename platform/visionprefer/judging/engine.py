"""What runs a model, and what it is asked: engines know nothing of rubrics and rows."""

import base64
import io
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from PIL import Image

from visionprefer.errors import InputError

Row = dict[str, Any]


class Request(NamedTuple):
    """What an engine is asked."""

    images: list[Image.Image]  # in the order shown; none for a model of text
    text: str
    seed: int
    temperature: float  # 0: the likeliest token
    schema: dict[str, Any]  # JSON schema of the reply, where the engine holds it to one


class Reply(NamedTuple):
    """What an engine answers: text, or the reason why there is none."""

    text: str | None
    prompt_tokens: int
    completion_tokens: int
    error: str | None = None
    cut_off: bool = False  # the text ended because its tokens ran out
    cost: float | None = None


class Engine(Protocol):
    """Runs a model. The reply to each request stands at the request's place."""

    def ask(self, requests: list[Request]) -> list[Reply]:
        """Answer all requests. A request that cannot be answered is a reply with an error.

        Raises:
            InputError: if none can be answered, now or later.
        """

    def describe(self) -> str:
        """What was chosen, for the person at the terminal."""


def in_batches(requests: list[Request], size: int, generate: Callable[[list[Request]], list[Reply]]) -> list[Reply]:
    """Answer requests so many at a time. Of a batch that cannot be answered each is tried alone, and fails alone."""
    found: list[Reply] = []
    for start in range(0, len(requests), size):
        batch = requests[start : start + size]
        try:
            found += generate(batch)
        except InputError:  # none can be answered
            raise
        except Exception as error:  # noqa: BLE001  any model may raise anything; the reason becomes a row
            if len(batch) == 1:
                found.append(Reply(None, 0, 0, error=f"{type(error).__name__}: {error}"))
            else:
                found += in_batches(batch, 1, generate)
    return found


def chat(request: Request) -> list[Row]:
    """A request as the messages of OpenAI's protocol, images as data URLs."""
    if not request.images:
        return [{"role": "user", "content": request.text}]
    images = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in request.images]
    return [{"role": "user", "content": [*images, {"type": "text", "text": request.text}]}]


def _data_url(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
