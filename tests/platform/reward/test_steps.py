"""Each training prompt is in one step of every epoch, whoever shares the work, and its pairs stay with its images."""

import io
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from visionprefer.errors import InputError
from visionprefer.random_models import clip_tokenizer
from visionprefer.reward.batches import assembled
from visionprefer.reward.inputs import Inputs, InputSizes
from visionprefer.reward.recipe import RewardRecipe
from visionprefer.reward.steps import Purpose, epochs_of, groups_of, prepared, serves
from visionprefer.schema import TRAINING
from visionprefer.store import Store
from visionprefer.training_table import ROWS_PER_GROUP, Group

RECIPE = RewardRecipe(name="r", backbone="b", scores=("overall", "fidelity"), batch_size=8, validation=0.3)
SIZES = InputSizes(text_length=12, image_size=8, image_mean=(0.5,) * 3, image_std=(0.5,) * 3)


def png(value: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(data, "PNG")
    return data.getvalue()


def training(prompts: int) -> pa.Table:
    """Prompt n has images of red n, n + 1, n + 2; its second is better than its third overall, by n points."""
    rows = [
        {
            "prompt_id": f"p{n}",
            "prompt": f"prompt {n}",
            "split": "held_out" if n % 5 == 0 else "train",
            "image_ids": [f"{n}-{k}" for k in range(3)],
            "images": [{"bytes": png(n + k), "path": None} for k in range(3)],
            "pairs": [
                {"aspect": "overall", "chosen": 1, "rejected": 2, "margin": float(n)},
                {"aspect": "fidelity", "chosen": 2, "rejected": 0, "margin": 1.0},
                {"aspect": "aesthetic", "chosen": 0, "rejected": 1, "margin": 1.0},
            ],
        }
        for n in range(prompts)
    ]
    return pa.Table.from_pylist(rows, schema=TRAINING)


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path)
    store.write_table("training/a.parquet", training(30), ROWS_PER_GROUP)
    return store


def test_every_prompt_serves_one_purpose_and_another_share_keeps_the_first(store: Store) -> None:
    rows = training(30).to_pylist()
    purposes = [[p for p in ("training", "validation", "held_out") if serves(row, p, RECIPE)] for row in rows]
    assert all(len(found) == 1 for found in purposes)
    assert Counter(found[0] for found in purposes)["held_out"] == 6
    half = RECIPE.model_copy(update={"data_fraction": 0.5})
    chosen = {row["prompt_id"] for row in rows if serves(row, "training", half)}
    every = {row["prompt_id"] for row in rows if serves(row, "training", RECIPE)}
    assert 0 < len(chosen) < len(every)
    assert chosen < every
    assert [serves(row, "validation", half) for row in rows] == [serves(row, "validation", RECIPE) for row in rows]


def test_an_epoch_has_each_group_once_and_the_next_one_another_order(store: Store) -> None:
    groups = groups_of(store, ["training/a.parquet"], RECIPE)["training"]
    first, second, *_ = epochs_of(groups, RECIPE)
    assert sorted(group for step in first for group in step) == sorted(groups)
    assert first != second
    assert len(epochs_of(groups, RECIPE)) == RECIPE.epochs
    assert epochs_of(groups, RECIPE)[0] == first


@pytest.mark.parametrize("changes", [{}, {"data_fraction": 0.4}, {"min_margin": 9.5}, {"weights": {"fidelity": 1.0}}])
def test_a_group_counts_as_many_prompts_as_are_learnt_from(store: Store, changes: dict[str, Any]) -> None:
    """Those of another purpose do not count, nor those of which no pair is wanted; they are not decoded either."""
    recipe = RECIPE.model_copy(update={"scores": ("overall",), "validation": 0.4, **changes})
    purposes: tuple[Purpose, ...] = ("training", "validation")
    for purpose in purposes:
        decoded = {
            group: prepared(store.read_row_group(*group), SIZES.image_size, recipe, purpose).num_rows
            for group in (Group("training/a.parquet", number) for number in range(8))
        }
        expected = {group: rows for group, rows in decoded.items() if rows}
        assert groups_of(store, ["training/a.parquet"], recipe)[purpose] == expected
        assert 0 < sum(expected.values()) < 24


