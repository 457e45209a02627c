"""The endpoint on Ray Serve: one ingress that asks the replicas of the models, each model on its own.

`build` is what `serve deploy config.yaml` calls, and `visionprefer serve` too.
"""

import asyncio
import math
import time
from pathlib import Path
from typing import Any

import tenacity
from fastapi import FastAPI, HTTPException
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve import Application
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.metrics import Counter, Histogram

from visionprefer.buckets import is_in_bucket
from visionprefer_serve import routes
from visionprefer_serve.access import token_digests
from visionprefer_serve.metrics import SECONDS
from visionprefer_serve.scorer import Scorer
from visionprefer_serve.settings import EndpointSettings, ServedModel
from visionprefer_serve.wire import LOST, UNREADABLE, Answer, Item

_TRIES = 3  # of a batch whose replica dies
_RETRY_AFTER_S = 1
_ANSWERING_S = 30.0
_CHECKED_S = 5.0
_ON_THEIR_WAY_S = 1.0
_LOOK_S = 0.2  # between two looks whether a replica that is to end has answered everything


def build(settings: EndpointSettings) -> Application:
    """The application of these settings. Relative paths are those of the process that builds it."""
    digests = token_digests(Path(settings.tokens) if settings.tokens else None)
    scorers = {name: _scorer(name, model, settings.max_pixels) for name, model in settings.models.items()}
    return Endpoint.bind(settings.model_dump(mode="json"), digests, scorers)  # type: ignore[attr-defined]


def _scorer(name: str, model: ServedModel, max_pixels: int) -> Application:
    actors = model.workers.actors
    scaled: dict[str, Any] = {"num_replicas": actors}
    if isinstance(actors, tuple):
        few, many = actors
        scaled = {"autoscaling_config": {"min_replicas": few, "max_replicas": many, "target_ongoing_requests": 2}}
    deployment = Scorer.options(  # type: ignore[attr-defined]
        name=f"model-{name}",
        ray_actor_options={
            "num_cpus": model.workers.num_cpus,
            "num_gpus": model.workers.num_gpus,
            "resources": model.workers.resources,
        },
        max_ongoing_requests=3 * model.max_batch_size,  # two batches of single items on their way, the next waiting
        max_queued_requests=model.max_queued_requests,
        graceful_shutdown_timeout_s=30,
        graceful_shutdown_wait_loop_s=_LOOK_S,
        health_check_timeout_s=60,
        **scaled,
    )
    path = model.path if is_in_bucket(model.path) else str(Path(model.path).absolute())
    return deployment.bind(name, model.model_copy(update={"path": path}).model_dump(mode="json"), max_pixels)


