"""The reward client: prompts and images in, VP-Scores out.

It goes into other people's training environments: it needs neither torch nor ray.
"""

import asyncio
import email.utils
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

import httpx
import tenacity

from visionprefer_serve import wire
from visionprefer_serve.wire import Answer

_PASSING = {408, 429, 502, 503, 504}  # statuses that another try may mend
_NOT_YET = "/-/routes for available routes"  # in the 404 of Ray Serve while the application starts
_LOST = (500, "Internal Server Error")  # what Ray Serve answers where the replica that had the request died
_LONGEST_WAIT = 30.0  # seconds


class RewardError(RuntimeError):
    """The endpoint refused the request, or answered something else than scores."""


class _AgainError(Exception):
    """What another try may mend, and how many seconds the endpoint wants it to wait."""

    def __init__(self, told: str, after: float = 0.0) -> None:
        super().__init__(told)
        self.after = after


class _Part:
    """What goes into one request, and what is known of it."""

    def __init__(self, items: list[wire.Item], model: str | None) -> None:
        self._items, self._model = items, model
        self._answers: list[Answer | None] = [None] * len(items)
        self._open = list(range(len(items)))  # places of the items that are still to be asked about

    def body(self) -> bytes:
        return wire.write_arrow(wire.Request([self._items[place] for place in self._open], self._model))

    def take(self, url: str, answers: list[Answer]) -> None:
        """Raises _AgainError if some of the items may have a score in another try."""
        if len(answers) != len(self._open):
            raise RewardError(f"{url} answered {len(answers)} items to {len(self._open)}: no telling which is whose")
        for place, answer in zip(self._open, answers, strict=True):
            self._answers[place] = answer
        passing = [place for place, answer in zip(self._open, answers, strict=True) if answer.status in _PASSING]
        self._open = passing
        if passing:
            raise _AgainError(f"{url} has no score of {len(passing)} items yet")

    def answers(self, error: _AgainError | None = None) -> list[Answer]:
        """An answer for each item; those that never had one say why, by the error of the last try."""
        lost = Answer(model=self._model or "", status=503, error=str(error))
        return [answer or lost for answer in self._answers]


class _Course:
    """What both clients share: how requests are cut, sent again, and read."""

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        batch_size: int = 64,
        max_bytes: int = 32 * 2**20,
        retry_for: float = 60.0,
    ) -> None:
        self.model, self.batch_size, self.max_bytes = model, batch_size, max_bytes
        self._retrying: dict[str, Any] = {
            "retry": tenacity.retry_if_exception_type(_AgainError),
            "stop": tenacity.stop_before_delay(retry_for),
            "wait": _wait,
            "reraise": True,
        }
        self.url = str(httpx.URL(base_url).copy_with(userinfo=b"")).rstrip("/") + "/v1/score"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url})"

    def _parts(self, prompts: Sequence[str], images: Sequence[bytes]) -> Iterator[_Part]:
        if len(prompts) != len(images):
            raise ValueError(f"{len(prompts)} prompts and {len(images)} images: give one prompt for each image")
        items: list[wire.Item] = []
        size = 0
        for item in map(wire.Item, prompts, images):
            if items and (len(items) == self.batch_size or size + len(item.image or b"") > self.max_bytes):
                yield _Part(items, self.model)
                items, size = [], 0
            items.append(item)
            size += len(item.image or b"")
        if items:
            yield _Part(items, self.model)

    def _read(self, response: httpx.Response, part: _Part) -> None:
        if not response.is_success:
            told = f"{self.url} answered {response.status_code}: {response.text[:300]}"
            lost = (response.status_code, response.text) == _LOST
            if lost or response.status_code in _PASSING or _NOT_YET in response.text:
                raise _AgainError(told, _retry_after(response.headers.get("retry-after")))
            raise RewardError(told)
        try:
            answers = wire.read_answers(response.content)
        except wire.WireError as error:
            raise RewardError(f"{self.url} answered something else than scores: {error}") from error
        part.take(self.url, answers)

    def _unanswered(self, error: httpx.TransportError) -> _AgainError:
        return _AgainError(f"{self.url} did not answer: {type(error).__name__}: {error}")


