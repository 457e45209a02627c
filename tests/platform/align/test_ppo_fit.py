"""PPO moves the policy towards rewards; how a step is cut changes nothing, and what has no reward leaves no trace."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from visionprefer.align.encoding import encode_empty, encode_prompts
from visionprefer.align.likelihood import OfSteps
from visionprefer.align.policy import Policy
from visionprefer.align.ppo_fit import Experience, PPOFit
from visionprefer.align.ppo_recipe import PPORecipe
from visionprefer.align.rollout import Guided, roll_out, sampler

PROMPTS = ["a red circle", "two blue rings"] * 4
STEPS = 4


def recipe(**changes: Any) -> PPORecipe:
    settings = {"images": 8, "updates": 1, "batch_size": 8, "num_inference_steps": STEPS, "learning_rate": 3e-3}
    return PPORecipe.model_validate({"name": "r", "model": "m", "prompts": {"path": "p"}, **settings, **changes})


class World:
    """A policy, its learner, and rollouts for them."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> None:
        torch.manual_seed(0)
        pipeline = DiffusionPipeline.from_pretrained(folder)
        self.scheduler = sampler(pipeline, STEPS)
        self.policy = Policy(pipeline, changes.get("lora_rank", 4))
        condition = encode_prompts(pipeline, PROMPTS, 64, 64)
        self.guided = Guided(condition, encode_empty(pipeline, len(PROMPTS), 64, 64), 2.0)
        self.recipe = recipe(**changes)
        self.fit = PPOFit(self.policy, self.recipe, self.scheduler, dtype)

    def rollout(self, first: int = 0) -> Any:
        seeds = [torch.Generator().manual_seed(first + number) for number in range(len(PROMPTS))]
        if self.recipe.objective == "ddpo":
            return roll_out(self.policy.predict, self.scheduler, self.guided, (4, 8, 8), seeds)
        drawn = roll_out(self.policy.predict, self.scheduler, self.guided, (4, 8, 8), seeds, eta=0.0)
        return drawn.without_steps()

    def learn(self, advantage: list[float], first: int = 0, number: int = 0) -> dict[str, float]:
        return self.fit.learn(Experience(self.rollout(first), self.guided, torch.tensor(advantage)), number)

    def weights(self) -> torch.Tensor:
        return torch.cat([weight.detach().flatten() for weight in self.policy.learnt])


def brightness(rollout: Any) -> torch.Tensor:
    return rollout.latents_BTCHW[:, -1].mean(dim=(1, 2, 3))


def test_what_is_rewarded_becomes_more(tiny_sd: Path) -> None:
    world = World(tiny_sd, updates=2, kl_weight=1e-3)
    before = brightness(world.rollout(1000)).mean()
    for number in range(12):
        rollout = world.rollout(number * 8)
        reward = brightness(rollout)
        advantage = (reward - reward.mean()) / reward.std()
        told = world.fit.learn(Experience(rollout, world.guided, advantage), number)
        assert told["gap"] < 1e-5
    assert brightness(world.rollout(1000)).mean() > before + 0.02
    assert told["distance"] > 0


def test_what_is_rewarded_becomes_likelier_than_what_is_not(tiny_sd: Path) -> None:
    """At noise that was not learnt from."""
    world = World(tiny_sd, objective="awm", lora_rank=None, updates=2)
    rollout = world.rollout()
    experience = Experience(rollout, world.guided, torch.tensor([1.0, -1.0] * 4))

    def lead() -> float:
        likely = world.fit._old(world.fit._likelihood(experience, 1000, 0), rollout)[0].mean(dim=1)
        return float(likely[::2].mean() - likely[1::2].mean())

    before = lead()
    for number in range(12):
        assert world.fit.learn(experience, number)["gap"] < 1e-5
    assert lead() > before + 0.01


@pytest.mark.parametrize("objective", ["ddpo", "awm"])
@pytest.mark.parametrize("batch_size", [2, 3])
def test_how_a_step_is_cut_does_not_change_what_is_learnt(tiny_sd: Path, batch_size: int, objective: str) -> None:
    advantage = [1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 0.1, -0.1]
    whole, cut = World(tiny_sd, objective=objective), World(tiny_sd, objective=objective, batch_size=batch_size)
    assert whole.learn(advantage)["loss"] == pytest.approx(cut.learn(advantage)["loss"], abs=1e-5)
    assert torch.allclose(whole.weights(), cut.weights(), atol=1e-4)


