"""Actors that draw images for PPO, and ask an endpoint what they are worth while they draw the next ones."""

import io
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import ray
import torch

from visionprefer.align.encoding import encode_empty, encode_prompts
from visionprefer.align.ppo_recipe import PPORecipe, Reward
from visionprefer.align.rollout import Guided, Rollout, decode, exact, roll_out, sampler
from visionprefer.align.watch import grid
from visionprefer.devices import choose
from visionprefer.models import Model
from visionprefer.schema import OVERALL
from visionprefer_pipelines.measures import RowMeasures
from visionprefer_pipelines.policies import policy_of
from visionprefer_serve.client import RewardClient, RewardError
from visionprefer_serve.wire import Answer

_CPU = torch.device("cpu")


class Request(NamedTuple):
    """An image to draw."""

    prompt_id: str
    prompt: str
    seed: int


class Valued(NamedTuple):
    """What an image is worth."""

    rewards: dict[str, float] | None  # by name; None where one of them is missing
    error: str | None  # why


class Seen(NamedTuple):
    """Images of one version of the policy, drawn to be looked at."""

    version: int
    scores: dict[str, list[float | None]]  # of each image, by the score's name; None where it is missing
    grid: bytes  # a PNG of some


class Drawn(NamedTuple):
    """Images of one version of the policy."""

    version: int
    rollout: Rollout
    guided: Guided
    values: list[Valued]


class RolloutWorker:
    """An actor with a pipeline of its own, and the weights that it was sent last.

    Args:
        recipe: of the training.
        model: that the training began with.
        endpoint: URL.
        token: that it wants, if it wants one.
    """

    def __init__(self, recipe: PPORecipe, model: Model, endpoint: str, token: str = "") -> None:
        self.recipe, self.version = recipe, -1
        exact()
        self.device, _ = choose(recipe.device, recipe.dtype, on_gpu="bfloat16")
        self.policy, self.dtype = policy_of(recipe, model, self.device, with_reference=False)
        self.pipeline = self.policy.pipeline.to(self.device)  # it reads prompts and decodes latents too
        self.scheduler = sampler(self.pipeline, recipe.num_inference_steps)
        self.endpoint, self.token = endpoint, token
        self.measures = RowMeasures("rollouts")  # done: with a reward
        self.clients: dict[str | None, RewardClient] = {}

    def draw(self, version: int, weights: list[torch.Tensor], requests: Sequence[Request]) -> Drawn:
        """Draw images with these weights, and have them valued.

        Args:
            version: of the weights.
            weights: of the policy that learns, in its order.
            requests: at least one.
        """
        began = time.monotonic()
        if version != self.version:
            self.policy.load_learnt(weights)
            self.version = version
        parts: list[tuple[Rollout, Guided]] = []
        valued: list[Future[list[Valued]]] = []
        size = self.recipe.rollout_batch_size
        with ThreadPoolExecutor(max_workers=4) as asking:
            for start in range(0, len(requests), size):
                part = requests[start : start + size]
                rollout, guided = self._roll_out(part)
                images = decode(self.pipeline, rollout.latents_BTCHW[:, -1])
                valued.append(asking.submit(self._value, [one.prompt for one in part], images))
                parts.append((rollout, guided))
        rollout, guided = parts[0]
        for further, told in parts[1:]:
            rollout, guided = rollout.beside(further), guided.beside(told)
        rollout = Rollout._make(part.cpu() for part in rollout)
        values = [one for part in valued for one in part.result()]
        missing = sum(one.rewards is None for one in values)
        self.measures.count(len(values) - missing, missing, time.monotonic() - began)
        return Drawn(self.version, rollout, guided.to(_CPU), values)

    def look(
        self, version: int, weights: list[torch.Tensor], requests: Sequence[Request], by: Sequence[Reward]
    ) -> Seen:
        """Draw images with these weights, to be looked at and scored, not learnt from.

        Args:
            version, weights, requests: as in `draw`.
            by: the scores to ask for.
        """
        self.policy.load_learnt(weights)
        self.version = -1  # they may be a moving average: who draws next brings others
        images: list[Any] = []
        size = self.recipe.rollout_batch_size
        for start in range(0, len(requests), size):
            rollout, _ = self._roll_out(requests[start : start + size])
            images += decode(self.pipeline, rollout.latents_BTCHW[:, -1])
        prompts, pictures = [one.prompt for one in requests], list(map(_png, images))
        scores: dict[str, list[float | None]] = {}
        for model in sorted({score.model or "" for score in by}):
            try:
                said = self._client(model or None).score(prompts, pictures)
            except RewardError:
                continue  # a look is not worth stopping for
            scores |= {one.name: [_score(one, answer) for answer in said] for one in by if (one.model or "") == model}
        return Seen(version, scores, grid(images))

    def _roll_out(self, requests: Sequence[Request]) -> tuple[Rollout, Guided]:
        unet, factor = self.pipeline.unet.config, self.pipeline.vae_scale_factor
        pixels = unet.sample_size * factor
        condition = encode_prompts(self.pipeline, [one.prompt for one in requests], pixels, pixels)
        negative = encode_empty(self.pipeline, len(requests), pixels, pixels)
        guided = Guided(condition, negative, self.recipe.guidance_scale)
        generators = [torch.Generator().manual_seed(one.seed) for one in requests]
        shape = (unet.in_channels, unet.sample_size, unet.sample_size)
        eta = 1.0 if self.recipe.objective == "ddpo" else 0.0
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            rollout = roll_out(self.policy.predict, self.scheduler, guided, shape, generators, eta)
        return (rollout if eta else rollout.without_steps()), guided

    def _client(self, model: str | None) -> RewardClient:
        if model not in self.clients:
            retry_for = self.recipe.retry_for
            self.clients[model] = RewardClient(self.endpoint, self.token, model=model, retry_for=retry_for)
        return self.clients[model]

    def _value(self, prompts: list[str], images: list[Any]) -> list[Valued]:
        """What the endpoint says of images; a request that it refuses has no reward."""
        pictures = [_png(image) for image in images]
        models = {reward.model for reward in self.recipe.rewards}
        try:
            said = {name: self._client(name).score(prompts, pictures) for name in models}
        except RewardError as error:
            return [Valued(None, str(error))] * len(images)
        return [self._valued({name: said[name][row] for name in said}) for row in range(len(images))]

    def _valued(self, answers: dict[str | None, Answer]) -> Valued:
        rewards = {}
        for reward in self.recipe.rewards:
            answer = answers[reward.model]
            value = _score(reward, answer)
            if value is None:
                return Valued(None, answer.error or f"the endpoint's model gives no score {reward.score!r}")
            rewards[reward.name] = value
        return Valued(rewards, None)


def _score(reward: Reward, answer: Answer) -> float | None:
    return answer.score if reward.score == OVERALL else (answer.aspects or {}).get(reward.score)


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def start_workers(recipe: PPORecipe, model: Model, endpoint: str, token: str) -> list[Any]:
    """Named actors of the driver; one that dies is started again, and draws again what it was drawing."""
    workers = recipe.rollout_workers
    options = {"num_cpus": workers.num_cpus, "num_gpus": workers.num_gpus, "resources": workers.resources or None}
    return [
        ray.remote(RolloutWorker)
        .options(name=f"{recipe.name}-rollout-{number}", max_restarts=-1, max_task_retries=3, **options)
        .remote(recipe, model, endpoint, token)
        for number in range(int(str(workers.actors)))
    ]
