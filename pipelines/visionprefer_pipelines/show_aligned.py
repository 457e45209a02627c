"""An image model that was taught, in the terminal."""

import json

from rich.console import Console

from visionprefer.align.card import METHODS, course
from visionprefer.statistics.tables import Table as TextTable
from visionprefer.store import Store
from visionprefer_pipelines.show import print_tables


def show_aligned(out: str, seconds: float, console: Console) -> None:
    """Print how an image model learnt, where it is, and what to do with it."""
    record = json.loads(Store(out).read("training.json"))
    about = record["trained_on"]
    print_tables([TextTable(METHODS[about["method"]][0], *course(record))], console)
    lora = about["recipe"]["lora_rank"]
    what = f"The LoRA weights for {about['model']} are" if lora else "The pipeline is"
    console.print(f"{seconds:.0f} s. {what} in {out}, with a card that says how to load {'them' if lora else 'it'}")
    console.print(
        "Next: a recipe that names this folder beside the model before, as blocks-evaluation does, then\n"
        "  visionprefer run RECIPE --out DIR\n"
        "  visionprefer evaluate DIR"
    )
