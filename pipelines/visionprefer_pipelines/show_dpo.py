"""An image model that learnt from preferences, in the terminal."""

import json
from pathlib import Path

from rich.console import Console

from visionprefer.statistics.tables import Table as TextTable
from visionprefer_pipelines.show import print_tables


def show_dpo(out: Path, seconds: float, console: Console) -> None:
    """Print how an image model learnt, where it is, and what to do with it."""
    record = json.loads((out / "training.json").read_text(encoding="utf-8"))
    about = record["trained_on"]
    titles = ["step", "loss", "right", "margin"]
    rows = [
        [f"{row['step']:,}", f"{row['loss']:.4f}", f"{row['right']:.1%}", f"{row['margin']:+.3f}"]
        for row in record["history"]
    ]
    print_tables([TextTable("Means over the steps since the row above", titles, rows)], console)
    lora = about["recipe"]["lora_rank"]
    what = f"The LoRA weights for {about['model']} are" if lora else "The pipeline is"
    console.print(f"{seconds:.0f} s. {what} in {out}, with a card that says how to load {'them' if lora else 'it'}")