def test_images_without_a_reward_leave_no_trace(tiny_sd: Path) -> None:
    """A step in which half have none has the gradient of the other half alone."""
    nan = float("nan")
    some, few = World(tiny_sd), World(tiny_sd)
    some.learn([1.0, -1.0, 0.5, -0.5, nan, nan, nan, nan])
    rollout = few.rollout()
    half = rollout._replace(latents_BTCHW=rollout.latents_BTCHW[:4], log_prob_BT=rollout.log_prob_BT[:4])
    few.fit.learn(Experience(half, few.guided.part(slice(4)), torch.tensor([1.0, -1.0, 0.5, -0.5])), 0)
    assert torch.allclose(some.weights(), few.weights(), atol=1e-4)
    before = some.weights()
    some.learn([nan] * 8, number=1)
    assert torch.equal(some.weights(), before)


@pytest.mark.parametrize("old_kl_weight", [0.0, 1.0])
def test_a_rollout_of_other_weights_is_told(tiny_sd: Path, old_kl_weight: float) -> None:
    world = World(tiny_sd, old_kl_weight=old_kl_weight)
    rollout = world.rollout()
    world.learn([1.0, -1.0] * 4)
    with pytest.raises(FloatingPointError, match="before the first step rollout and learner disagree"):
        world.fit.learn(Experience(rollout, world.guided, torch.tensor([1.0, -1.0] * 4)), 1)


def test_in_half_precision_the_learner_scores_the_rollout_itself(tiny_sd: Path) -> None:
    """What was drawn in float32 is otherwise several clip ranges away."""
    world = World(tiny_sd, torch.bfloat16)
    rollout = world.rollout()
    told = world.fit.learn(Experience(rollout, world.guided, torch.tensor([1.0, -1.0] * 4)), 0)
    assert told["gap"] < 1e-3
    likelihood = OfSteps(world.scheduler, rollout, world.guided, range(STEPS))
    assert (world.fit._old(likelihood, rollout)[0] - rollout.log_prob_BT).abs().max() > 0


def test_an_image_is_learnt_from_at_as_many_noise_levels_as_it_has_steps(tiny_sd: Path) -> None:
    asked: list[torch.Tensor] = []
    world = World(tiny_sd, objective="awm", timestep_range=(0.5, 1.0))
    rollout, predict = world.rollout(), world.policy.predict
    world.policy.predict = lambda *given: asked.append(given[1]) or predict(*given)  # type: ignore[method-assign, func-returns-value]
    world.fit.learn(Experience(rollout, world.guided, torch.tensor([1.0, -1.0] * 4)), 0)
    assert list(map(len, asked)) == [8] * 4  # two levels as it was, two to learn from, none with guidance
    assert sorted(torch.cat(asked[:2]).tolist()) == sorted(torch.cat(asked[2:]).tolist())
    assert torch.cat(asked).max() < 500


@pytest.mark.parametrize("objective", ["ddpo", "awm"])
def test_the_policy_that_drew_holds_back(tiny_sd: Path, objective: str) -> None:
    """In several steps on the same images, the more the larger its weight."""
    moved = {}
    for weight in (1e-9, 10.0):
        changes: dict[str, Any] = {"objective": objective, "lora_rank": None, "updates": 4, "clip_range": 1.0}
        world = World(tiny_sd, old_kl_weight=weight, learning_rate=1e-4, **changes)
        moved[weight] = world.learn([1.0, -1.0] * 4)["old_distance"]
    assert 0 < moved[10.0] < 0.8 * moved[1e-9]


def test_advantages_are_cut(tiny_sd: Path) -> None:
    cut, small = World(tiny_sd, max_advantage=0.5), World(tiny_sd)
    assert cut.learn([3.0, -2.0] * 4)["norm"] == pytest.approx(small.learn([0.5, -0.5] * 4)["norm"], rel=1e-5)