class RewardClient(_Course):
    """Asks one endpoint for scores; a context manager, safe to share between threads.

    Args:
        base_url: where the endpoint listens, such as http://127.0.0.1:8000.
        token: bearer token; left out: the environment variable VISIONPREFER_TOKEN, if that is set.
        model: name of the model to ask; left out: the endpoint's first.
        batch_size: items of one request.
        max_bytes: of the images of one request.
        timeout: longest silence to bear, in seconds.
        retry_for: seconds for which is asked again when the endpoint is busy, does not answer, or lost single items.
    """

    def __init__(self, base_url: str, token: str | None = None, timeout: float = 60.0, **options: Any) -> None:
        super().__init__(base_url, **options)
        self._http = httpx.Client(base_url=base_url, timeout=timeout, headers=_headers(token))
        self._tries = tenacity.Retrying(**self._retrying)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def score(self, prompts: Sequence[str], images: Sequence[bytes]) -> list[Answer]:
        """Score each image, given as the bytes of a PNG, JPEG or WebP file, for the prompt at the same place.

        An item that could not be scored, or was not in all tries, has the score None and says why; never 0. Items of
        which the endpoint says that another try may help, such as one whose replica died, are asked about again alone.

        Raises:
            RewardError: if a request is refused as a whole, or answered by something else than scores.
        """
        answers: list[Answer] = []
        for part in self._parts(prompts, images):
            try:
                self._tries.copy()(self._ask, part)
            except _AgainError as error:
                answers += part.answers(error)
            else:
                answers += part.answers()
        return answers

    def _ask(self, part: _Part) -> None:
        try:
            response = self._http.post("/v1/score", content=part.body())
        except httpx.TransportError as error:
            raise self._unanswered(error) from error
        self._read(response, part)


class AsyncRewardClient(_Course):
    """`RewardClient` for asyncio; `concurrency` is how many requests of one call are on their way at once."""

    def __init__(
        self, base_url: str, token: str | None = None, timeout: float = 60.0, concurrency: int = 4, **options: Any
    ) -> None:
        super().__init__(base_url, **options)
        self._http = httpx.AsyncClient(base_url=base_url, timeout=timeout, headers=_headers(token))
        self._tries = tenacity.AsyncRetrying(**self._retrying)
        self._places = asyncio.Semaphore(concurrency)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def score(self, prompts: Sequence[str], images: Sequence[bytes]) -> list[Answer]:
        """As `RewardClient.score`."""
        parts = await asyncio.gather(*map(self._part, self._parts(prompts, images)))
        return [answer for part in parts for answer in part]

    async def _part(self, part: _Part) -> list[Answer]:
        async with self._places:
            try:
                await self._tries.copy()(self._ask, part)
            except _AgainError as error:
                return part.answers(error)
            else:
                return part.answers()

    async def _ask(self, part: _Part) -> None:
        try:
            response = await self._http.post("/v1/score", content=part.body())
        except httpx.TransportError as error:
            raise self._unanswered(error) from error
        self._read(response, part)


def _headers(token: str | None) -> dict[str, str]:
    token = (os.environ.get("VISIONPREFER_TOKEN", "") if token is None else token).strip()
    if not (token.isascii() and token.isprintable()):
        raise ValueError("the token holds characters that no HTTP header can carry: give it as it was issued")
    return {"Content-Type": wire.ARROW} | ({"Authorization": f"Bearer {token}"} if token else {})


def _wait(state: tenacity.RetryCallState) -> float:
    """Seconds before another try: longer each time, by lot so that not all come at once."""
    error = state.outcome.exception() if state.outcome else None
    chance = tenacity.wait_random_exponential(multiplier=0.2, max=5)(state)
    return min(_LONGEST_WAIT, (error.after if isinstance(error, _AgainError) else 0) + chance)


def _retry_after(header: str | None) -> float:
    """Seconds that a Retry-After header asks for, in either of its forms."""
    if header is None:
        return 0.0
    try:
        if header.strip().isdecimal():
            return float(header)
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
