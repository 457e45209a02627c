"""What each worker of Ray Train does while an image model learns by PPO: has images drawn, and learns from them."""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import ray
import ray.train
import torch
from ray.train.torch import get_device, prepare_model

from visionprefer.align.advantages import Advantages
from visionprefer.align.policy import Policy
from visionprefer.align.ppo_fit import Experience, PPOFit
from visionprefer.align.ppo_recipe import PPORecipe, Reward
from visionprefer.align.rollout import exact, sampler
from visionprefer.align.watch import Spread, fallen, spreads
from visionprefer.models import Model
from visionprefer.schema import content_id
from visionprefer_pipelines.policies import policy_of
from visionprefer_pipelines.rollouts import Drawn, Request, Seen, Valued
from visionprefer_pipelines.training_worker import Course, total


class Task(NamedTuple):
    """What the driver tells its workers."""

    recipe: PPORecipe
    model: Model
    prompts: list[tuple[str, str]]  # id and text
    rollout_workers: list[Any]  # handles of RolloutWorker
    watch: "Watching | None"


class Watching(NamedTuple):
    """What is looked at."""

    requests: list[Request]
    scores: list[Reward]  # those of the endpoint that are not maximised


def learn(config: dict[str, Any]) -> None:
    """Train, and report checkpoints to Ray Train."""
    task: Task = config["task"]
    recipe, context = task.recipe, ray.train.get_context()
    worker, workers = context.get_world_rank(), context.get_world_size()
    exact()
    policy, dtype = policy_of(recipe, task.model, get_device(), with_reference=recipe.kl_weight > 0)
    policy.learner = prepare_model(policy.unet)
    fit = PPOFit(policy, recipe, sampler(policy.pipeline, recipe.num_inference_steps), dtype, workers, total)
    advantages = Advantages(recipe.buffer_size, recipe.min_count, recipe.scale_rewards)
    course = Course(config["log"] if worker == 0 else None, recipe.rollouts)
    first = 0
    if saved := course.resumed():
        fit.load(saved)
        advantages.load_state_dict(saved["advantages"])
        first = saved["step"]
    last = recipe.rollouts
    for number in range(first, recipe.rollouts):
        seen = _look(course, task, fit, number)
        if seen and has_fallen(course, seen, recipe):
            last = number
            break
        mine = requests(task.prompts, recipe, number)[worker::workers]
        drawn = _draw(task.rollout_workers, number, policy, mine)
        values, advantage_N = _valued(advantages, mine, drawn.values, recipe)
        told = fit.learn(Experience(drawn.rollout, drawn.guided, advantage_N), number, worker)
        _note(course, number, values, told, recipe, seen)
        if course.is_due(number + 1):
            course.report(number + 1, fit.state() | {"advantages": advantages.state_dict()})
    if course.history and last == recipe.rollouts:
        course.history[-1]["watched_after"] = _plain(_look(course, task, fit, last, is_last=True))
    state = fit.state() | {"advantages": advantages.state_dict()}
    policy.load_learnt(fit.kept())
    course.report(recipe.rollouts, state, policy.save_pretrained)


def requests(prompts: Sequence[tuple[str, str]], recipe: PPORecipe, number: int) -> list[Request]:
    """The images of a rollout: prompts drawn by lot, so many images of each; the same whenever they are asked for.

    They are shuffled, so that an optimizer step sees many prompts and not all images of a few.
    """
    chance = random.Random(f"{recipe.seed} {number}")  # noqa: S311
    wanted = recipe.images // recipe.images_per_prompt
    chosen = chance.sample(prompts, wanted) if wanted <= len(prompts) else chance.choices(prompts, k=wanted)
    wanted_images = [
        Request(*prompt, int(content_id("rollout", recipe.seed, number, place, image)[:15], 16))
        for place, prompt in enumerate(chosen)
        for image in range(recipe.images_per_prompt)
    ]
    chance.shuffle(wanted_images)
    return wanted_images


def _look(course: Course, task: Task, fit: PPOFit, number: int, is_last: bool = False) -> dict[str, Spread] | None:
    """What the watched scores are after so many rollouts, where that is to be looked at; alike on all workers."""
    watch, watching = task.recipe.watch, task.watch
    if watch is None or watching is None or (number % watch.every and not is_last):
        return None
    told: list[Any] = [None]
    if course.log is not None:  # the first worker's
        weights = ray.put(fit.kept())
        seen: Seen = ray.get(task.rollout_workers[0].look.remote(number, weights, watching.requests, watching.scores))
        told = [spreads(seen.scores)]
        course.log.add.remote("file", (f"grids/after-{number:04}.png", seen.grid))
    if torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(told)
    means = ", ".join(f"{name} {spread.mean:+.3f}" for name, spread in told[0].items())
    course.say(f"after {number:,} rollouts, on held-out prompts: {means or 'no other score'}")
    found: dict[str, Spread] = told[0]
    return found


