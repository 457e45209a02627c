"""The card of an image model that learnt from preferences."""

from pathlib import Path
from typing import Any

import jinja2
import yaml

from visionprefer.align.watch import plot
from visionprefer.models import BUILTIN, is_builtin
from visionprefer.schema import OVERALL

TEMPLATES = Path(__file__).parent.parent / "templates"
# By method: its name, the settings that a card tells, and the columns of its history with their formats.
METHODS: dict[str, tuple[str, tuple[str, ...], dict[str, str]]] = {
    "dpo": (
        "Diffusion-DPO (arXiv 2311.12908)",
        (
            *("seed", "lora_rank", "beta", "sft_weight", "steps", "batch_size", "learning_rate"),
            *("pairs", "min_margin", "shuffled_labels", "ema", "dtype"),
        ),
        {"step": "{:,}", "loss": "{:.4f}", "right": "{:.1%}", "margin": "{:+.3f}"},
    ),
    "finetune": (
        "fine-tuning on the best images (as DreamSync, arXiv 2311.17946)",
        ("seed", "lora_rank", "aspect", "min_scores", "steps", "batch_size", "learning_rate", "ema", "dtype"),
        {"step": "{:,}", "loss": "{:.4f}"},
    ),
    "ppo": (
        "PPO",
        (
            *("objective", "seed", "lora_rank", "rewards", "rollouts", "images", "images_per_prompt", "scale_rewards"),
            *("updates", "learning_rate", "ema", "guidance_scale", "num_inference_steps", "timestep_range"),
            *("timestep_fraction", "clip_range", "max_advantage", "kl_weight", "old_kl_weight"),
            *("value_learning_rate", "dtype"),
        ),
        {"rollout": "{:,}", "reward": "{:+.3f}", "failed": "{:,}", "clipped": "{:.1%}", "distance": "{:.2e}"},
    ),
}
OBJECTIVES = {"ddpo": "as DDPO, arXiv 2305.13301", "awm": "by Advantage Weighted Matching, arXiv 2509.25050"}
MOST_ROWS = 20


def course(record: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """How a training went: titles and rows of text, at most MOST_ROWS, the last one among them."""
    formats = METHODS[record["trained_on"]["method"]][2]
    history = record["history"]
    every = -(-len(history) // MOST_ROWS)
    shown = history[(len(history) - 1) % every :: every]
    rows = [["–" if row[name] is None else form.format(row[name]) for name, form in formats.items()] for row in shown]
    return list(formats), rows


def _stopped(record: dict[str, Any]) -> bool:
    rollouts = record["trained_on"]["recipe"].get("rollouts")
    return rollouts is not None and len(record["history"]) < rollouts


def write_card(folder: Path, record: dict[str, Any], name: str) -> None:
    """Write README.md into a model's folder.

    Args:
        folder: of LoRA weights or a whole pipeline.
        record: what `training.json` holds: history, seconds, trained_on.
        name: of the folder where it will be.
    """
    about = record["trained_on"]
    recipe = about["recipe"]
    base = recipe["model"]
    is_lora = recipe["lora_rank"] is not None
    method, settings, _ = METHODS[about["method"]]
    if objective := OBJECTIVES.get(recipe.get("objective")):
        method = f"{method} ({objective})"
    tags = ["visionprefer", "text-to-image", about["method"], *["lora"] * is_lora]
    header = {"library_name": "diffusers", "tags": tags}
    if about["model_revision"]:
        header["base_model"] = about["model"]
    training = {
        "begun from": f"{base} (digest {about['model_digest']})",
        **{name.replace("_", " "): about[name] for name in ("run", "training_table", "prompts") if name in about},
        **{f"reward, {name}": f"digest {digest}" for name, digest in about.get("rewards", {}).items()},
        **({"stopped after": f"{len(record['history'])} rollouts, as other scores fell"} if _stopped(record) else {}),
        "time": f"{record['seconds'] / 60:.1f} min",
        **{name: recipe[name] for name in settings if str(recipe[name]) not in ("None", "False", "{}")},
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701
    )
    text = environment.get_template("aligned_card.md").render(
        header=yaml.safe_dump(header, sort_keys=False),
        name=recipe["name"],
        base=base,
        base_folder=base.removeprefix(BUILTIN),
        is_builtin=is_builtin(base),
        is_lora=is_lora,
        method=about["method"],
        method_name=method,
        aspect=None if recipe.get("aspect", OVERALL) == OVERALL else recipe["aspect"],
        folder=name,
        training=training,
        course=course(record),
        watched=any(row.get("watched") for row in record["history"]),
    )
    if about["method"] == "ppo":
        (folder / "rewards.png").write_bytes(plot(record["history"]))
    (folder / "README.md").write_text(text, encoding="utf-8")
