"""The card of an image model that learnt from preferences."""

from pathlib import Path
from typing import Any

import jinja2
import yaml

from visionprefer.models import BUILTIN, is_builtin
from visionprefer.schema import OVERALL

TEMPLATES = Path(__file__).parent.parent / "templates"
_SETTINGS = ("seed", "lora_rank", "beta", "steps", "batch_size", "learning_rate", "pairs", "min_margin", "ema", "dtype")


def write_card(folder: Path, record: dict[str, Any]) -> None:
    """Write README.md into a model's folder.

    Args:
        folder: of LoRA weights or a whole pipeline.
        record: what `training.json` holds: history, seconds, trained_on.
    """
    about = record["trained_on"]
    recipe = about["recipe"]
    base = recipe["model"] if is_builtin(recipe["model"]) else about["model"]
    is_lora = recipe["lora_rank"] is not None
    header = {"library_name": "diffusers", "tags": ["visionprefer", "text-to-image", "dpo", *["lora"] * is_lora]}
    if about["model_revision"]:
        header["base_model"] = about["model"]
    training = {
        "begun from": f"{base} (digest {about['model_digest']})",
        "run": about["run"],
        "training table": about["training_table"],
        "time": f"{record['seconds'] / 60:.1f} min",
        **{name: recipe[name] for name in _SETTINGS if recipe[name] is not None},
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
        judged="the judges" if recipe["aspect"] == OVERALL else f"the judges, for {recipe['aspect']},",
        folder=folder.name,
        training=training,
        history=record["history"],
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