def test_the_moving_average_is_kept(tiny_sd: Path) -> None:
    """After two steps it lies between what there was and what there is; without it the last weights are kept."""
    world = World(tiny_sd, updates=2, ema=0.5)
    first = world.weights()
    world.learn([1.0, -1.0] * 4)
    kept = torch.cat([weight.flatten() for weight in world.fit.kept()])
    whole, part = (world.weights() - first).norm(), (kept - first).norm()
    assert 0.1 * whole < part < 0.95 * whole
    plain = World(tiny_sd)
    plain.learn([1.0, -1.0] * 4)
    assert torch.equal(torch.cat([weight.flatten() for weight in plain.fit.kept()]), plain.weights())


def test_a_value_function_looks_at_steps() -> None:
    with pytest.raises(ValueError, match=r"value_learning_rate is 0.0001, .* objective is awm, which does not: leave"):
        recipe(objective="awm", value_learning_rate=1e-4)


@pytest.mark.parametrize(
    ("changes", "places"),
    [({"timestep_fraction": 0.5}, range(STEPS)), ({"timestep_range": (0.25, 0.75)}, range(1, 3))],
)
def test_some_of_the_steps_can_be_learnt_from(tiny_sd: Path, changes: dict[str, Any], places: range) -> None:
    asked: list[torch.Tensor] = []
    world = World(tiny_sd, **changes)
    predict = world.policy.predict
    rollout = world.rollout()
    world.policy.predict = lambda *given: asked.append(given[1]) or predict(*given)  # type: ignore[method-assign, func-returns-value]
    world.fit.learn(Experience(rollout, world.guided, torch.tensor([1.0, -1.0] * 4)), 0)
    assert list(map(len, asked)) == [16] * (STEPS // 2)
    assert set(torch.cat(asked).tolist()) == {int(world.scheduler.timesteps[place]) for place in places}


@pytest.mark.parametrize("wrong", [(0.5, 0.5), (0.6, 0.4), (-0.1, 1), (0, 1.1), (0, 0.1)])
def test_a_range_without_steps_is_told(wrong: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"timestep_range is .* write two shares of 0 to 1"):
        recipe(timestep_range=wrong)


def test_what_is_expected_is_no_advantage(tiny_sd: Path) -> None:
    """Where the value function already says 2 of every image, one of 2 teaches nothing, and one of 5 as much as 3."""
    expecting, other = World(tiny_sd, value_learning_rate=1e-12, updates=1), World(tiny_sd)
    assert expecting.fit.value is not None
    with torch.no_grad():
        expecting.fit.value.value.last.bias.fill_(2)
    before = expecting.weights()
    told = expecting.learn([2.0] * 8)
    assert told["value_error"] == pytest.approx(0, abs=1e-6)
    assert told["norm"] == pytest.approx(0, abs=1e-6)
    assert torch.allclose(expecting.weights(), before, atol=1e-5)
    told = World.learn(expecting, [5.0, -1.0] * 4, number=1)
    assert told["norm"] == pytest.approx(other.learn([3.0, -3.0] * 4, number=1)["norm"], rel=1e-3)


@pytest.mark.parametrize("changes", [{}, {"value_learning_rate": 1e-2}, {"objective": "awm", "ema": 0.9}])
def test_training_that_goes_on_learns_the_same(tiny_sd: Path, changes: dict[str, Any]) -> None:
    through, stopped, on = (World(tiny_sd, **changes) for _ in range(3))
    advantage = [1.0, -1.0] * 4
    for world in (through, stopped):
        world.learn(advantage)
    on.fit.load(stopped.fit.state())
    for world in (through, on):
        world.learn(advantage, first=8, number=1)
    assert torch.allclose(through.weights(), on.weights(), atol=1e-6)
    assert all(torch.allclose(*two, atol=1e-6) for two in zip(through.fit.kept(), on.fit.kept(), strict=True))


def test_steps_in_which_nothing_was_chosen_cannot_be_learnt_from(tiny_sd: Path) -> None:
    world = World(tiny_sd, timestep_range=(0.75, 1.0))
    rollout = world.rollout()._replace(chosen_T=torch.tensor([True, True, True, False]))
    with pytest.raises(ValueError, match=r"timestep_range is \[0.75, 1.0\].*write one that begins earlier"):
        world.fit.learn(Experience(rollout, world.guided, torch.zeros(len(PROMPTS))), 0)