def _plain(seen: dict[str, Spread] | None) -> dict[str, list[float]] | None:
    """As a checkpoint and JSON hold it."""
    return None if seen is None else {name: list(spread) for name, spread in seen.items()}


def has_fallen(course: Course, now: dict[str, Spread], recipe: PPORecipe) -> bool:
    """Whether another score is so far below what it was at first that training has to stop; if so, that is told."""
    first = next((row["watched"] for row in course.history if row["watched"]), None)
    if first is None or recipe.watch is None or recipe.watch.stop_drop is None:
        return False
    names = fallen({name: Spread(*spread) for name, spread in first.items()}, now, recipe.watch.stop_drop)
    if names:
        course.history[-1]["watched_after"] = _plain(now)
        course.say(
            f"stopped: {', '.join(names)} fell by more than watch.stop_drop, {recipe.watch.stop_drop:g} standard "
            "deviations: the reward is no longer what it was meant for"
        )
    return bool(names)


def _draw(actors: Sequence[Any], version: int, policy: Policy, wanted: Sequence[Request]) -> Drawn:
    """Images of the policy as it is, by all actors.

    Raises:
        RuntimeError: if an actor drew with other weights.
    """
    weights = ray.put(policy.learnt_state())
    share = -(-len(wanted) // len(actors))
    shares = [wanted[start : start + share] for start in range(0, len(wanted), share)]
    parts: list[Drawn] = ray.get(
        [actor.draw.remote(version, weights, part) for actor, part in zip(actors, shares, strict=False)]
    )
    if other := [part.version for part in parts if part.version != version]:
        raise RuntimeError(f"images of version {other[0]} of the weights came to a learner of version {version}")
    drawn = parts[0]
    for part in parts[1:]:
        rollout, guided = drawn.rollout.beside(part.rollout), drawn.guided.beside(part.guided)
        drawn = Drawn(version, rollout, guided, drawn.values + part.values)
    return drawn


def _valued(
    advantages: Advantages, mine: Sequence[Request], values: list[Valued], recipe: PPORecipe
) -> tuple[list[Valued], torch.Tensor]:
    """What all workers' images are worth, and the advantages of this worker's: [B], NaN where a reward is missing."""
    here = ([one.prompt_id for one in mine], values)
    everywhere: list[Any] = [here]
    if torch.distributed.is_initialized():
        everywhere = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(everywhere, here)
    weights = {reward.name: reward.weight for reward in recipe.rewards}
    prompt_ids = [prompt_id for ids, _ in everywhere for prompt_id in ids]
    every: list[Valued] = [one for _, found in everywhere for one in found]
    rewards = [
        None if one.rewards is None else sum((weights[name] * value for name, value in one.rewards.items()), 0.0)
        for one in every
    ]
    advantage_N = advantages.of(prompt_ids, rewards)
    first = ray.train.get_context().get_world_rank() * len(mine)
    return every, torch.from_numpy(advantage_N[first : first + len(mine)])


def _note(
    course: Course,
    number: int,
    values: list[Valued],
    told: dict[str, float],
    recipe: PPORecipe,
    seen: dict[str, Spread] | None,
) -> None:
    """Keep what a rollout was worth and how it was learnt from, and tell of it."""
    known = [one.rewards for one in values if one.rewards is not None]
    means = {reward.name: float(np.mean([one[reward.name] for one in known])) for reward in recipe.rewards if known}
    total_ = sum(reward.weight * means[reward.name] for reward in recipe.rewards) if known else None
    failed = len(values) - len(known)
    row = {"rollout": number + 1, "seconds": course.seconds, "reward": total_, "rewards": means, "failed": failed}
    course.history.append(row | {"watched": _plain(seen)} | told)
    watched = {name: spread.mean for name, spread in (seen or {}).items()}
    course.measured(number + 1, row | {"watched": watched} | told)
    sentence = f"rollout {number + 1:,} of {course.steps:,}: reward {'–' if total_ is None else f'{total_:+.3f}'}"
    if failed:
        why = next(one.error for one in values if one.rewards is None)
        sentence += f"; {failed} of {len(values)} images have none: {why}"
    course.say(sentence)
