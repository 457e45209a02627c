"""HPD v2's JSON files as our tables."""

from pathlib import Path
from typing import Any

import pytest
from published import hpdv2, picture, read_back, rejects, told_pairs

from visionprefer.errors import InputError
from visionprefer.importing import import_dataset

IMAGES = {f"train/{name}.jpg": picture(name) for name in "abc"} | {f"test/{name}.jpg": picture(name) for name in "defg"}


def choice(prompt: Any, *paths: str, labels: Any = (1, 0)) -> dict[str, Any]:
    return {"prompt": prompt, "image_path": list(paths), "human_preference": labels, "user_hash": "u"}


def ranking(prompt: str, paths: list[str], rank: list[Any]) -> dict[str, Any]:
    return {"prompt": prompt, "image_path": paths, "rank": rank, "raw_annotations": [{"rank": rank, "user_hash": "u"}]}


def test_choices_are_pairs_and_a_ranking_is_all_of_its_pairs(tmp_path: Path) -> None:
    train = [
        choice("a cat", "a.jpg", "b.jpg"),
        {"prompt": "a cat", "file_path": ["train/c.jpg", "a.jpg"], "human_preference": [0, 1]},
        choice("a cat", "a.jpg", "b.jpg", labels=(0, 1)),  # somebody else saw it the other way
    ]
    test = [ranking("an owl", ["d.jpg", "e.jpg", "f.jpg"], [2, 1, 2])]
    folder = hpdv2(tmp_path / "theirs", train, test, IMAGES)
    found = import_dataset("hpdv2", str(folder), str(tmp_path / "ours"))
    assert found == (4, 0, 2, 6, 6, 1)
    assert told_pairs(tmp_path / "ours") == [
        ("held_out", "an owl", "test/d.jpg", "test/e.jpg", 0.0),
        ("held_out", "an owl", "test/d.jpg", "test/f.jpg", 0.5),
        ("held_out", "an owl", "test/e.jpg", "test/f.jpg", 1.0),
        ("train", "a cat", "train/a.jpg", "train/b.jpg", 0.0),
        ("train", "a cat", "train/a.jpg", "train/b.jpg", 1.0),
        ("train", "a cat", "train/c.jpg", "train/a.jpg", 0.0),
    ]
    tables = read_back(tmp_path / "ours")
    ranked = [row for row in tables["preferences"] if row["split"] == "held_out"]
    assert [(row["score_0"], row["score_1"], row["margin"]) for row in ranked] == [
        (-2, -1, 1),
        (-2, -2, 0),
        (-1, -2, 1),
    ]
    assert {row["source"]: row["image"]["bytes"] for row in tables["images"]} == {
        name: data for name, data in IMAGES.items() if name != "test/g.jpg"
    }
    assert {row["model"] for row in tables["images"]} == {None}


def test_what_does_not_fit_is_a_reject_with_its_reason(tmp_path: Path) -> None:
    bad: list[tuple[Any, str]] = [
        ("no object", "The entry is no object: 'no object'."),
        (choice(None, "a.jpg", "b.jpg"), "The prompt is null."),
        (choice(7, "a.jpg", "b.jpg"), "The prompt is no text: 7."),
        ({"prompt": "a cat", "image_path": ["a.jpg", "b.jpg"]}, "No label: it has no image_path, or neither"),
        (choice("a cat", "a.jpg", "b.jpg", "c.jpg"), "3 images, and human_preference has 2 values."),
        (choice("a cat", "a.jpg", labels=[1]), "One image alone"),
        (choice("a cat", "a.jpg", "b.jpg", labels=[1, 1]), "The labels do not sum to 1: human_preference is [1, 1]."),
        (choice("a cat", "a.jpg", "b.jpg", labels=[2, -1]), "Unknown labels: human_preference is [2, -1]"),
        (choice("a cat", "a.jpg", "b.jpg", "c.jpg", labels=[1, 0, 0]), "Unknown labels: human_preference is [1, 0, 0]"),
        (ranking("a cat", ["a.jpg", "b.jpg"], [1, None]), "A rank is no number: rank is [1, None]."),
        (choice("a cat", "a.jpg", "gone.jpg"), "The image is missing: there is no file train/gone.jpg."),
        (choice("a cat", "a.jpg", "x" * 400 + ".jpg"), "The image is missing: there is no file train/xxx"),
        (choice("a cat", "a.jpg", "half \ud800.jpg"), "The name of its image is 'half \\ud800.jpg'."),
        (choice("a cat", "a.jpg", "../../secret.jpg"), "'../../secret.jpg' is outside the folder of the dataset."),
        (choice("a cat", "a.jpg", "broken.jpg"), "The image cannot be used: not an image"),
        (choice("a cat", "a.jpg", "a.jpg"), "It compares an image with itself."),
    ]
    (tmp_path / "secret.jpg").write_bytes(picture("secret"))
    images = IMAGES | {"train/broken.jpg": b"no picture"}
    train = [choice("a cat", "a.jpg", "b.jpg"), *(entry for entry, _ in bad)]
    folder = hpdv2(tmp_path / "theirs", train, [], images)
    found = import_dataset("hpdv2", str(folder), str(tmp_path / "ours"))
    assert (found.kept, found.rejected, found.images) == (1, len(bad), 2)
    reasons = rejects(tmp_path / "ours")
    assert list(reasons) == [f"train.json#{row}" for row in range(1, len(train))]
    for reason, (_, beginning) in zip(reasons.values(), bad, strict=True):
        assert reason.startswith(beginning)


def test_one_split_is_taken_alone_and_no_other_is_looked_at(tmp_path: Path) -> None:
    test = [ranking("an owl", ["d.jpg", "e.jpg"], [1, 2])]
    folder = hpdv2(tmp_path / "theirs", [], test, IMAGES)
    (folder / "train.json").write_text("[{")
    assert import_dataset("hpdv2", str(folder), str(tmp_path / "ours"), splits=["test"]).kept == 1
    with pytest.raises(InputError, match=r"train.json: not whole: .*Fetch it again"):
        import_dataset("hpdv2", str(folder), str(tmp_path / "both"))
    (folder / "train.json").write_text("{}")
    with pytest.raises(InputError, match=r"train.json: not a JSON list"):
        import_dataset("hpdv2", str(folder), str(tmp_path / "third"))


def test_archives_that_are_not_unpacked_are_told(tmp_path: Path) -> None:
    folder = hpdv2(tmp_path / "theirs", [choice("a cat", "a.jpg", "b.jpg")], [], IMAGES, packed=True)
    with pytest.raises(InputError, match=r"images are packed. Write: tar -xf train.tar.gz in that folder"):
        import_dataset("hpdv2", str(folder), str(tmp_path / "ours"))
