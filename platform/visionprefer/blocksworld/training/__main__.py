"""Train the built-in models again.

    python -m visionprefer.blocksworld.training NAME
    python -m visionprefer.blocksworld.training blocks-llava --begin FOLDER_OF_A_JUDGE --folder ANOTHER_FOLDER

NAME is blocks-vae, blocks-sd, blocks-sd-small, blocks-llava, blocks-clip or blocks-blip. Each goes on from its last
checkpoint if it was interrupted. The image models use the autoencoder of the same folder, the judge its image models,
CLIP and BLIP its judge, or those of the package if there are none.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from visionprefer.blocksworld.training import Name
from visionprefer.models import BUILTIN_MODELS


def train(
    name: Annotated[Name, typer.Argument(help="Which model.")],
    folder: Annotated[Path, typer.Option(help="Where models and checkpoints go.")] = Path("runs/blocksworld"),
    seed: Annotated[int, typer.Option(help="Of the weights, the scenes and the batches.")] = 0,
    begin: Annotated[Path | None, typer.Option(help="Folder of a trained judge, for another round of it.")] = None,
) -> None:
    """Train one of the built-in models from random weights, or go on training it."""
    if begin and name != "blocks-llava":
        raise typer.BadParameter(f"--begin is for blocks-llava, and this is {name}: leave it out")

    import torch

    from visionprefer.blocksworld.training import blip, clip, image_model, judge, vae
    from visionprefer.blocksworld.training.data import DEVICE

    def trained(name: str) -> Path:
        own = folder / name / "model"
        return own if own.exists() else BUILTIN_MODELS / name

    match name:
        case "blocks-vae":
            vae.train(folder / name, seed)
        case "blocks-llava":
            judge.train(folder / name, [trained(each) for each in image_model.SIZES], seed, begin)
        case "blocks-clip":
            clip.train(folder / name, trained("blocks-llava"), seed)
        case "blocks-blip":
            blip.train(folder / name, trained("blocks-llava"), seed)
        case _:
            image_model.train(folder / name, trained("blocks-vae"), image_model.SIZES[name], seed)
    threads = torch.get_num_threads()
    hardware = torch.cuda.get_device_name() if DEVICE == "cuda" else f"a CPU (threads: {threads})"
    seconds = sum(float(journal.read_text().split()[-1]) for journal in (folder / name).rglob("journal.tsv"))
    if begin and (before := begin.parent / "training.json").exists():
        seconds += 60 * json.loads(before.read_text())["minutes"]
    record = {"seed": seed, "hardware": hardware, "minutes": round(seconds / 60)}
    (folder / name / "training.json").write_text(json.dumps(record) + "\n")
    typer.echo(f"The model is in {folder / name / 'model'}")


if __name__ == "__main__":
    typer.run(train)
