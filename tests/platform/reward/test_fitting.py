"""What is learnt does not depend on how a step is cut, and training that goes on learns what it would have learnt."""

import copy
from pathlib import Path

import pytest
import torch

from visionprefer.reward.batches import Batch
from visionprefer.reward.fitting import Fit, freeze
from visionprefer.reward.recipe import RewardRecipe
from visionprefer.reward.vpscore import VPScore

RECIPE = RewardRecipe(name="r", backbone="b", dropout=False, learning_rate=1e-3, frozen=0, warm_up=0.2)


def prompt(seed: int, model: VPScore) -> Batch:
    """Three images of one prompt: the brighter is better overall, the darker is more harmless."""
    chance = torch.Generator().manual_seed(seed)
    squares = torch.randint(0, 200, (3, 3, 32, 32), generator=chance, dtype=torch.uint8)
    squares += torch.tensor([0, 25, 50], dtype=torch.uint8).view(3, 1, 1, 1)
    ids, mask = model.inputs.tokens([f"prompt {seed}"] * 3)
    return Batch(squares, ids, mask, {0: torch.tensor([[2, 1], [2, 0], [1, 0]]), 4: torch.tensor([[0, 2]])})


def joined(*batches: Batch) -> Batch:
    pairs = {place: torch.cat([b.pairs[place] + 3 * n for n, b in enumerate(batches)]) for place in (0, 4)}
    return Batch(*(torch.cat([batch[part] for batch in batches]) for part in range(3)), pairs)


@pytest.fixture
def model(tiny_blip: Path) -> VPScore:
    return VPScore.from_backbone(str(tiny_blip))


def weights(model: VPScore) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_step_in_parts_is_the_step_at_once(model: VPScore) -> None:
    """By plain descent: Adam's first step is the gradient's sign, which rounding turns where it is nearly 0."""
    with torch.no_grad():
        for parameter in model.heads.parameters():
            parameter.normal_(std=0.1)
    before, changes = weights(model), []
    batches = [prompt(seed, model) for seed in range(4)]
    for parts in ([joined(*batches)], [joined(*batches[:3]), batches[3]]):
        fit = Fit(copy.deepcopy(model), RECIPE, 10)
        fit.optimizer = torch.optim.SGD(fit.learnt, lr=1.0)  # type: ignore[assignment]
        loss = fit.step(parts, 0)
        changes.append((weights(fit.model) - before, loss))
    (at_once, loss), (in_parts, same_loss) = changes
    assert loss == pytest.approx(same_loss, abs=1e-6)
    assert at_once.abs().max() > 1e-3
    assert torch.allclose(at_once, in_parts, atol=1e-6)


def test_a_step_without_a_pair_of_the_first_score_learns_the_others(model: VPScore) -> None:
    fit, before = Fit(model, RECIPE, 10), weights(model)
    some = prompt(0, model)
    losses = fit.step([some._replace(pairs={4: some.pairs[4]})], 0)
    assert losses == {"harmlessness": pytest.approx(0.7, abs=0.1)}
    assert not torch.equal(weights(model), before)
    assert weights(model).isfinite().all()


@pytest.mark.parametrize("parts", [1, 2])
def test_a_gradient_that_is_too_long_is_cut_as_a_whole(model: VPScore, parts: int) -> None:
    """Plain descent with a rate of 1 moves the weights by the gradient; the same direction is kept."""
    moves = {}
    batches = [prompt(seed, model) for seed in range(2)]
    for most in (None, 1e-3, 1e3):
        fit = Fit(copy.deepcopy(model), RECIPE.model_copy(update={"max_grad_norm": most}), 10)
        fit.optimizer = torch.optim.SGD(fit.learnt, lr=1.0)  # type: ignore[assignment]
        before = weights(fit.model)
        fit.step(batches if parts == 2 else [joined(*batches)], 0)
        moves[most] = weights(fit.model) - before
    assert moves[None].norm() > 2e-3
    assert moves[1e-3].norm() == pytest.approx(1e-3, rel=1e-2)
    assert torch.cosine_similarity(moves[None], moves[1e-3], dim=0) > 0.99
    assert torch.equal(moves[None], moves[1e3])


def test_it_learns_and_aspects_may_contradict_the_overall_score(model: VPScore) -> None:
    fit = Fit(model, RECIPE.model_copy(update={"learning_rate": 3e-3}), 60)
    batches = [prompt(seed, model) for seed in range(4)]
    first = fit.step([joined(*batches)], 0)
    for number in range(1, 60):
        last = fit.step([joined(*batches)], number)
    assert set(first) == {"overall", "harmlessness"}
    assert all(last[name] < 0.5 * first[name] for name in first)
    losses, right = fit.validate(iter(batches))
    assert right == {"overall": 1.0, "harmlessness": 1.0}
    assert losses == pytest.approx(last, abs=0.2)


def test_with_dropout_too_going_on_from_a_state_is_as_if_nothing_had_happened(tiny_blip: Path) -> None:
    recipe = RECIPE.model_copy(update={"dropout": True})

    def trained(interrupted: bool) -> tuple[torch.Tensor, dict[str, float]]:
        fit = Fit(VPScore.from_backbone(str(tiny_blip)), recipe, 6)
        for number in range(6):
            if interrupted and number == 3:
                state = copy.deepcopy(fit.state())
                fit = Fit(VPScore.from_backbone(str(tiny_blip), seed=9), recipe, 6)
                fit.load(state)
            loss = fit.step([prompt(number, fit.model)], number)
        return weights(fit.model), loss

    undisturbed, interrupted = trained(False), trained(True)
    assert torch.equal(undisturbed[0], interrupted[0])
    assert undisturbed[1] == interrupted[1]


def test_frozen_layers_stay_and_the_others_move(model: VPScore) -> None:
    freeze(model, 0.5)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    fit = Fit(model, RECIPE, 4)
    for number in range(4):
        fit.step([prompt(number, model)], number)
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert not any(
        ".embeddings." in name or "layers.0." in name or "layer.0." in name for name in moved - _heads(moved)
    )
    assert any("vision_model.encoder.layers.1." in name for name in moved)
    assert any("text_encoder.encoder.layer.1." in name for name in moved)


def _heads(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith("heads.")}


def test_normalised_scores_have_mean_zero_and_deviation_one(model: VPScore) -> None:
    with torch.no_grad():
        for parameter in model.heads.parameters():
            parameter.normal_(std=0.1)
    batches = [prompt(seed, model) for seed in range(5)]
    Fit(model, RECIPE, 1).normalise(iter(batches))
    values = []
    with torch.inference_mode():
        for batch in batches:
            scores = model.eval()(model.inputs.normalised(batch.squares), batch.input_ids, batch.attention_mask)
            values += [[one.score, *one.aspects.values()] for one in model.normalised(scores)]
    found = torch.tensor(values)
    assert torch.allclose(found.mean(dim=0), torch.zeros(5), atol=1e-4)
    assert torch.allclose(found.std(dim=0, correction=0), torch.ones(5), atol=1e-3)


def test_a_loss_that_is_no_number_stops_and_says_what_to_write(model: VPScore) -> None:
    with torch.no_grad():
        next(iter(model.heads.parameters())).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="write a smaller learning_rate"):
        Fit(model, RECIPE, 1).step([prompt(0, model)], 0)
