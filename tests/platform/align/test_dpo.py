"""The loss of Diffusion-DPO is the published one, in both its published forms, by numbers worked by hand."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid, mse_loss

from visionprefer.align.dpo import denoising_error, diffusion_dpo_loss


def test_the_error_is_a_mean_and_not_a_sum() -> None:
    prediction, target = torch.zeros(2, 2, 1, 2), torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]], [[[2.0, 2.0]]] * 2])
    assert denoising_error(prediction, target).tolist() == [2.5, 4.0]
    assert denoising_error(prediction.half(), target.half()).dtype == torch.float32


def test_two_equal_policies_have_the_logarithm_of_2() -> None:
    chosen, rejected = torch.tensor([0.3, 0.1]), torch.tensor([0.2, 0.7])
    found = diffusion_dpo_loss(chosen, rejected, chosen, rejected, beta=5000)
    assert found.loss.item() == pytest.approx(math.log(2), rel=1e-7)
    assert found.margin_P.tolist() == [0, 0]


def test_numbers_worked_by_hand_with_the_mean_outside() -> None:
    # inside: -0.5 · 10 · [(0.1 - 0.3) - (0.2 - 0.2)] = 1, and -5 · [(0.5 - 0.1) - (0.3 - 0.3)] = -2
    found = diffusion_dpo_loss(
        torch.tensor([0.1, 0.5]), torch.tensor([0.3, 0.1]), torch.tensor([0.2, 0.3]), torch.tensor([0.2, 0.3]), 10
    )
    assert found.margin_P.tolist() == pytest.approx([1, -2], rel=1e-6)
    by_hand = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2
    assert found.loss.item() == pytest.approx(by_hand, rel=1e-6)


def test_both_published_forms_are_equal() -> None:
    generator = torch.Generator().manual_seed(0)
    policy, reference, target = (0.05 * torch.randn(6, 4, 8, 8, generator=generator) for _ in range(3))
    # as released: chosen images first, rejected ones after, in one batch; β of 5000 with a factor ½
    errors, of_reference = denoising_error(policy, target), denoising_error(reference, target)
    found = diffusion_dpo_loss(*errors.chunk(2), *of_reference.chunk(2), beta=5000)
    # as diffusers' research script: no ½, and so half the β
    model, ref = (mse_loss(one, target, reduction="none").mean(dim=[1, 2, 3]).chunk(2) for one in (policy, reference))
    inside = -2500 * ((model[0] - model[1]) - (ref[0] - ref[1]))
    assert torch.allclose(found.loss, -logsigmoid(inside).mean(), rtol=1e-5)
    assert torch.allclose(found.margin_P, inside, rtol=1e-4, atol=1e-5)


def test_the_gradient_draws_towards_the_chosen_image_and_leaves_the_reference_alone() -> None:
    errors = [torch.tensor([0.2]).requires_grad_() for _ in range(4)]
    diffusion_dpo_loss(*errors, beta=4).loss.backward()
    chosen, rejected, *references = errors
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.item() == pytest.approx(1)  # 0.5 · 4 · σ(0)
    assert rejected.grad.item() == pytest.approx(-1)
    assert [reference.grad for reference in references] == [None, None]
