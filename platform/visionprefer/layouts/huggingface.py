"""A Hugging Face dataset: the run's own tables, each a config, split by prompt into train and held_out."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from visionprefer.layouts import SPLITS, Layout
from visionprefer.layouts.parts import Parts
from visionprefer.run_folder import RunFolder
from visionprefer.schema import IMAGES, JUDGEMENTS, PREFERENCES, TRAINING
from visionprefer.store import Store

SCHEMAS = {"training": TRAINING, "preferences": PREFERENCES, "judgements": JUDGEMENTS, "images": IMAGES}
FOLDERS = tuple(SCHEMAS)
FILES: tuple[str, ...] = ()


def write(run: RunFolder, store: Store) -> Layout:
    """Write `TABLE/SPLIT-00000.parquet` and so on; images in them are structs that `datasets` decodes."""
    files: list[str] = []
    configs: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    held_out = run.prompts().filter(pc.field("split") == "held_out")["prompt_id"].combine_chunks()
    for config, schema in SCHEMAS.items():
        parts = {split: Parts(store, f"{config}/{split}", config in ("images", "training")) for split in SPLITS}
        for table in _tables(run, config):
            table = table.replace_schema_metadata(schema.metadata)
            is_held_out = pc.is_in(table["prompt_id"], held_out)
            parts["train"].add(table.filter(pc.invert(is_held_out)))
            parts["held_out"].add(table.filter(is_held_out))
        data_files = []
        for split, part in parts.items():
            files += part.close()
            counts[f"{config}, {split}"] = part.rows
            if part.rows:
                data_files.append({"split": split, "path": f"{config}/{split}-*.parquet"})
        if data_files:
            configs.append({"config_name": config, "data_files": data_files})
    return Layout(files, configs, counts, LOADING, NOTES)


def _tables(run: RunFolder, config: str) -> Iterator[pa.Table]:
    if config == "images":
        for images in run.images.tables():
            # Where an image lay before is an absolute path on the machine that took it in.
            names = pc.replace_substring_regex(images["source"], r"^.*[/\\]", "")
            yield images.set_column(images.schema.get_field_index("source"), "source", names)
    elif config == "training":
        for file in run.training_files():
            yield from run.store.row_groups(file)
    else:
        yield from run.store.row_groups(f"{config}.parquet")


LOADING = """from datasets import load_dataset

training = load_dataset("FOLDER", "training", split="train")
training[0]["images"][0].show()  # images decode by themselves
scores = load_dataset("FOLDER", "judgements", split="train").to_pandas()"""

NOTES = [
    "`training`: one row per prompt with its images and its pairs; `chosen` and `rejected` are positions in `images`. "
    "Ties are left out of the pairs, and prompts that have ties only are left out.",
    "`preferences`: one row per pair of images of a prompt and aspect; `overall` is the weighted sum of the aspects. "
    "`label` is 1 where image 0 is preferred, 0 where image 1 is, and 0.5 for a tie.",
    "`judgements`: one row per image and scorer, with score and rationale. Join it to `images` on `image_id`.",
    "`images`: one row per image, with the image and everything that made it (model, guidance scale, steps, seed).",
    "Prompts of the split `held_out` are set apart for measuring, by hash. Do not train on them.",
]
