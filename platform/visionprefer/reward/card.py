"""The card of a trained VP-Score."""

from pathlib import Path
from typing import Any

import jinja2

from visionprefer.reward.vpscore import VPScore

TEMPLATES = Path(__file__).parent.parent / "templates"


def best_epoch(record: dict[str, Any]) -> dict[str, Any]:
    """The epoch with the smallest validation loss of the first score: the one that was kept."""
    score = record["trained_on"]["recipe"]["scores"][0]
    return min(record["history"], key=lambda epoch: epoch["loss"][score])


def write_card(folder: Path, record: dict[str, Any], name: str) -> None:
    """Write README.md into a model's folder.

    Args:
        folder: of the model.
        record: what `training.json` holds: history, seconds, trained_on.
        name: of the folder where it will be.
    """
    about = record["trained_on"]
    recipe = about["recipe"]
    training = {
        "backbone": about["backbone"],
        "run": about["run"],
        "training table": about["training_table"],
        "time": f"{record['seconds'] / 60:.1f} min",
        "digest": VPScore.from_pretrained(folder).digest,
        **{key: recipe[key] for key in ("seed", "epochs", "batch_size", "learning_rate", "frozen", "dropout", "dtype")},
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701
    )
    text = environment.get_template("reward_card.md").render(
        name=recipe["name"],
        folder=name,
        scores=recipe["scores"],
        aspects=recipe["scores"][1:],
        training=training,
        history=record["history"],
        best=best_epoch(record)["epoch"],
        validation=f"{recipe['validation']:.0%}",
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
