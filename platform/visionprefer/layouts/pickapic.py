"""Pick-a-Pic v2's columns: one row per pair of images, both with their bytes.

Columns as in yuvalkirstain/pickapic_v2, but for `__index_level_0__`, which pandas left there. Its readers (PickScore,
Diffusion-DPO) open `jpg_0` and `jpg_1` with PIL, which tells the format from the bytes: ours are as they were stored.

References: Pick-a-Pic (arXiv 2305.01569).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionprefer.layouts import SPLITS, Layout
from visionprefer.layouts.parts import Parts
from visionprefer.pictures import Pictures
from visionprefer.run_folder import RunFolder
from visionprefer.schema import OVERALL
from visionprefer.store import Store

FOLDERS = ("data",)
FILES: tuple[str, ...] = ()
PROMPTS_AT_ONCE = 16  # whose images are in memory together
NAMES = {"train": "train", "held_out": "test"}  # Pick-a-Pic's names of our splits

PICKAPIC = pa.schema(
    [
        ("are_different", pa.bool_()),
        ("best_image_uid", pa.string()),
        ("caption", pa.string()),
        ("created_at", pa.timestamp("ns")),
        ("has_label", pa.bool_()),
        ("image_0_uid", pa.string()),
        ("image_0_url", pa.string()),
        ("image_1_uid", pa.string()),
        ("image_1_url", pa.string()),
        ("jpg_0", pa.binary()),
        ("jpg_1", pa.binary()),
        ("label_0", pa.float64()),
        ("label_1", pa.float64()),
        ("model_0", pa.string()),
        ("model_1", pa.string()),
        ("ranking_id", pa.int64()),
        ("user_id", pa.int64()),
        ("num_example_per_prompt", pa.int64()),
    ]
)


def write(run: RunFolder, store: Store) -> Layout:
    """Write `data/train-00000.parquet`, `data/test-00000.parquet` and so on."""
    pairs = run.preferences().filter(pc.field("aspect") == OVERALL)
    pictures = Pictures(run)
    files: list[str] = []
    data_files, counts, ranking_id = [], {}, 0
    for split in SPLITS:
        part = Parts(store, f"data/{NAMES[split]}", with_bytes=True)
        for prompts in _batches(run, pairs.filter(pc.field("split") == split)):
            compared = (pair[name] for pairs in prompts for pair in pairs for name in ("image_id_0", "image_id_1"))
            images = {row["image_id"]: row for row in pictures.rows(dict.fromkeys(compared))}
            for of_prompt in prompts:
                rows = [_row(pair, images, len(of_prompt), ranking_id + i) for i, pair in enumerate(of_prompt)]
                part.add(pa.Table.from_pylist(rows, schema=PICKAPIC))
                ranking_id += len(rows)
        files += part.close()
        counts[f"pairs, {NAMES[split]}"] = part.rows
        if part.rows:
            data_files.append({"split": NAMES[split], "path": f"data/{NAMES[split]}-*.parquet"})
    counts["ties among them"] = pc.sum(pc.equal(pairs["label"], 0.5)).as_py() or 0
    return Layout(files, [{"config_name": "default", "data_files": data_files}], counts, LOADING, NOTES)


def _batches(run: RunFolder, pairs: pa.Table) -> Iterator[list[list[dict[str, Any]]]]:
    """The pairs of each prompt, some prompts at a time, in the order of the prompts, as the images lie on disk."""
    ids, starts, counts = np.unique(pairs["prompt_id"].to_numpy(), return_index=True, return_counts=True)
    place = {prompt_id: (int(start), int(count)) for prompt_id, start, count in zip(ids, starts, counts, strict=True)}
    present = [place[prompt_id] for prompt_id in run.prompts()["prompt_id"].to_pylist() if prompt_id in place]
    for i in range(0, len(present), PROMPTS_AT_ONCE):
        yield [pairs.slice(*span).to_pylist() for span in present[i : i + PROMPTS_AT_ONCE]]


def _row(pair: dict[str, Any], images: dict[str, Any], pairs_of_prompt: int, ranking_id: int) -> dict[str, Any]:
    first, second = images[pair["image_id_0"]], images[pair["image_id_1"]]
    best = {1.0: first["image_id"], 0.0: second["image_id"]}.get(pair["label"], "tie")
    return {
        "are_different": first["image"]["bytes"] != second["image"]["bytes"],
        "best_image_uid": best,
        "caption": pair["prompt"],
        "created_at": None,
        "has_label": True,
        "image_0_uid": first["image_id"],
        "image_0_url": "",
        "image_1_uid": second["image_id"],
        "image_1_url": "",
        "jpg_0": first["image"]["bytes"],
        "jpg_1": second["image"]["bytes"],
        "label_0": pair["label"],
        "label_1": 1 - pair["label"],
        "model_0": first["model"],
        "model_1": second["model"],
        "ranking_id": ranking_id,
        "user_id": 0,
        "num_example_per_prompt": pairs_of_prompt,
    }


LOADING = """import io
from datasets import load_dataset
from PIL import Image

pairs = load_dataset("FOLDER", split="train")
preferred = Image.open(io.BytesIO(pairs[0]["jpg_0" if pairs[0]["label_0"] == 1 else "jpg_1"]))"""

NOTES = [
    "The columns are those of [Pick-a-Pic v2](https://huggingface.co/datasets/yuvalkirstain/pickapic_v2), one row per "
    "pair of images, labelled by the overall score. Our held-out prompts are the split `test`.",
    "`jpg_0` and `jpg_1` hold the image files as they were stored, mostly PNG or WebP and not JPEG: open them with "
    "PIL, which tells the format from the bytes.",
    "Ties are rows with `label_0` = `label_1` = 0.5 and `best_image_uid` = `tie`. Train on those where `label_0` is 0 "
    "or 1, as Diffusion-DPO does.",
    "No people ranked these: `user_id` is 0, `created_at` and the URLs are empty. `ranking_id` counts the rows, "
    "`num_example_per_prompt` those of the same prompt.",
]