@serve.deployment(
    max_ongoing_requests=100,
    max_queued_requests=100,
    backpressure_config={"status_code": 429, "retry_after_s": _RETRY_AFTER_S},
    graceful_shutdown_timeout_s=60,
    graceful_shutdown_wait_loop_s=_LOOK_S,
)
@serve.ingress()
class Endpoint:
    """Answers HTTP: it checks who asks and for what, and cuts requests into batches for the models' replicas."""

    def __init__(self, settings: dict[str, Any], digests: list[str], scorers: dict[str, Any]) -> None:
        self.settings = EndpointSettings.model_validate(settings)
        self.digests = digests
        self._scorers = scorers
        self._stopping = False
        self._under_way = 0  # requests
        self._checking, self._checked = asyncio.Lock(), -math.inf  # when the models were last run for /healthz
        self._items = Counter("visionprefer_items", "Items by how they ended.", ("model", "status"))  # type: ignore[arg-type]
        self._seconds = Histogram("visionprefer_request_seconds", "From body to answer.", SECONDS, ("model",))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return routes.build(self)

    async def score(self, named: str | None, items: list[Item]) -> list[Answer]:
        """Answers in the order of the items. Raises HTTPException if the whole request is refused."""
        if self._stopping:
            raise HTTPException(503, "the endpoint is stopping: ask again later", {"Retry-After": "5"})
        self._under_way += 1
        try:
            return await self._score(named, items)
        finally:
            self._under_way -= 1

    async def drain(self) -> None:
        """Refuse what comes, and return once everything is answered that came before."""
        self._stopping = True
        await asyncio.sleep(_ON_THEIR_WAY_S)  # for those that the proxy has and we have not
        while self._under_way:
            await asyncio.sleep(0.05)
        await asyncio.sleep(_ON_THEIR_WAY_S)  # for answers that the proxy has not sent yet

    async def _score(self, named: str | None, items: list[Item]) -> list[Answer]:
        name = next(iter(self._scorers)) if named is None else named
        if name not in self._scorers:
            raise HTTPException(404, f"there is no model {name[:100]!r}: write one of {', '.join(self._scorers)}")
        size = self.settings.models[name].max_batch_size
        started = time.perf_counter()
        problems = [self._problem(item) for item in items]
        sound = [item for item, problem in zip(items, problems, strict=True) if problem is None]
        parts = [sound[start : start + size] for start in range(0, len(sound), size)]
        found = await self._within_time(self._parts(name, parts))
        scored = (answer for part in found for answer in part)
        answers = [next(scored) if problem is None else _refused(name, problem) for problem in problems]
        self._seconds.observe(time.perf_counter() - started, {"model": name})
        for status in {answer.status for answer in answers}:
            count = sum(answer.status == status for answer in answers)
            self._items.inc(count, {"model": name, "status": str(status)})
        return answers

    async def models(self) -> list[dict[str, Any]]:
        """What each model's replicas say of it."""
        if self._stopping:
            raise HTTPException(503, "the endpoint is stopping")
        asked = (scorer.about.remote() for scorer in self._scorers.values())
        return list(await self._answering(*asked))

    async def check(self) -> None:
        """Run each model, once in a few seconds, however many ask: anyone may."""
        async with self._checking:
            if time.monotonic() - self._checked > _CHECKED_S:
                await self._answering(*(_alive(scorer) for scorer in self._scorers.values()))
                self._checked = time.monotonic()

    def _problem(self, item: Item) -> str | None:
        most = self.settings.max_prompt_length
        if item.image is None:
            return "the image is no base64"
        if not item.prompt.strip():
            return "the prompt is empty: write what the image was asked to show"
        if len(item.prompt) > most:
            return f"the prompt has {len(item.prompt)} characters: write at most {most}"
        return None

    async def _parts(self, name: str, parts: list[list[Item]]) -> list[list[Answer]]:
        """Score batches; where one is refused, the others are not waited for."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._part(name, part)) for part in parts]
        except ExceptionGroup as refusals:
            raise refusals.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _part(self, name: str, items: list[Item]) -> list[Answer]:
        """Score one batch; where its replica dies, another takes it up."""
        tries = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(RayActorError),
            stop=tenacity.stop_after_attempt(_TRIES),
            reraise=True,
        )
        try:
            return await tries(self._ask, name, items)
        except BackPressureError:
            after = {"Retry-After": str(_RETRY_AFTER_S)}
            raise HTTPException(429, "too many requests are waiting: ask again later", after) from None
        except (RayActorError, DeploymentUnavailableError):
            return [_refused(name, "the model's replicas died over this item: ask again later", LOST)] * len(items)

    async def _ask(self, name: str, items: list[Item]) -> list[Answer]:
        response = self._scorers[name].score.remote(items)
        try:
            return await response
        except asyncio.CancelledError:  # nobody waits for it any more
            response.cancel()
            raise

    async def _within_time(self, work: Any) -> Any:
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await work
        except TimeoutError:
            told = f"no scores within {self.settings.timeout_s:g} s: send fewer items, or ask again later"
            raise HTTPException(504, told) from None

    async def _answering(self, *asked: Any) -> Any:
        try:
            async with asyncio.timeout(_ANSWERING_S):
                return await asyncio.gather(*asked)
        except (TimeoutError, RayError, RayServeException) as error:
            told = "does not answer" if isinstance(error, TimeoutError) else f"is unwell: {type(error).__name__}"
            raise HTTPException(503, f"a model {told}", {"Retry-After": "5"}) from None


async def _alive(scorer: Any) -> None:
    try:
        await scorer.check_health.remote()
    except BackPressureError:  # too busy to be asked is alive
        return


def _refused(name: str, error: str, status: int = UNREADABLE) -> Answer:
    return Answer(model=name, status=status, error=error)
