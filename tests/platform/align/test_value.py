"""A value function computes what is worked by hand, learns from what is known, and is subtracted from advantages."""

from typing import Any

import pytest
import torch

from visionprefer.align.rollout import Rollout
from visionprefer.align.value import Value, ValueFit

NAN = float("nan")


def rollout(samples: int, steps: int = 3, seed: int = 0) -> Rollout:
    latents = torch.randn(samples, steps + 1, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    chosen = torch.tensor([True] * (steps - 1) + [False])
    return Rollout(latents, torch.arange(steps).flip(0), torch.zeros(samples, steps), chosen)


def fit(learning_rate: float = 1e-2) -> ValueFit:
    torch.manual_seed(0)
    return ValueFit(Value(latents=4, text=2, steps=3), learning_rate)


def weights(value: Value) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in value.parameters()])


def test_it_computes_what_is_worked_by_hand() -> None:
    """One unit of each layer: 1·1 + 2·1 + 3·mean(1, 3) = 9, times the step's scale, and 0.5 of that with 0.25 more."""
    value = Value(latents=2, text=1, steps=2)
    with torch.no_grad():
        for weight in value.parameters():
            weight.zero_()
        value.layers[0].weight[0] = torch.tensor([1.0, 2.0, 3.0])  # type: ignore[index]
        for layer in list(value.layers)[1:]:
            layer.weight[0, 0] = 1  # type: ignore[index]
        for scale in value.scales:
            scale.weight[:, 0] = torch.tensor([-1.0, 1.0])  # type: ignore[index]
        value.scales[0].weight[1, 0] = 2  # type: ignore[index]
        value.last.weight[0, 0], value.last.bias[0] = 0.5, 0.25
    latents, hidden = torch.ones(2, 1, 1, 2), torch.tensor([[[1.0], [3.0]]] * 2)
    assert value(latents, hidden, torch.tensor([1, 0])).tolist() == [0.5 * 18 + 0.25, 0.25]


def test_it_begins_as_nothing_and_learns_what_latents_tell() -> None:
    """The first error is the mean square of what images are worth, in which the last step, no choice, has no part."""
    learner, hidden = fit(), torch.zeros(64, 5, 2)
    drawn = rollout(64)
    worth = drawn.latents_BTCHW[:, 0].mean(dim=(1, 2, 3)).sign()
    drawn.latents_BTCHW[:, 2] = NAN
    errors = [learner.learn(drawn, hidden, worth, seed) for seed in range(20)]
    assert errors[-1] < 0.6
    expected = learner.expected(drawn, hidden[:2], torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert (expected.sign() == worth[:2]).all()
    assert not expected.requires_grad
    assert fit(1e-12).learn(drawn, hidden, worth, 0) == pytest.approx(1)


def test_images_whose_worth_is_unknown_leave_no_trace() -> None:
    drawn, hidden, worth = rollout(8), torch.zeros(8, 5, 2), torch.tensor([1.0, -1.0, 0.5, 2.0])
    some, few = fit(), fit()
    few.learn(Rollout(drawn.latents_BTCHW[:4], *drawn[1:]), hidden[:4], worth, seed=3)
    some.learn(drawn, hidden, torch.cat([worth, torch.full((4,), NAN)]), seed=3)
    assert torch.equal(weights(some.value), weights(few.value))
    assert some.learn(drawn, hidden, torch.full((8,), NAN), seed=4) == 0
    assert torch.equal(weights(some.value), weights(few.value))


def test_several_workers_learn_what_one_does() -> None:
    """Two with the same images: the sum of both gradients, over twice as many images."""
    drawn, hidden, worth = rollout(8), torch.zeros(8, 5, 2), torch.arange(8.0)
    alone, together = fit(), fit()

    def twice(tensor: Any) -> Any:
        return tensor.mul_(2)

    together.total = twice
    assert alone.learn(drawn, hidden, worth, 0) == pytest.approx(together.learn(drawn, hidden, worth, 0))
    assert torch.allclose(weights(alone.value), weights(together.value), atol=1e-6)
