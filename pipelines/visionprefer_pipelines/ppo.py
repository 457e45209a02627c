"""PPO: an image model learns on Ray Train from images that actors draw and an endpoint values. Running again goes on
where it stopped.
"""

import os
import time
from pathlib import Path
from typing import Any

import httpx
import ray

from visionprefer.align.card import write_card
from visionprefer.align.ppo_recipe import PPORecipe, Reward
from visionprefer.errors import InputError
from visionprefer.prompts import read_prompts
from visionprefer.schema import content_id
from visionprefer.store import Store
from visionprefer_pipelines.cluster import connected
from visionprefer_pipelines.policies import base_of, tell_of_long_prompts
from visionprefer_pipelines.ppo_worker import Task, Watching, learn
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.rollouts import Request, start_workers
from visionprefer_pipelines.training import ANY_WAY, Run, is_to_do, train

SECONDS_TO_START = 60.0


def train_ppo(
    recipe: PPORecipe, endpoint: str, out: str | Path, progress: Progress, address: str | None = None
) -> None:
    """Train an image model to be worth more, or go on training it.

    Args:
        recipe: how.
        endpoint: URL of the reward endpoint; its token is read from VISIONPREFER_TOKEN.
        out: folder, local or s3://, gs://, that gets LoRA weights or a whole pipeline, as stock diffusers loads them,
            a card, grids of pictures and `training.json` with how it went; checkpoints until it is done.
        progress: told what happens.
        address: of a Ray cluster; None: see `cluster.connected`.

    Raises:
        InputError: if something that was given cannot be used, or the endpoint does not answer within a minute.
    """
    found = read_prompts(recipe.prompts, recipe.seed)
    for note in found.notes:
        progress.say(note)
    split: dict[str, list[tuple[str, str]]] = {"train": [], "held_out": []}
    for row in found.kept.to_pylist():
        split[row["split"]].append((row["prompt_id"], row["prompt"]))
    prompts = split["train"]
    if not prompts:
        raise InputError("prompts: all are held out. Write a smaller prompts.held_out, or more prompts")
    model, about = base_of(recipe)
    token = os.environ.get("VISIONPREFER_TOKEN", "").strip()
    served = _models_of(endpoint, token)
    values = {reward.name: _digest(reward, served) for reward in recipe.rewards}
    trained_on = {
        "method": "ppo",
        "prompts": content_id("prompts", [prompt_id for prompt_id, _ in prompts]),
        "rewards": values,
        **about,
        "recipe": recipe.model_dump(mode="json", exclude=ANY_WAY),
    }
    run = Run("ppo", Store(out), trained_on, recipe, {"rollout_workers": recipe.rollout_workers})
    if not is_to_do(run, progress):
        return
    tell_of_long_prompts(model, [prompt for _, prompt in prompts], progress)
    with connected(address, {"workers": recipe.workers, **run.others}, object_store_bytes=None):
        actors = start_workers(recipe, model, endpoint, token)
        try:
            task = Task(recipe, model, prompts, actors, _watching(recipe, served, split["held_out"], progress))
            train(run, learn, task, progress, write_card)
        finally:
            for actor in actors:
                ray.kill(actor)


def _watching(
    recipe: PPORecipe, served: dict[str, dict[str, Any]], held_out: list[tuple[str, str]], progress: Progress
) -> Watching | None:
    """The held-out prompts and the endpoint's scores, but for those that are maximised."""
    if recipe.watch is None:
        return None
    maximised = {(reward.model or next(iter(served)), reward.score) for reward in recipe.rewards}
    scores = [
        Reward(model=name, score=score)
        for name, about in served.items()
        for score in about["scores"]
        if (name, score) not in maximised
    ]
    if not held_out:
        progress.say("no prompt is held out, so no other score is watched: write a larger prompts.held_out")
        return None
    seeds = [int(content_id("watch", recipe.seed, prompt_id)[:15], 16) for prompt_id, _ in held_out]
    requests = [Request(*prompt, seed) for prompt, seed in zip(held_out, seeds, strict=True)]
    return Watching(requests[: recipe.watch.images], scores)


def _digest(reward: Reward, served: dict[str, dict[str, Any]]) -> str:
    """The digest of the model that gives a reward. Raises InputError if the endpoint has no such model or score."""
    name = reward.model or next(iter(served))
    if name not in served:
        raise InputError(f"rewards: the endpoint has no model {name!r}. Write one of {sorted(served)}")
    if reward.score not in (scores := served[name]["scores"]):
        raise InputError(f"rewards: {name!r} gives no score {reward.score!r}. Write one of {scores}")
    return str(served[name]["digest"])


def _models_of(endpoint: str, token: str) -> dict[str, dict[str, Any]]:
    """What the endpoint says of its models, by name, the default first, once it is ready.

    Raises:
        InputError: if it is not within SECONDS_TO_START.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    until, why = time.monotonic() + SECONDS_TO_START, ""
    while time.monotonic() < until:
        try:
            if httpx.get(f"{endpoint}/readyz", timeout=5).is_success:
                listed = httpx.get(f"{endpoint}/v1/models", timeout=5, headers=headers).raise_for_status().json()
                return {one["name"]: one for one in listed["models"]}
            why = "it is not ready"
        except httpx.HTTPStatusError as error:
            raise InputError(f"--endpoint {endpoint}: {error}. Is VISIONPREFER_TOKEN one of its tokens?") from error
        except (httpx.HTTPError, ValueError, KeyError) as error:
            why = f"{type(error).__name__}: {error}"
        time.sleep(1)
    raise InputError(
        f"--endpoint {endpoint} did not answer within {SECONDS_TO_START:g} seconds ({why}). Start it, such as by\n"
        "  visionprefer serve --model runs/vpscore"
    )
