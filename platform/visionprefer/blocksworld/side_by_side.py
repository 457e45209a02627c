"""What several models drew for the same prompts from the same noise, in one picture."""

import io
import textwrap
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from visionprefer.pictures import Pictures
from visionprefer.run_folder import RunFolder

FILE = "comparison.png"
PROMPTS = 10


def write_side_by_side(run: RunFolder, models: Mapping[str, str], folder: Path) -> None:
    """Write comparison.png: a row for each model, a column for each of the run's first prompts.

    Args:
        run: in which every model drew every prompt.
        models: as the images name them, by the title of the row.
    """
    from matplotlib.figure import Figure

    prompts = run.prompts().slice(0, PROMPTS).select(["prompt_id", "prompt"]).to_pylist()
    columns = {prompt["prompt_id"]: column for column, prompt in enumerate(prompts)}
    rows = {model: row for row, model in enumerate(models.values())}
    wanted = [
        image["image_id"]
        for image in run.images.table(["image_id", "prompt_id", "model"]).to_pylist()
        if image["prompt_id"] in columns and image["model"] in rows
    ]
    figure = Figure(figsize=(1.1 * len(columns), 1.1 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for drawn in Pictures(run).rows(wanted):
        axis = axes[rows[drawn["model"]], columns[drawn["prompt_id"]]]
        axis.imshow(Image.open(io.BytesIO(drawn["image"]["bytes"])))
    for title, row in zip(models, axes, strict=True):
        row[0].set_ylabel(textwrap.fill(title, 14), fontsize=7)
    for prompt, axis in zip(prompts, axes[0], strict=True):
        axis.set_title(textwrap.fill(prompt["prompt"], 20), fontsize=6)
    figure.savefig(folder / FILE, dpi=100)
