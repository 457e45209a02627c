"""The training table holds each image once, and pairs that point to the right ones."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from visionprefer import training_table
from visionprefer.errors import InputError
from visionprefer.run_folder import RunFolder
from visionprefer.schema import IMAGES, PREFERENCES, PROMPTS, TRAINING
from visionprefer.shards import Shards
from visionprefer.store import Store
from visionprefer.training_table import check_weights, reweighted, write_training

PROMPT_COUNT = 60
CANDIDATES = 4


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256, 100)).save(buffer, "png")
    return buffer.getvalue()


def prompt_id(place: int) -> str:
    """Ids that sort otherwise than prompts.parquet does, as hashes do."""
    return f"p{place * 7 % PROMPT_COUNT:02}"


def name(place: int, candidate: int) -> str:
    return f"{prompt_id(place)}-{candidate}"


# In the order in which they lie in shards: candidates of one number are made alike.
BYTES = {name(p, c): png(p * CANDIDATES + c) for c in range(CANDIDATES) for p in range(PROMPT_COUNT)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    rows = [{"prompt_id": prompt_id(p), "prompt": f"prompt {p}"} for p in range(PROMPT_COUNT)]
    store.write_table("prompts.parquet", filled(rows, PROMPTS))
    return store


@pytest.fixture
def images(store: Store) -> Shards:
    """Shards of 20 images: a group for each candidate number, within each in the order of prompts."""
    shards = Shards(store, "images", IMAGES)
    rows = [
        {"image_id": image, "prompt_id": image[:3], "image": {"bytes": data, "path": f"{image}.png"}}
        for image, data in BYTES.items()
    ]
    for unit, start in enumerate(range(0, len(rows), 20)):
        shards.add(shards.write(f"{unit:06}", 0, filled(rows[start : start + 20], IMAGES), IMAGES.empty_table()))
    return shards


def filled(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([dict.fromkeys(schema.names) | row for row in rows], schema=schema)


def preferred(*rows: tuple[str, str, str, str, float]) -> pa.Table:
    """Of (prompt, image 0, image 1, aspect, label)."""
    names = ["prompt_id", "image_id_0", "image_id_1", "aspect", "label"]
    known = {"prompt": "a cat", "split": "train", "margin": 2.0}
    return filled([dict(zip(names, row, strict=True)) | known for row in rows], PREFERENCES)


def all_preferred() -> pa.Table:
    """Of each prompt images 0 to 3, each better than the next, in the order of prompts.parquet."""
    ids = [prompt_id(p) for p in range(PROMPT_COUNT)]
    return preferred(*[(p, f"{p}-{c}", f"{p}-{c + 1}", "aesthetic", 1) for p in ids for c in range(CANDIDATES - 1)])


def written(store: Store, preferences: pa.Table, images: Shards, digest: str = "d", **settings: int) -> list[str]:
    """The training table's files, of these preferences."""
    store.write_table("preferences.parquet", preferences)
    return write_training(store, images, digest, **settings)


def rows_of(store: Store, names: list[str]) -> list[dict[str, Any]]:
    return [row for name in names for row in store.read_table(name).to_pylist()]


def test_pairs_point_to_chosen_and_rejected_and_ties_are_left_out(store: Store, images: Shards) -> None:
    preferences = preferred(
        ("p07", "p07-0", "p07-1", "aesthetic", 0),
        ("p07", "p07-0", "p07-3", "aesthetic", 1),
        ("p07", "p07-1", "p07-2", "fidelity", 0.5),
        ("p14", "p14-0", "p14-1", "aesthetic", 0.5),
    )
    [file] = written(store, preferences, images)
    schema = store.read_table(file).schema
    assert (schema.names, schema.metadata) == (TRAINING.names, TRAINING.metadata)
    [row] = rows_of(store, [file])
    assert row["image_ids"] == ["p07-0", "p07-1", "p07-3", "p07-2"]  # p07-2 has a tie only, and is there
    assert [image["bytes"] for image in row["images"]] == [BYTES[image] for image in row["image_ids"]]
    assert row["images"][0]["path"] == "p07-0.png"
    assert row["pairs"] == [
        {"aspect": "aesthetic", "chosen": 1, "rejected": 0, "margin": 2.0},
        {"aspect": "aesthetic", "chosen": 0, "rejected": 2, "margin": 2.0},
    ]
    assert (row["prompt_id"], row["prompt"], row["split"]) == ("p07", "a cat", "train")


