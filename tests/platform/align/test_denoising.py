"""A step back is that of diffusers' DDIM, scored as it was drawn; noisy latents have the answer that is predicted."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from visionprefer.align.denoising import noised, step

SHAPE = (4, 4, 8, 8)


def scheduler(prediction_type: str = "epsilon", **settings: object) -> DDIMScheduler:
    """Stable Diffusion's, with its timesteps for 10 steps."""
    of_sd = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    settings = of_sd | {"clip_sample": False, "set_alpha_to_one": False, "prediction_type": prediction_type} | settings
    made = DDIMScheduler(**settings)
    made.set_timesteps(10)
    return made


def normal(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("eta", [1.0, 0.3])
def test_it_is_the_step_of_diffusers_at_every_timestep_and_they_may_be_mixed(prediction_type: str, eta: float) -> None:
    ddim = scheduler(prediction_type)
    latents, prediction = normal(0), normal(1)
    for timesteps in ddim.timesteps.unfold(0, 4, 2):
        drawn = step(ddim, prediction, timesteps, latents, generator=torch.Generator().manual_seed(2), eta=eta)
        noise = normal(2)
        for index, timestep in enumerate(timesteps):
            one = slice(index, index + 1)
            wanted = ddim.step(prediction[one], timestep, latents[one], eta=eta, variance_noise=noise[one])
            assert torch.allclose(drawn.sample_BCHW[one], wanted.prev_sample, atol=1e-5)
            assert drawn.sigma_B[index].item() == pytest.approx(
                eta * ddim._get_variance(timestep, timestep - 100).item() ** 0.5, rel=1e-4
            )


def test_what_was_drawn_has_the_same_probability_when_it_is_scored() -> None:
    ddim = scheduler()
    latents, prediction, timesteps = normal(0), normal(1), ddim.timesteps[2:6]
    drawn = step(ddim, prediction, timesteps, latents, generator=torch.Generator().manual_seed(3))
    scored = step(ddim, prediction, timesteps, latents, drawn.sample_BCHW)
    assert torch.equal(scored.log_prob_B, drawn.log_prob_B)
    assert torch.equal(scored.sample_BCHW, drawn.sample_BCHW)
    other = step(ddim, prediction + 3, timesteps, latents, drawn.sample_BCHW)
    assert (other.log_prob_B < drawn.log_prob_B).all()


def test_the_probability_is_that_of_a_normal_by_numbers_worked_by_hand() -> None:
    # Two steps of training, one at a time: ᾱ are 0.9 and 0.9 · 0.8 = 0.72.
    ddim = DDIMScheduler(2, trained_betas=[0.1, 0.2], clip_sample=False, set_alpha_to_one=False)
    ddim.set_timesteps(2)
    latents, prediction = torch.full((1, 1, 1, 2), 1.0), torch.full((1, 1, 1, 2), 0.5)
    variance = (0.1 / 0.28) * (1 - 0.72 / 0.9)
    clean = (1 - math.sqrt(0.28) * 0.5) / math.sqrt(0.72)
    mean = math.sqrt(0.9) * clean + math.sqrt(1 - 0.9 - variance) * 0.5
    previous = torch.tensor([[[[mean, mean + 2 * math.sqrt(variance)]]]])
    at_the_mean = -0.5 * math.log(2 * math.pi * variance)
    found = step(ddim, prediction, torch.tensor([1]), latents, previous)
    assert found.log_prob_B.item() == pytest.approx((at_the_mean + at_the_mean - 2) / 2, rel=1e-4)
    assert found.sigma_B.item() == pytest.approx(math.sqrt(variance), rel=1e-5)


@pytest.mark.parametrize("settings", [{"steps_offset": 0}, {"steps_offset": 0, "set_alpha_to_one": True}])
def test_a_last_step_without_noise_is_no_choice_and_spoils_no_gradient(settings: dict[str, object]) -> None:
    ddim = scheduler(**settings)
    assert ddim.timesteps[-1] == 0
    timesteps = ddim.timesteps[[0, -1, -1, 3]]
    prediction = normal(1).requires_grad_()
    found = step(ddim, prediction, timesteps, normal(0), generator=torch.Generator().manual_seed(0))
    assert (found.sigma_B == 0).tolist() == [False, True, True, False]
    assert (found.log_prob_B == 0).tolist() == [False, True, True, False]
    step(ddim, prediction, timesteps, normal(0), found.sample_BCHW).log_prob_B.sum().backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
    assert [part.abs().sum().item() > 0 for part in prediction.grad] == [True, False, False, True]


def test_a_gradient_makes_what_was_drawn_likelier() -> None:
    ddim, timesteps = scheduler(), torch.tensor([501] * 4)
    prediction = normal(1).requires_grad_()
    drawn = step(ddim, prediction, timesteps, normal(0), generator=torch.Generator().manual_seed(0))
    assert not drawn.sample_BCHW.requires_grad
    drawn.log_prob_B.sum().backward()
    assert prediction.grad is not None
    likelier = step(ddim, prediction + 1e-2 * prediction.grad, timesteps, normal(0), drawn.sample_BCHW)
    assert (likelier.log_prob_B > drawn.log_prob_B).all()


def test_each_sample_may_have_its_own_generator_and_then_does_not_depend_on_the_others() -> None:
    ddim, timesteps = scheduler(), torch.tensor([501] * 4)
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    together = step(ddim, normal(1), timesteps, normal(0), generator=generators).sample_BCHW
    third = slice(2, 3)
    alone = step(
        ddim, normal(1)[third], timesteps[third], normal(0)[third], generator=[torch.Generator().manual_seed(2)]
    )
    assert torch.equal(alone.sample_BCHW, together[third])


@pytest.mark.parametrize("settings", [{"clip_sample": True}, {"thresholding": True}])
def test_a_scheduler_that_clips_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"set both to false in scheduler_config\.json"):
        step(scheduler(**settings), normal(0), torch.tensor([501] * 4), normal(1))


def test_the_right_answer_is_the_noise_or_the_velocity() -> None:
    latents, noise, timesteps = normal(0), normal(1), torch.tensor([0, 10, 500, 999])
    for prediction_type in ("epsilon", "v_prediction"):
        ddpm = DDPMScheduler(prediction_type=prediction_type)
        alpha = ddpm.alphas_cumprod[timesteps].reshape(-1, 1, 1, 1)
        noisy, target = noised(ddpm, latents, noise, timesteps)
        assert torch.allclose(noisy, alpha.sqrt() * latents + (1 - alpha).sqrt() * noise, atol=1e-6)
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        assert torch.allclose(target, noise if prediction_type == "epsilon" else velocity, atol=1e-6)


@pytest.mark.parametrize("does", [noised, step])
def test_a_model_that_predicts_the_sample_is_refused(does: object) -> None:
    ddim, timesteps = scheduler("sample"), torch.tensor([501] * 4)
    with pytest.raises(ValueError, match="prediction_type is 'sample'"):
        if does is noised:
            noised(ddim, normal(0), normal(1), timesteps)
        else:
            step(ddim, normal(0), timesteps, normal(1))
