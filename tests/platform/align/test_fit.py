"""A policy learns the pairs it is shown, the same however a step is cut, and goes on as if it had never stopped."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from visionprefer.align.encoded import ImageBatch, PairBatch
from visionprefer.align.encoding import Condition, encode_prompts
from visionprefer.align.fit import DPOFit, FinetuneFit
from visionprefer.align.policy import Policy
from visionprefer.align.recipe import DPORecipe, FinetuneRecipe

PROMPTS = ["a red circle", "two blue rings", "a green cross", "a yellow square"]


def fit_of(folder: Path, **settings: Any) -> DPOFit:
    recipe = DPORecipe.model_validate(
        {"name": "r", "model": "m", "lora_rank": 4, "beta": 100, "steps": 12, "learning_rate": 3e-3} | settings
    )
    torch.manual_seed(recipe.seed)
    return DPOFit(Policy(DiffusionPipeline.from_pretrained(folder), recipe.lora_rank), recipe)


def batch_of(fit: DPOFit, rows: slice = slice(None)) -> PairBatch:
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = torch.randn(2, len(PROMPTS), 4, 8, 8, generator=generator)
    condition = encode_prompts(fit.policy.pipeline, PROMPTS, 64, 64)
    condition = Condition._make(part if part is None else part[rows] for part in condition)
    return PairBatch(PROMPTS[rows], chosen[rows], rejected[rows], condition)


def weights_of(fit: DPOFit) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in fit.policy.learnt]


def test_it_moves_towards_what_was_chosen_and_says_how_far(tiny_sd: Path) -> None:
    fit = fit_of(tiny_sd, lora_rank=None, learning_rate=1e-3, warm_up=0, steps=30)
    told = [fit.step([batch_of(fit)], number) for number in range(30)]
    assert told[0]["loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert told[0]["margin"] == told[0]["right"] == 0
    later = {name: sum(one[name] for one in told[-8:]) / 8 for name in told[0]}
    assert later["loss"] < 0.2
    assert later["margin"] > 2
    assert later["right"] > 0.9
    assert 0.1 < later["chosen_error"] < later["rejected_error"] < 10


def test_with_an_sft_weight_the_error_of_chosen_images_falls_further(tiny_sd: Path) -> None:
    """The loss that is told is DPO's alone, so that it begins at log 2 in both."""

    def trained(**settings: Any) -> list[dict[str, float]]:
        fit = fit_of(tiny_sd, lora_rank=None, learning_rate=1e-3, warm_up=0, steps=30, **settings)
        return [fit.step([batch_of(fit)], number) for number in range(30)]

    without, with_it = trained(), trained(sft_weight=1.0)
    assert without[0] == with_it[0]

    def late(told: list[dict[str, float]]) -> float:
        return sum(one["chosen_error"] for one in told[-8:]) / 8

    assert late(with_it) < 0.9 * late(without)


def test_how_a_step_is_cut_does_not_change_what_is_learnt(tiny_sd: Path) -> None:
    whole, cut = fit_of(tiny_sd, warm_up=0), fit_of(tiny_sd, warm_up=0)
    for number in range(3):
        one = whole.step([batch_of(whole)], number)
        three = cut.step([batch_of(cut, slice(0, 1)), batch_of(cut, slice(1, 3)), batch_of(cut, slice(3, 4))], number)
        assert one == pytest.approx(three, rel=1e-3, abs=1e-5)
    for first, second in zip(weights_of(whole), weights_of(cut), strict=True):
        assert torch.allclose(first, second, atol=2e-4)


@pytest.mark.parametrize("settings", [{}, {"ema": 0.5, "schedule": "cosine"}, {"lora_rank": None}])
def test_training_that_goes_on_learns_the_same(tiny_sd: Path, settings: dict[str, Any]) -> None:
    undisturbed, first = fit_of(tiny_sd, **settings), fit_of(tiny_sd, **settings)
    for number in range(6):
        undisturbed.step([batch_of(undisturbed)], number)
    for number in range(3):
        first.step([batch_of(first)], number)
    saved = io.BytesIO()
    torch.save(first.state(), saved)
    saved.seek(0)
    second = fit_of(tiny_sd, **settings)
    second.load(torch.load(saved, weights_only=True))
    for number in range(3, 6):
        second.step([batch_of(second)], number)
    for fit in (undisturbed, second):
        fit.finish()
    for one, other in zip(weights_of(undisturbed), weights_of(second), strict=True):
        assert torch.equal(one, other)


def test_the_moving_average_is_kept_where_one_is_wanted(tiny_sd: Path) -> None:
    fit = fit_of(tiny_sd, ema=0.5, warm_up=0)
    begun = weights_of(fit)
    for number in range(4):
        fit.step([batch_of(fit)], number)
    last = weights_of(fit)
    fit.finish()
    to_kept, to_begun = (
        sum((after - other).square().sum().item() for after, other in zip(last, others, strict=True))
        for others in (weights_of(fit), begun)
    )
    assert 0 < to_kept < to_begun


def test_the_learning_rate_rises_then_stays_or_falls(tiny_sd: Path) -> None:
    rates: dict[str, list[float]] = {}
    for schedule in ("constant_with_warmup", "cosine"):
        fit = fit_of(tiny_sd, schedule=schedule, steps=8, warm_up=0.25, learning_rate=1.0)
        rates[schedule] = [fit.schedule.lr_lambdas[0](number) for number in range(8)]
    assert rates["constant_with_warmup"] == pytest.approx([0, 1 / 2, 1, 1, 1, 1, 1, 1])
    assert rates["cosine"][:3] == pytest.approx([0, 1 / 2, 1])
    assert rates["cosine"][5] == pytest.approx(0.5)


def test_a_loss_that_is_no_number_stops_the_training_and_names_the_step(tiny_sd: Path) -> None:
    fit = fit_of(tiny_sd)
    batch = batch_of(fit)
    with pytest.raises(FloatingPointError, match="step 7: the loss is nan: write a smaller learning_rate"):
        fit.step([batch._replace(chosen_PCHW=batch.chosen_PCHW * math.nan)], 7)


def test_fine_tuning_lowers_the_error_of_the_images_however_a_step_is_cut(tiny_sd: Path) -> None:
    settings = {"name": "r", "model": "m", "steps": 30, "learning_rate": 1e-3, "warm_up": 0}
    recipe = FinetuneRecipe.model_validate(settings)
    whole, cut = (FinetuneFit(Policy(DiffusionPipeline.from_pretrained(tiny_sd)), recipe) for _ in range(2))
    pairs = batch_of(fit_of(tiny_sd))
    batch = ImageBatch(pairs.prompt_ids, pairs.chosen_PCHW, pairs.condition)
    halves = [
        ImageBatch(PROMPTS[rows], batch.images_PCHW[rows], batch.condition.part(rows))
        for rows in (slice(0, 2), slice(2, 4))
    ]
    losses = [whole.step([batch], number)["loss"] for number in range(30)]
    assert [cut.step(halves, number)["loss"] for number in range(3)] == pytest.approx(losses[:3], rel=1e-3)
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5])