def test_steps_have_as_many_prompts_however_few_of_a_group_are_learnt_from() -> None:
    """Of 60 groups with one prompt each 8 make a step, of full ones 2; a group is not divided."""
    for prompts, sizes in ((1, [8] * 7 + [4]), (4, [8] * 30), (3, [9] * 20)):
        groups = {Group("f", number): prompts for number in range(60)}
        for epoch in epochs_of(groups, RECIPE):
            assert [sum(groups[group] for group in step) for step in epoch] == sizes


def test_no_worker_is_without_a_group() -> None:
    groups = {Group("f", number): 4 for number in range(9)}
    assert [len(step) for step in epochs_of(groups, RECIPE)[0]] == [2, 2, 2, 2, 1]
    assert [len(step) for step in epochs_of(groups, shared_by(2))[0]] == [2, 2, 2, 3]
    with pytest.raises(InputError, match=r"workers\.actors is 3, and a step may have .* 2 row groups.*batch_size"):
        epochs_of(groups, shared_by(3))
    with pytest.raises(InputError, match=r"workers\.actors is 50, .* 2 row groups, which are not divided: write 2"):
        epochs_of({Group("f", 0): 1, Group("f", 1): 4}, shared_by(50))


def shared_by(actors: int) -> RewardRecipe:
    return RECIPE.model_copy(update={"workers": RECIPE.workers.model_copy(update={"actors": actors})})


def test_pairs_point_at_their_own_images_and_small_margins_are_left_out() -> None:
    inputs = Inputs(SIZES, clip_tokenizer())
    everything = RECIPE.model_copy(update={"validation": 0.0, "min_margin": 2.5})
    batch = assembled(prepared(training(5).slice(1), SIZES.image_size, everything, "training"), inputs, everything)
    reds = batch.squares[:, 0, 0, 0].tolist()
    assert reds == [n + k for n in (3, 4) for k in range(3)]
    assert batch.input_ids.shape == (6, 12)
    known = [inputs.tokens([f"prompt {n}"])[0][0].tolist() for n in (3, 4) for _ in range(3)]
    assert batch.input_ids.tolist() == known
    assert [(reds[chosen], reds[rejected]) for chosen, rejected in batch.pairs[0].tolist()] == [(4, 5), (5, 6)]
    assert 1 not in batch.pairs  # fidelity's margins are all 1
    fine = everything.model_copy(update={"min_margin": 0.0})
    batch = assembled(prepared(training(5).slice(1), SIZES.image_size, fine, "training"), inputs, fine)
    reds = batch.squares[:, 0, 0, 0].tolist()
    assert reds == [n + k for n in (1, 2, 3, 4) for k in range(3)]
    assert [(reds[chosen], reds[rejected]) for chosen, rejected in batch.pairs[1].tolist()] == [
        (n + 2, n) for n in (1, 2, 3, 4)
    ]
    assert np.unique(batch.squares[:, 1:]).tolist() == [0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"scores": ("overall", "beauty")},
            r"no pair of 'beauty' .*Write some of \['aesthetic', 'fidelity', 'overall'\]",
        ),
        ({"validation": 0.0}, "validation is 0, and the training table has no pair of 'overall' for validation"),
        ({"validation": 1.0}, "validation is 1, and the training table has no pair of 'overall' for training"),
        # Margins of fidelity are 1, those of overall up to 29: neither an epoch nor the last step would tell.
        ({"min_margin": 2.5}, r"'fidelity' that differs by 2\.5 or more.*\['overall'\].*or a smaller min_margin"),
        ({"min_margin": 28.5, "scores": ("overall",), "validation": 0.02}, "28.5 or more for validation.*min_margin"),
        ({"scores": ("fidelity",), "weights": {"aesthetic": 1.0}, "min_margin": 2.0}, "no pair of 'fidelity'"),
    ],
)
def test_a_table_without_what_is_asked_for_is_told(store: Store, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        groups_of(store, ["training/a.parquet"], RECIPE.model_copy(update=changes))


@pytest.mark.parametrize("weights", [{}, {"fidelity": 0}, {"fidelity": 1, "aesthetic": -1}])
def test_weights_weigh_something(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="weights are"):
        RewardRecipe(name="r", backbone="b", weights=weights)
