"""ImageRewardDB's rows of images as our tables."""

from pathlib import Path

from published import imagerewarddb, picture, rated, read_back, rejects, told_pairs

from visionprefer.importing import import_dataset
from visionprefer.schema import JUDGEMENTS

TRAIN = [
    rated("1", "a cat", "train_1/a", 2, 5, 6, 4),
    rated("1", "a cat", "train_1/b", 1, 7, 6, 7),
    rated("2", "a dog", "train_2/d", 1, 3, 3, 3),
    rated("1", "a cat", "train_2/c", 2, 4, 1, 7),  # of the first prompt, though it stands apart
    rated("2", "a dog", "train_2/e", 2, 1, 2, 3),
]


def test_ranks_and_ratings_are_pairs_and_ratings_are_judgements(tmp_path: Path) -> None:
    splits = {
        "train": TRAIN,
        "validation": [rated("3", "an owl", "validation_1/f", 1, 5, 5, 5)],
        "test": [rated("4", "a cat", "test_1/g", 1, 5, 5, 5), rated("4", "a cat", "test_1/h", 1, 5, 5, 4)],
    }
    folder = imagerewarddb(tmp_path / "theirs", splits, unpacked=["train_2"])
    found = import_dataset("imagerewarddb", str(folder), str(tmp_path / "ours"))
    # Pairs: three of a cat, one of a dog, one held out; each by three aspects.
    assert found == (8, 0, 4, 8, 15, 6)
    one, two, test = "images/train/train_1", "images/train/train_2", "images/test/test_1"
    assert told_pairs(tmp_path / "ours") == [
        ("held_out", "a cat", f"{test}/g.webp", f"{test}/h.webp", 0.5),
        ("train", "a cat", f"{one}/a.webp", f"{one}/b.webp", 0.0),
        ("train", "a cat", f"{one}/a.webp", f"{two}/c.webp", 0.5),
        ("train", "a cat", f"{one}/b.webp", f"{two}/c.webp", 1.0),
        ("train", "a dog", f"{two}/d.webp", f"{two}/e.webp", 1.0),
    ]
    assert told_pairs(tmp_path / "ours", "prompt_following") == [
        ("held_out", "a cat", f"{test}/g.webp", f"{test}/h.webp", 0.5),
        ("train", "a cat", f"{one}/a.webp", f"{one}/b.webp", 0.5),
        ("train", "a cat", f"{one}/a.webp", f"{two}/c.webp", 1.0),
        ("train", "a cat", f"{one}/b.webp", f"{two}/c.webp", 1.0),
        ("train", "a dog", f"{two}/d.webp", f"{two}/e.webp", 1.0),
    ]
    assert [pair[-1] for pair in told_pairs(tmp_path / "ours", "fidelity")] == [1.0, 0.0, 0.0, 0.5, 0.5]
    tables = read_back(tmp_path / "ours")
    image = next(row for row in tables["images"] if row["source"] == f"{one}/b.webp")
    assert image["image"] == {"bytes": picture("b", "WEBP"), "path": f"{image['image_id']}.webp"}
    of_image = [row for row in tables["judgements"] if row["image_id"] == image["image_id"]]
    assert list(of_image[0]) == JUDGEMENTS.names
    assert {row["scorer"]: row["score"] for row in of_image} == {
        "overall_rating": 7,
        "prompt_following": 6,
        "fidelity": 7,
    }
    assert {row["judge"] for row in tables["judgements"]} == {"annotators of ImageRewardDB"}
    assert {row["rank"] for row in tables["judgements"]} == {None}
    overall = next(row for row in tables["preferences"] if row["aspect"] == "overall" and row["label"] == 0)
    assert (overall["score_0"], overall["score_1"], overall["margin"]) == (-2, -1, 1)


def test_a_row_that_does_not_fit_leaves_the_others_of_its_prompt(tmp_path: Path) -> None:
    bad = [
        (rated("1", None, "train_1/b", 1, 5, 5, 5), "The prompt is null."),
        (rated(None, "a cat", "train_1/c", 1, 5, 5, 5), "The prompt_id is null."),
        (rated("1", "a dog", "train_1/d", 1, 5, 5, 5), "Another prompt than in row 0, which has the same prompt_id."),
        (rated("1", "a cat", "train_1/e", None, 5, 5, 5), "Unknown rank: rank is None, and the best has 1."),
        (rated("1", "a cat", "train_1/f", 0, 5, 5, 5), "Unknown rank: rank is 0"),
        (rated("1", "a cat", "train_1/g", 1, 5, 8, 5), "Unknown rating: image_text_alignment_rating is 8"),
        (rated("1", "a cat", "train_1/h", 1, None, 5, 5), "Unknown rating: overall_rating is None"),
        (rated("1", "a cat", "train_1/a", 3, 5, 5, 5), "The same image as in row 0."),
        (rated("1", "a cat", "train_1/gone", 3, 5, 5, 5), "The image is missing: images/train/train_1.zip has no gone"),
        (rated("1", "a cat", "train_9/i", 3, 5, 5, 5), "The image is missing: there is no file images/train/train_9/i"),
        (rated("1", "a cat", "train_8/j", 3, 5, 5, 5), "The image cannot be read from images/train/train_8.zip"),
        (rated("1", "a cat", "train_7/k", 3, 5, 5, 5), "The image cannot be used: not an image"),
    ]
    rows = [rated("1", "a cat", "train_1/a", 2, 5, 5, 5), *(row for row, _ in bad)]
    rows.append(rated("1", "a cat", "train_1/z", 1, 5, 5, 5))
    whole = [row for row in rows if not row["image_path"].endswith("gone.webp")]
    folder = imagerewarddb(tmp_path / "theirs", {"train": whole}, unpacked=["train_7"])
    imagerewarddb(tmp_path / "metadata", {"train": rows})
    (tmp_path / "metadata/metadata-train.parquet").rename(folder / "metadata-train.parquet")
    (folder / "images/train/train_9.zip").unlink()
    (folder / "images/train/train_8.zip").write_bytes(b"PK no archive")
    (folder / "images/train/train_7/k.webp").write_bytes(b"no picture")
    found = import_dataset("imagerewarddb", str(folder), str(tmp_path / "ours"))
    assert (found.kept, found.rejected, found.images) == (2, len(bad), 2)
    reasons = rejects(tmp_path / "ours")
    for row, (_, beginning) in enumerate(bad, 1):
        assert reasons[f"metadata-train.parquet#{row}"].startswith(beginning)
    assert [(pair[-3:]) for pair in told_pairs(tmp_path / "ours")] == [
        ("images/train/train_1/a.webp", "images/train/train_1/z.webp", 0.0)
    ]
