"""The losses of PPO by numbers worked by hand; what does not count leaves no trace, and what is no number is named."""

import math

import pytest
import torch

from visionprefer.align.ppo import mean_distance, policy_loss

ALL = torch.tensor([True, True, True, True])


def test_it_is_the_clipped_loss_by_numbers_worked_by_hand() -> None:
    ratios, advantages = [1.2, 1.2, 0.8, 0.8], torch.tensor([1.0, -1.0, 2.0, -2.0])
    log_prob = torch.tensor(ratios).log()
    found = policy_loss(log_prob, torch.zeros(4), advantages, ALL, clip_range=0.1)
    # a rise beyond the range is worth no more than 1.1; a wrong one counts in full, and so do falls the other way
    by_hand = (-1.1 + 1.2 - 2 * 0.8 + 2 * 0.9) / 4
    assert found.loss.item() == pytest.approx(by_hand, rel=1e-5)
    assert found.ratio_B.tolist() == pytest.approx(ratios)
    assert found.clipped.item() == 1


def test_before_the_first_update_every_ratio_is_exactly_one_and_the_gradient_is_the_policy_gradient() -> None:
    log_prob = torch.tensor([-1.3, 0.7, 2.0, -0.1]).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 0.5, 3.0])
    found = policy_loss(log_prob, log_prob, advantages, ALL)
    found.loss.backward()
    assert found.ratio_B.tolist() == [1, 1, 1, 1]
    assert found.clipped.item() == 0
    assert log_prob.grad is not None
    assert log_prob.grad.tolist() == pytest.approx((-advantages / 4).tolist())


def test_advantages_are_cut_to_five() -> None:
    found = policy_loss(torch.zeros(4), torch.zeros(4), torch.tensor([7.0, -9.0, 0.0, 1.0]), ALL)
    assert found.loss.item() == pytest.approx(-(5 - 5 + 0 + 1) / 4)


def test_what_does_not_count_has_no_part_in_loss_or_gradient_even_if_it_is_no_number() -> None:
    log_prob = torch.tensor([0.0, math.nan, 0.0, 90.0]).requires_grad_()
    advantages = torch.tensor([1.0, 2.0, math.nan, 1.0])
    counts = torch.tensor([True, False, False, False])
    found = policy_loss(log_prob, torch.zeros(4), advantages, counts)
    assert found.loss.item() == -1
    found.loss.backward()
    assert log_prob.grad is not None
    assert log_prob.grad.tolist() == [-1, 0, 0, 0]
    assert policy_loss(log_prob, torch.zeros(4), advantages, ~ALL).loss.item() == 0


@pytest.mark.parametrize(
    ("log_prob", "advantage", "message"),
    [
        (math.nan, 1.0, r"the ratio of probabilities of samples \[2\] is not finite: \[nan\]"),
        (200.0, 1.0, r"the ratio of probabilities of samples \[2\] is not finite: \[inf\]"),
        (0.0, math.nan, r"the advantage of samples \[2\] is not finite: \[nan\]"),
    ],
)
def test_what_is_no_number_is_named(log_prob: float, advantage: float, message: str) -> None:
    log_probs, advantages = torch.zeros(4), torch.zeros(4)
    log_probs[2], advantages[2] = log_prob, advantage
    with pytest.raises(FloatingPointError, match=message):
        policy_loss(log_probs, torch.zeros(4), advantages, ALL)


def test_the_distance_from_the_reference_is_a_mean_over_what_counts() -> None:
    prediction, reference = torch.zeros(3, 1, 1, 2).requires_grad_(), torch.zeros(3, 1, 1, 2).requires_grad_()
    with torch.no_grad():
        reference[0], reference[1] = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0])
        reference[2] = 100.0
    found = mean_distance(prediction, reference, torch.tensor([True, True, False]))
    assert found.item() == pytest.approx((5 + 4) / 2)
    found.backward()
    assert reference.grad is None
    assert prediction.grad is not None