def test_every_image_is_there_once_with_the_bytes_of_its_shard(store: Store, images: Shards) -> None:
    files = written(store, all_preferred(), images, images_per_file=50)
    rows = rows_of(store, files)
    assert [row["prompt_id"] for row in rows] == [prompt_id(p) for p in range(PROMPT_COUNT)]
    image_ids = [image_id for row in rows for image_id in row["image_ids"]]
    assert len(image_ids) == len(BYTES)
    assert dict(zip(image_ids, [image["bytes"] for row in rows for image in row["images"]], strict=True)) == BYTES


def test_files_are_closed_when_they_are_full(store: Store, images: Shards) -> None:
    files = written(store, all_preferred(), images, images_per_file=50)
    assert files == [f"training/d-{number:05}.parquet" for number in range(5)]
    assert [store.footer(file)[0] for file in files] == [13, 13, 13, 13, 8]  # 13 prompts are 52 images
    with pq.ParquetFile(f"{store.root}/{files[0]}") as file:
        assert [file.metadata.row_group(i).num_rows for i in range(4)] == [4, 4, 4, 1]
        assert {file.metadata.row_group(0).column(i).compression for i in range(5)} == {"ZSTD"}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """The row groups that are read while the test runs."""
    read, original = [], Store.read_row_group

    def counted(self: Store, name: str, group: int) -> pa.Table:
        read.append((name, group))
        return original(self, name, group)

    monkeypatch.setattr(Store, "read_row_group", counted)
    yield read


def test_each_row_group_is_read_once(store: Store, images: Shards, read: list[tuple[str, int]]) -> None:
    written(store, all_preferred(), images, images_per_file=4)
    assert len(read) == len(set(read)) == 2 * 12  # 12 shards of 20 rows, 16 a row group


