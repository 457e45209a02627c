"""The card of a trained image model says where it comes from and how it is loaded."""

from pathlib import Path

from visionprefer.align.card import write_card
from visionprefer.align.ppo_recipe import PPORecipe
from visionprefer.align.recipe import DPORecipe, FinetuneRecipe


def card(folder: Path, **changes: object) -> str:
    recipe = DPORecipe.model_validate({"name": "better", "model": "owner/sd", **changes})
    about = {"method": "dpo", "run": "somebody's", "training_table": "d1", "model": "owner/sd", "model_digest": "abc"}
    row = {"step": 2000, "loss": 0.61, "right": 0.7, "margin": 0.25}
    record = {"history": [row], "seconds": 90.0}
    trained_on = about | {"model_revision": "c0ffee", "recipe": recipe.model_dump(mode="json")}
    write_card(folder, record | {"trained_on": trained_on}, folder.name)
    return (folder / "README.md").read_text()


def test_lora_weights_are_loaded_beside_their_base(tmp_path: Path) -> None:
    text = card(tmp_path, lora_rank=8)
    assert text.startswith("---\nlibrary_name: diffusers\n")
    assert "base_model: owner/sd" in text
    assert f'pipeline.load_lora_weights("{tmp_path.name}")' in text
    assert "| 2,000 | 0.6100 | 70.0% | +0.250 |" in text
    assert "| time | 1.5 min |" in text


def test_a_model_that_learnt_from_rewards_says_which(tmp_path: Path) -> None:
    recipe = PPORecipe.model_validate({"name": "valued", "model": "owner/sd", "prompts": {"path": "p"}})
    about = {"method": "ppo", "prompts": "p1", "rewards": {"overall": "d2"}, "model": "owner/sd", "model_digest": "abc"}
    rows = [
        {"rollout": n + 1, "reward": n / 50 or None, "failed": 0, "clipped": 0.5, "distance": 0.0} for n in range(50)
    ]
    trained_on = about | {"model_revision": None, "recipe": recipe.model_dump(mode="json")}
    write_card(tmp_path, {"history": rows, "seconds": 90.0, "trained_on": trained_on}, "model")
    text = (tmp_path / "README.md").read_text()
    assert "PPO (as DDPO, arXiv 2305.13301)" in text
    assert "| reward, overall | digest d2 |" in text
    assert "| 50 | +0.980 | 0 | 50.0% | 0.00e+00 |" in text
    assert text.count("| 50.0% |") == 17  # every third rollout


def test_a_whole_pipeline_is_loaded_alone(tmp_path: Path) -> None:
    text = card(tmp_path)
    assert f'DiffusionPipeline.from_pretrained("{tmp_path.name}")' in text
    assert "lora" not in text


def test_a_built_in_base_says_where_it_lies(tmp_path: Path) -> None:
    assert 'BUILTIN_MODELS / "blocks-sd"' in card(tmp_path, model="builtin:blocks-sd", lora_rank=8)


def test_a_fine_tuned_model_says_what_was_good_enough(tmp_path: Path) -> None:
    recipe = FinetuneRecipe(name="tuned", model="owner/sd", min_scores={"aesthetic": 4})
    about = {"method": "finetune", "run": "r", "prompts": 3, "images": "i", "model": "owner/sd", "model_digest": "abc"}
    trained_on = about | {"model_revision": None, "recipe": recipe.model_dump(mode="json")}
    write_card(tmp_path, {"history": [{"step": 1, "loss": 0.5}], "seconds": 90.0, "trained_on": trained_on}, "model")
    text = (tmp_path / "README.md").read_text()
    assert "| min_scores | {'aesthetic': 4.0} |" in text
    assert "| seed | 0 |" in text
    assert "what was judged best" in text
    assert "| 1 | 0.5000 |" in text


def test_a_control_is_told_as_one(tmp_path: Path) -> None:
    assert "shuffled" not in card(tmp_path)
    assert "| shuffled_labels | True |" in card(tmp_path, shuffled_labels=True)
