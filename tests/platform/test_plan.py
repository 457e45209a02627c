"""What an image is made with is drawn by hash: another file of prompts, another order, the same images."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from visionprefer.existing import ExistingImage
from visionprefer.models import Model
from visionprefer.plan import BLOCKS_PER_FILE, plan_existing, plan_generation, read_block, unit_of_block, write_plan
from visionprefer.recipe import ImageModel, ImageSettings
from visionprefer.schema import PLAN, PROMPTS, content_id
from visionprefer.settings import Range
from visionprefer.store import Store

MODELS = [Model("one", None, None, "digest one"), Model("two", None, None, "digest two")]


def prompts(*texts: str) -> pa.Table:
    rows = [{"prompt_id": content_id("prompt", t), "prompt": t, "split": "train", "source": ""} for t in texts]
    return pa.Table.from_pylist(rows, schema=PROMPTS)


def settings(**changes: object) -> ImageSettings:
    guidance = Range(low=3, high=7, step=2)
    models = [ImageModel(model="one", share=0.75, guidance_scale=guidance), ImageModel(model="two", share=0.25)]
    return ImageSettings(models=models, **changes)  # type: ignore[arg-type]


def by_id(plan: pa.Table) -> dict[str, dict]:
    return {row["image_id"]: {k: v for k, v in row.items() if k != "block"} for row in plan.to_pylist()}


def test_every_candidate_of_every_prompt_is_planned_once() -> None:
    plan = plan_generation(prompts("a", "b", "c"), settings(images_per_prompt=5), MODELS, seed=0).rows
    assert plan.schema == PLAN
    assert Counter((r["prompt"], r["candidate"]) for r in plan.to_pylist()) == Counter(
        (p, c) for p in "abc" for c in range(5)
    )
    assert len(set(plan["image_id"].to_pylist())) == 15


def test_adding_and_reordering_prompts_changes_no_image() -> None:
    few = by_id(plan_generation(prompts("a", "b"), settings(), MODELS, seed=0).rows)
    more = by_id(plan_generation(prompts("c", "b", "d", "a"), settings(), MODELS, seed=0).rows)
    assert few.items() <= more.items()


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 4},
        {"height": 64, "width": 64},
        {"negative_prompt": "x"},
        {"dtype": "float16"},
        {"format": "webp"},
    ],
)
def test_every_setting_that_changes_an_image_changes_its_id(change: dict) -> None:
    before = by_id(plan_generation(prompts("a"), settings(), MODELS, seed=0).rows)
    assert not before.keys() & by_id(plan_generation(prompts("a"), settings(**change), MODELS, seed=0).rows).keys()


def test_seed_and_model_content_change_ids_and_block_size_and_workers_do_not() -> None:
    before = by_id(plan_generation(prompts("a"), settings(), MODELS, seed=0).rows)
    other_weights = [model._replace(digest=model.digest + "!") for model in MODELS]
    assert not before.keys() & by_id(plan_generation(prompts("a"), settings(), MODELS, seed=1).rows).keys()
    assert not before.keys() & by_id(plan_generation(prompts("a"), settings(), other_weights, seed=0).rows).keys()
    assert before == by_id(plan_generation(prompts("a"), settings(block_size=1), MODELS, seed=0).rows)


def test_draws_keep_to_shares_and_values() -> None:
    plan = plan_generation(prompts(*map(str, range(1000))), settings(), MODELS, seed=0).rows.to_pylist()
    shares = Counter(row["model"] for row in plan)
    assert abs(shares["one"] / 4000 - 0.75) < 0.03  # four standard deviations
    guidance = Counter(row["guidance_scale"] for row in plan if row["model"] == "one")
    assert set(guidance) == {3.0, 5.0, 7.0}
    assert min(guidance.values()) > 0.28 * shares["one"]
    assert all(0 <= row["seed"] < 2**63 for row in plan)


def test_only_later_candidates_are_perturbed() -> None:
    plan = plan_generation(prompts("a", "b"), settings(prompt_embedding_noise=0.1), MODELS, seed=0).rows.to_pylist()
    assert {(row["candidate"] == 0, row["prompt_embedding_noise"]) for row in plan} == {(True, 0.0), (False, 0.1)}


def test_blocks_hold_one_model_and_whole_batches() -> None:
    chosen = settings(batch_size=4, block_size=16)
    plan = plan_generation(prompts(*map(str, range(100))), chosen, MODELS, seed=0)
    blocks: dict[int, list] = {}
    for row in plan.rows.to_pylist():
        blocks.setdefault(row["block"], []).append(row)
    assert sorted(blocks) == list(range(len(blocks)))
    assert max(map(len, blocks.values())) <= 16
    assert all(len({row["model"] for row in block}) == 1 for block in blocks.values())
    batches = sum(
        -(-count // 4)
        for block in blocks.values()
        for count in Counter((r["guidance_scale"], r["num_inference_steps"]) for r in block).values()
    )
    assert plan.padding == pytest.approx(1 - 400 / (4 * batches))


def test_a_written_plan_is_read_back_block_by_block(tmp_path: Path) -> None:
    plan = plan_generation(prompts(*map(str, range(70))), settings(batch_size=2, block_size=2), MODELS, seed=0)
    store = Store(tmp_path)
    store.write("plan/00099.parquet", b"left over from a run that was stopped while it planned")
    told = write_plan(store, plan)
    blocks = told["blocks"]
    assert told["rows"] == plan.num_rows == 280
    assert blocks > BLOCKS_PER_FILE
    assert store.names("plan") == [f"{i:05d}.parquet" for i in range(-(-blocks // BLOCKS_PER_FILE))]
    assert pa.concat_tables(read_block(store, unit_of_block(i)) for i in range(blocks)).equals(plan.rows)


def test_images_that_exist_become_candidates_of_their_caption() -> None:

    def plan(root: str) -> list[dict]:
        captions = [("a", "1.png", None), ("b", "2.png", "sd"), ("a", "3.png", None)]
        images = [ExistingImage(caption, f"{root}/{name}", model) for caption, name, model in captions]
        return plan_existing(prompts("a", "b"), images, root, block_size=2).rows.to_pylist()

    here = plan("/here")
    assert [(r["prompt"], r["candidate"], r["source"], r["model"], r["block"]) for r in here] == [
        ("a", 0, "/here/1.png", None, 0),
        ("b", 0, "/here/2.png", "sd", 0),
        ("a", 1, "/here/3.png", None, 1),
    ]
    assert len({row["image_id"] for row in here}) == 3
    assert [r["image_id"] for r in here] == [r["image_id"] for r in plan("/moved")]


def test_a_model_that_is_named_twice_shares_its_batches() -> None:
    twice = ImageSettings(models=[ImageModel(model="one"), ImageModel(model="one")], batch_size=4)
    plan = plan_generation(prompts(*map(str, range(20))), twice, [MODELS[0], MODELS[0]], seed=0)
    assert plan.padding == 0


def test_an_image_of_a_run_keeps_its_id() -> None:
    images = [ExistingImage("a", "/here/0.parquet#0", "sd", "b" * 32)]
    assert plan_existing(prompts("a"), images, "/here", block_size=2).rows["image_id"].to_pylist() == ["b" * 32]


def test_where_models_are_compared_each_makes_every_candidate_from_the_same_noise() -> None:
    models = [ImageModel(model="one"), ImageModel(model="two")]
    compared = ImageSettings(models=models, every_model=True, images_per_prompt=3)
    rows = plan_generation(prompts("a", "b"), compared, MODELS, seed=0).rows.to_pylist()
    assert len({row["image_id"] for row in rows}) == 12
    by_place = {(row["prompt"], row["candidate"]): row for row in rows}
    for prompt in "ab":
        for number in range(3):
            one, two = by_place[prompt, number], by_place[prompt, number + 3]
            assert (one["model"], two["model"]) == ("one", "two")
            assert one["seed"] == two["seed"]
            assert one["guidance_scale"] == two["guidance_scale"]
    assert len({row["seed"] for row in rows}) == 6
