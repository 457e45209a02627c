"""The loss is ImageReward's, and with a variance the expected one, by numbers worked by hand."""

import math

import pytest
import torch

from visionprefer.reward.loss import pairwise_loss, summed_losses
from visionprefer.reward.vpscore import Scores


def test_it_is_the_cross_entropy_of_the_two_scores() -> None:
    chosen, rejected = torch.tensor([2.0, 0.0, -1.0]), torch.tensor([1.0, 0.0, 3.0])
    loss = pairwise_loss(chosen, rejected)
    by_hand = [math.log(1 + math.exp(-1)), math.log(2), math.log(1 + math.exp(4))]
    assert loss.tolist() == pytest.approx(by_hand, rel=1e-6)
    published = torch.nn.functional.cross_entropy(
        torch.stack([chosen, rejected], dim=1), torch.zeros(3, dtype=torch.long), reduction="none"
    )
    assert torch.allclose(loss, published)


def test_noise_makes_a_pair_less_certain_and_without_it_nothing_changes() -> None:
    chosen, rejected = torch.tensor([2.0]), torch.tensor([-1.0])
    assert pairwise_loss(chosen, rejected, torch.tensor([0.0])) == pairwise_loss(chosen, rejected)
    assert pairwise_loss(chosen, rejected, torch.tensor([8.0])).item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_each_score_has_the_sum_over_its_own_pairs_and_the_first_alone_its_noise() -> None:
    scores = Scores(torch.tensor([[1.0, 5.0], [0.0, 2.0], [3.0, 2.0]]), torch.tensor([1.0, 2.0, 0.0]))
    pairs = {0: torch.tensor([[0, 1], [2, 0]]), 1: torch.tensor([[1, 2]])}
    losses = summed_losses(scores, pairs)
    first = math.log(1 + math.exp(-1 / 2)) + math.log(1 + math.exp(-2 / math.sqrt(2)))
    assert losses[0].item() == pytest.approx(first, rel=1e-6)
    assert losses[1].item() == pytest.approx(math.log(2), rel=1e-6)


def test_what_no_pair_names_does_not_leak_into_the_gradient() -> None:
    values = torch.tensor([[1.0], [0.0], [math.nan]], requires_grad=True)
    summed_losses(Scores(values, torch.zeros(3)), {0: torch.tensor([[0, 1]])})[0].backward()
    assert values.grad is not None
    assert values.grad[:2].isfinite().all()
    assert values.grad[2].item() == 0