def test_few_held_images_give_the_same_table(
    store: Store, images: Shards, read: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = rows_of(store, written(store, all_preferred(), images))
    read.clear()
    monkeypatch.setattr(training_table, "HELD", 8)
    assert rows_of(store, written(store, all_preferred(), images)) == expected
    assert len(read) > len(set(read))  # what was let go was read again


def test_images_of_a_later_generation_are_found(store: Store, images: Shards) -> None:
    late = filled([{"image_id": "late", "prompt_id": "p07", "image": {"bytes": png(9999), "path": "late.png"}}], IMAGES)
    images.add(images.write("000000", 1, late, IMAGES.empty_table()))
    [row] = rows_of(store, written(store, preferred(("p07", "p07-3", "late", "aesthetic", 0)), images))
    assert [image["bytes"] for image in row["images"]] == [BYTES["p07-3"], png(9999)]


def test_the_same_table_is_the_same_bytes_and_another_replaces_it(store: Store, images: Shards) -> None:
    first = written(store, all_preferred(), images, "old", images_per_file=50)
    before = [store.read(file) for file in first]
    assert written(store, all_preferred(), images, "old", images_per_file=50) == first
    assert [store.read(file) for file in first] == before
    second = written(store, all_preferred(), images, "new", images_per_file=200)
    assert [f"training/{file}" for file in store.sizes("training")] == second
    assert len(second) == 2


def test_the_old_table_stays_until_the_new_one_is_whole(
    store: Store, images: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = written(store, all_preferred(), images, "old")

    def disk_full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "write_table", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_training(store, images, "new")
    assert [f"training/{file}" for file in store.sizes("training")] == old


def test_no_choice_is_no_file(store: Store, images: Shards) -> None:
    written(store, all_preferred(), images, "old")
    assert written(store, PREFERENCES.empty_table(), images, "new") == []
    assert written(store, preferred(("p07", "p07-0", "p07-1", "fidelity", 0.5)), images, "new") == []
    assert store.sizes("training") == {}


def test_datasets_reads_it_back_with_decoded_images(
    store: Store, images: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import load_dataset

    files = written(store, all_preferred(), images, images_per_file=100)
    assert len(files) == 3
    paths = [f"{store.root}/{file}" for file in files]
    dataset = load_dataset("parquet", data_files=paths, split="train", cache_dir=str(tmp_path / "cache"))
    assert dataset.num_rows == PROMPT_COUNT
    row = dataset[1]
    assert row["image_ids"] == [name(1, candidate) for candidate in range(CANDIDATES)]
    assert [image.getpixel((0, 0)) for image in row["images"]] == [(4, 0, 100), (5, 0, 100), (6, 0, 100), (7, 0, 100)]
    assert row["pairs"][2] == {"aspect": "aesthetic", "chosen": 2, "rejected": 3, "margin": 2.0}


def test_the_overall_preference_follows_from_the_aspects_by_other_weights() -> None:
    """Aspects differ by 2 for one image and by 1 for the other: worked by hand."""
    pairs = [
        {"aspect": "overall", "chosen": 0, "rejected": 1, "margin": 9.0},
        {"aspect": "prompt_following", "chosen": 0, "rejected": 1, "margin": 2.0},
        {"aspect": "fidelity", "chosen": 1, "rejected": 0, "margin": 1.0},
        {"aspect": "fidelity", "chosen": 1, "rejected": 2, "margin": 3.0},
    ]

    def overall(weights: dict[str, float]) -> list[tuple[int, int, float]]:
        found = reweighted(pairs, weights)
        assert [pair for pair in found if pair["aspect"] != "overall"] == pairs[1:]
        return [(p["chosen"], p["rejected"], p["margin"]) for p in found if p["aspect"] == "overall"]

    assert overall({"prompt_following": 1, "fidelity": 1}) == [(0, 1, 0.5), (1, 2, 1.5)]
    assert overall({"prompt_following": 1, "fidelity": 2}) == [(1, 2, 2.0)]  # 2 against 2: neither is better
    assert overall({"fidelity": 5}) == [(1, 0, 1.0), (1, 2, 3.0)]
    assert overall({"harmlessness": 1}) == []


# By aesthetic the second image is better than the first by 2, which is no pair of best_worst: third against fourth is.
OPPOSED = {"a": ("train", [[5, 2, 3, 3], [4, 4, 3, 3], [4, 5, 3, 3], [4, 1, 3, 3]])}
EQUAL = {"prompt_following": 0.5, "aesthetic": 0.5}


def test_other_weights_say_what_the_run_would_say_with_them(make_run: Callable[..., RunFolder]) -> None:
    def pairs(**preferences: Any) -> list[dict[str, Any]]:
        run = make_run(OPPOSED, preferences=preferences)
        return run.store.read_table(*run.training_files()).to_pylist()[0]["pairs"]

    def overall(pairs: list[dict[str, Any]]) -> list[tuple[int, int, float]]:
        return sorted((p["chosen"], p["rejected"], p["margin"]) for p in pairs if p["aspect"] == "overall")

    assert overall(reweighted(pairs(), EQUAL)) == overall(pairs(weights=EQUAL))
    assert (1, 0, 0.5) in overall(pairs(weights=EQUAL))
    assert (0, 1, 0.5) in overall(reweighted(pairs(pairs="best_worst"), EQUAL))  # which is why they are refused there


def test_other_weights_are_refused_where_not_every_difference_is_a_pair(make_run: Callable[..., RunFolder]) -> None:
    for preferences, told in (
        ({"pairs": "best_worst"}, "preferences.pairs is best_worst"),
        ({"tie_margin": 0.5}, "preferences.tie_margin is 0.5"),
    ):
        run = make_run(OPPOSED, preferences=preferences)
        check_weights(None, run)
        with pytest.raises(
            InputError, match=rf"weights are .*{told}.*leave them out, write them into preferences\.weights"
        ):
            check_weights(EQUAL, run)
    check_weights(EQUAL, make_run(OPPOSED))
