"""Models stand side by side in a picture that shows what each of them drew."""

from pathlib import Path

import numpy as np
from PIL import Image

from visionprefer.blocksworld.side_by_side import FILE, write_side_by_side
from visionprefer.run_folder import RunFolder


def test_what_each_model_drew_is_there(run: RunFolder, tmp_path: Path) -> None:
    models = run.images.table(["model"])["model"].unique().to_pylist()
    write_side_by_side(run, {f"model {model}": model for model in models}, tmp_path)
    with_pictures = np.asarray(Image.open(tmp_path / FILE).convert("RGB"))
    write_side_by_side(run, {"nobody": "nobody"}, tmp_path)
    without = np.asarray(Image.open(tmp_path / FILE).convert("RGB"))
    coloured = [np.ptp(shown.astype(int), axis=2).max() > 0 for shown in (with_pictures, without)]
    assert coloured == [True, False]  # titles are grey
