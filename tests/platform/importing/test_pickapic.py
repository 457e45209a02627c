"""Pick-a-Pic's Parquet files as our tables."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from published import pair, pickapic, picture, read_back, rejects, told_pairs

from visionprefer.errors import InputError
from visionprefer.importing import import_dataset
from visionprefer.schema import IMAGES, PREFERENCES

TRAIN = "data/train-00000-of-00001-0123456789abcdef.parquet"
TEST = "data/test-00000-of-00001-0123456789abcdef.parquet"


def test_pairs_ties_and_splits(tmp_path: Path) -> None:
    splits = {
        "train": [pair("a  cat", "x1", "y1", 1.0), pair("a cat", "y1", "x2", 0.5), pair("a dog", "x1", "y3", 0.0)],
        "validation": [pair("an owl", "x4", "y4", 0.0)],
        "test": [pair("a cat", "x5", "y5", 1.0)],
    }
    folder = pickapic(tmp_path / "theirs", splits)
    found = import_dataset("pickapic", str(folder), str(tmp_path / "ours"))
    assert found == (5, 0, 4, 9, 5, 1)

    tables = read_back(tmp_path / "ours")
    validation = TEST.replace("test", "validation")
    assert told_pairs(tmp_path / "ours") == [
        ("held_out", "a cat", f"{TEST}#0", f"{TEST}#0", 1.0),
        ("held_out", "an owl", f"{validation}#0", f"{validation}#0", 0.0),
        ("train", "a cat", f"{TRAIN}#0", f"{TRAIN}#0", 1.0),
        ("train", "a cat", f"{TRAIN}#0", f"{TRAIN}#1", 0.5),
        ("train", "a dog", f"{TRAIN}#2", f"{TRAIN}#2", 0.0),
    ]
    first = next(row for row in tables["preferences"] if row["split"] == "train" and row["label"] == 1)
    assert list(first) == PREFERENCES.names
    assert (first["score_0"], first["score_1"], first["margin"]) == (1.0, 0.0, 1.0)
    # A text of both splits is two prompts; an image is stored once for each prompt of its.
    assert [(row["prompt"], row["split"]) for row in tables["prompts"]] == [
        ("a cat", "train"),
        ("a dog", "train"),
        ("an owl", "held_out"),
        ("a cat", "held_out"),
    ]
    of_cat = [row for row in tables["images"] if (row["prompt"], row["split"]) == ("a cat", "train")]
    assert [(row["candidate"], row["model"], row["image"]["bytes"]) for row in of_cat] == [
        (0, "model-x", picture("x1")),
        (1, "model-y", picture("y1")),
        (2, "model-x", picture("x2")),
    ]
    row = of_cat[0]
    assert list(row) == IMAGES.names
    assert row["image"]["path"] == f"{row['image_id']}.jpg"
    assert (row["width"], row["height"], row["seed"], row["guidance_scale"]) == (24, 16, None, None)
    assert tables["judgements"] == []


def test_what_does_not_fit_is_a_reject_with_its_reason(tmp_path: Path) -> None:
    good, long = pair("a cat", "x1", "y1", 1.0), "a" * 10_001
    rows = [
        good,
        pair(None, "x", "y", 1.0),
        pair(" \n", "x", "y", 1.0),
        pair(long, "x", "y", 1.0),
        pair("a cat", "x2", "y2", 1.0, has_label=False),
        pair("a cat", "x2", "y2", None),
        pair("a cat", "x2", "y2", 1.0, label_1=1.0),
        pair("a cat", "x2", "y2", 0.75),
        pair("a cat", "x2", "y2", 1.0, jpg_1=None),
        pair("a cat", "x2", "y2", 1.0, jpg_0=picture("x2")[:200]),
        pair("a cat", "x2", "y2", 1.0, jpg_0=b"no picture"),
        pair("a cat", "x2", "x2", 1.0),
        pair("a cat", "x2", "y2", 1.0, jpg_0=b"\0" * (64 * 2**20 + 1)),
        pair("a cat", "x2", "y1", 0.0),
    ]
    folder = pickapic(tmp_path / "theirs", {"train": rows})
    found = import_dataset("pickapic", str(folder), str(tmp_path / "ours"))
    assert (found.kept, found.rejected, found.kept + found.rejected) == (2, 12, len(rows))
    reasons = rejects(tmp_path / "ours")
    assert list(reasons) == [f"{TRAIN}#{row}" for row in range(1, 13)]
    expected = [
        "The prompt is null.",
        "The prompt is empty.",
        "The prompt has 10,001 characters; at most 10,000 are taken.",
        "No label: has_label is false.",
        "A label is null: label_0, label_1 is [None, None].",
        "The labels do not sum to 1: label_0, label_1 is [1.0, 1.0].",
        "Unknown labels: label_0, label_1 is [0.75, 0.25], and known are 1 and 0, 0 and 1, 0.5 and 0.5.",
        "The image is missing: jpg_1 is null.",
        "The image cannot be used: broken image",
        "The image cannot be used: not an image that can be read (10 bytes)",
        "It compares an image with itself.",
        "The image is too large: at most 64 MiB are taken.",
    ]
    for reason, beginning in zip(reasons.values(), expected, strict=True):
        assert reason.startswith(beginning)
    # The last row brings x2 and finds y1 stored: nothing of a rejected row was kept.
    assert [row["source"] for row in read_back(tmp_path / "ours")["images"]] == [
        f"{TRAIN}#0",
        f"{TRAIN}#0",
        f"{TRAIN}#13",
    ]


def test_images_without_a_uid_are_told_apart_by_their_bytes(tmp_path: Path) -> None:
    no_uids = {"image_0_uid": None, "image_1_uid": None}
    rows = [pair("a cat", "x1", "y1", 1.0, **no_uids), pair("a cat", "x1", "y2", 1.0, **no_uids)]
    folder = pickapic(tmp_path / "theirs", {"train": rows})
    assert import_dataset("pickapic", str(folder), str(tmp_path / "ours")).images == 3


def test_the_splits_of_one_example_a_prompt_are_taken_if_named(tmp_path: Path) -> None:
    rows = [pair("a cat", "x1", "y1", 1.0), pair("a cat", "x2", "y2", 1.0)]
    folder = str(pickapic(tmp_path / "theirs", {"test": rows, "test_unique": rows[:1]}))
    assert import_dataset("pickapic", folder, str(tmp_path / "all")).kept == 2
    assert import_dataset("pickapic", folder, str(tmp_path / "one"), splits=["test_unique"]).kept == 1
    with pytest.raises(InputError, match="'test_unique': 'test' has its rows too"):
        import_dataset("pickapic", folder, str(tmp_path / "out"), splits=["test", "test_unique"])
    with pytest.raises(InputError, match=r"'dev': Pick-a-Pic has none of this name. Write some of train, validation"):
        import_dataset("pickapic", folder, str(tmp_path / "out"), splits=["dev"])


def test_a_file_of_another_layout_or_a_broken_one_is_told(tmp_path: Path) -> None:
    folder = pickapic(tmp_path / "theirs", {"train": [pair("a cat", "x1", "y1", 1.0)]})
    pq.write_table(pa.table({"caption": ["a cat"]}), folder / TRAIN)
    with pytest.raises(InputError, match="there is no column has_label, jpg_0"):
        import_dataset("pickapic", str(folder), str(tmp_path / "other"))
    (folder / TRAIN).write_bytes(b"PAR1 no PAR1")
    with pytest.raises(InputError, match=r"train-00000.*cannot be read.*Fetch it again"):
        import_dataset("pickapic", str(folder), str(tmp_path / "broken"))
