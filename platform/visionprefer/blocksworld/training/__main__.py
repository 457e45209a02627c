"""Train the built-in models again.

    python -m visionprefer.blocksworld.training NAME

NAME is blocks-vae, blocks-sd, blocks-sd-small, blocks-llava, blocks-clip or blocks-blip. Each goes on from its last
checkpoint if it was interrupted. The image models and the judge use the autoencoder of the same folder or, if there is
none, that of the package.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from visionprefer.models import BUILTIN_MODELS

Name = Literal["blocks-vae", "blocks-sd", "blocks-sd-small", "blocks-llava", "blocks-clip", "blocks-blip"]


def train(
    name: Annotated[Name, typer.Argument(help="Which model.")],
    folder: Annotated[Path, typer.Option(help="Where models and checkpoints go.")] = Path("runs/blocksworld"),
    seed: Annotated[int, typer.Option(help="Of the weights, the scenes and the batches.")] = 0,
) -> None:
    """Train one of the built-in models from random weights, or go on training it."""
    from visionprefer.blocksworld.training import blip, clip, image_model, judge, vae

    own = folder / "blocks-vae" / "model"
    autoencoder = own if own.exists() else BUILTIN_MODELS / "blocks-vae"
    match name:
        case "blocks-vae":
            vae.train(folder / name, seed)
        case "blocks-llava":
            judge.train(folder / name, autoencoder, seed)
        case "blocks-clip":
            clip.train(folder / name, seed)
        case "blocks-blip":
            blip.train(folder / name, seed)
        case _:
            image_model.train(folder / name, autoencoder, image_model.SIZES[name], seed)
    typer.echo(f"The model is in {folder / name / 'model'}")


if __name__ == "__main__":
    typer.run(train)
