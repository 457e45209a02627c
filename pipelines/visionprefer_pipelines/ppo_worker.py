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
from visionprefer.align.ppo_recipe import PPORecipe
from visionprefer.align.rollout import exact, sampler
from visionprefer.models import Model
from visionprefer.schema import content_id
from visionprefer_pipelines.policies import policy_of
from visionprefer_pipelines.rollouts import Drawn, Request, Valued
from visionprefer_pipelines.training_worker import Course, total


class Task(NamedTuple):
    """What the driver tells its workers."""

    recipe: PPORecipe
    model: Model
    prompts: list[tuple[str, str]]  # id and text
    rollout_workers: list[Any]  # handles of RolloutWorker


def learn(config: dict[str, Any]) -> None:
    """Train, and report checkpoints to Ray Train."""
    task: Task = config["task"]
    recipe, context = task.recipe, ray.train.get_context()
    worker, workers = context.get_world_rank(), context.get_world_size()
    exact()
    policy, dtype = policy_of(recipe, task.model, get_device())
    policy.learner = prepare_model(policy.unet)
    fit = PPOFit(policy, recipe, sampler(policy.pipeline, recipe.num_inference_steps), dtype, workers, total)
    advantages = Advantages(recipe.buffer_size, recipe.min_count)
    course = Course(config["log"] if worker == 0 else None, recipe.rollouts)
    first = 0
    if saved := course.resumed():
        fit.load(saved)
        advantages.load_state_dict(saved["advantages"])
        first = saved["step"]
    for number in range(first, recipe.rollouts):
        mine = requests(task.prompts, recipe, number)[worker::workers]
        drawn = _draw(task.rollout_workers, number, policy, mine)
        values, advantage_N = _valued(advantages, mine, drawn.values, recipe)
        told = fit.learn(Experience(drawn.rollout, drawn.guided, advantage_N), number, worker)
        _note(course, number, values, told, recipe)
        if course.is_due(number + 1):
            course.report(number + 1, fit.state() | {"advantages": advantages.state_dict()})
    state = fit.state() | {"advantages": advantages.state_dict()}
    course.report(recipe.rollouts, state, policy.save_pretrained)


def requests(prompts: Sequence[tuple[str, str]], recipe: PPORecipe, number: int) -> list[Request]:
    """The images of a rollout: prompts drawn by lot, so many images of each; the same whenever they are asked for."""
    chance = random.Random(f"{recipe.seed} {number}")  # noqa: S311
    wanted = recipe.images // recipe.images_per_prompt
    chosen = chance.sample(prompts, wanted) if wanted <= len(prompts) else chance.choices(prompts, k=wanted)
    return [
        Request(*prompt, int(content_id("rollout", recipe.seed, number, place, image)[:15], 16))
        for place, prompt in enumerate(chosen)
        for image in range(recipe.images_per_prompt)
    ]


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


def _note(course: Course, number: int, values: list[Valued], told: dict[str, float], recipe: PPORecipe) -> None:
    """Keep what a rollout was worth and how it was learnt from, and tell of it."""
    known = [one.rewards for one in values if one.rewards is not None]
    means = {reward.name: float(np.mean([one[reward.name] for one in known])) for reward in recipe.rewards if known}
    total_ = sum(reward.weight * means[reward.name] for reward in recipe.rewards) if known else None
    failed = len(values) - len(known)
    course.history.append({"rollout": number + 1, "reward": total_, "rewards": means, "failed": failed, **told})
    sentence = f"rollout {number + 1:,} of {course.steps:,}: reward {'–' if total_ is None else f'{total_:+.3f}'}"
    if failed:
        why = next(one.error for one in values if one.rewards is None)
        sentence += f"; {failed} of {len(values)} images have none: {why}"
    course.say(sentence)
