import io
import json
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from visionprefer.errors import InputError
from visionprefer.existing import Existing, ExistingImage, ImportImages, list_existing, listing_digest
from visionprefer.schema import FAILED_IMAGES, IMAGE, IMAGES, PLAN
from visionprefer.store import Store


def picture(colour: str = "red", kind: str = "PNG", size: tuple[int, int] = (6, 4), mode: str = "RGB") -> bytes:
    sink = io.BytesIO()
    Image.new(mode, size, colour).save(sink, kind)
    return sink.getvalue()


def header_only(width: int, height: int) -> bytes:
    """A PNG that says how large it is, with no pixels behind."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + size + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def put(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def planned(*sources: str | None) -> pa.Table:
    rows = [
        dict.fromkeys(PLAN.names)
        | {"image_id": f"id{number}", "prompt_id": "p", "prompt": "a cat", "split": "train", "candidate": number}
        | {"source": source, "block": 3, "model": "theirs"}
        for number, source in enumerate(sources)
    ]
    return pa.Table.from_pylist(rows, schema=PLAN)


def imported(*sources: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    done, failed = ImportImages()(planned(*sources))
    assert done.schema.equals(IMAGES, check_metadata=True) and failed.schema.equals(FAILED_IMAGES)
    return done.to_pylist(), failed.to_pylist()


def why_not(source: str | None) -> str:
    done, [row] = imported(source)
    assert not done
    return str(row["error"])


# ---- what is there


def test_captions_beside_images_in_folders_within_folders_in_the_order_of_names(tmp_path: Path) -> None:
    files = {"b.png": "", "b.txt": " a cat\n", "a/z.JPG": "", "a/z.txt": "\ufeffa dog", "c.webp": "", "c.txt": "an owl"}
    put(tmp_path, files)
    assert list_existing(str(tmp_path)) == Existing(
        [
            ExistingImage("a dog", str(tmp_path / "a/z.JPG"), None),
            ExistingImage("a cat", str(tmp_path / "b.png"), None),
            ExistingImage("an owl", str(tmp_path / "c.webp"), None),
        ],
        [],
    )


@pytest.mark.parametrize("column", ["text", "prompt", "Caption"])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_captions_in_a_metadata_file_with_the_model_that_made_the_image(tmp_path: Path, kind: str, column: str) -> None:
    rows = [
        {"file_name": "in/a.png", column: "a cat", "model": "sdxl"},
        {"file_name": "b.png", column: "b"},
    ]
    jsonl = "\n".join(json.dumps(row) for row in rows)
    csv = f'file_name,{column},model\nin/a.png,a cat,sdxl\nb.png,"b",\n'
    put(tmp_path, {"in/a.png": "", "b.png": "", f"metadata.{kind}": jsonl if kind == "jsonl" else csv})
    assert list_existing(str(tmp_path)) == Existing(
        [
            ExistingImage("a cat", str(tmp_path / "in/a.png"), "sdxl"),
            ExistingImage("b", str(tmp_path / "b.png"), None),
        ],
        [],
    )


def test_a_metadata_file_speaks_for_its_own_folder_and_leaves_the_rest_to_captions_beside(tmp_path: Path) -> None:
    row = '{"file_name": "a.png", "text": "from metadata"}'
    put(tmp_path, {"x/a.png": "", "x/a.txt": "beside", "x/metadata.jsonl": row, "a.png": "", "a.txt": "a cat"})
    found = list_existing(str(tmp_path))
    assert {image.source: image.prompt for image in found.images} == {
        str(tmp_path / "x/a.png"): "from metadata",
        str(tmp_path / "a.png"): "a cat",
    }


def test_what_has_no_caption_is_told_with_the_reason_and_nothing_is_lost(tmp_path: Path) -> None:
    lines = [
        '{"file_name": "a.png", "text": "a cat"}',
        '{"file_name": "gone.png", "text": "a dog"}',
        '{"file_name": "../outside.png", "text": "an owl"}',
        '{"file_name": "half \\ud800.png", "text": "a bat"}',
        f'{{"file_name": "{"long" * 99}.png", "text": "a bee"}}',
        '{"file_name": "empty.png", "text": " "}',
        '{"file_name": 4, "text": "a cow"}',
        '{"file_name": "a.png", "text": "a cat"}',
        '{"file_name": "a.png", "text": "the same again"}',
        '{"file_name": "model.png", "text": "a fox", "model": 15}',
        "{",
    ]
    inside: dict[str, str | bytes] = dict.fromkeys(
        ("a.png", "empty.png", "model.png", "alone.png", "latin.png", "blank.png"), ""
    )
    captions: dict[str, str | bytes] = {"latin.txt": "caf\xe9".encode("latin-1"), "blank.txt": "\n"}
    folder = put(tmp_path, {"outside.png": "", **{f"in/{name}": data for name, data in (inside | captions).items()}})
    put(folder, {"in/metadata.jsonl": "\n".join(lines), "in/rows.parquet": ""})
    found = list_existing(str(tmp_path / "in"))
    assert [image.prompt for image in found.images] == ["a cat", "the same again"]
    told = {Path(source).name: reason for source, reason in found.rejected}
    assert set(told) == {
        *("gone.png", "outside.png", "empty.png", "metadata.jsonl:7", "a.png", "model.png", "metadata.jsonl:11"),
        *("alone.png", "latin.png", "blank.png", "rows.parquet"),
        *("half \\ud800.png", "long" * 99 + ".png"),
    }
    assert "no such file" in told["gone.png"] and "metadata.jsonl:2" in told["gone.png"]
    assert "no such file in this folder" in told["outside.png"]
    assert told["empty.png"] == told["blank.png"] == "its caption is empty or no text"
    assert told["a.png"] == "named twice"
    assert "write alone.txt beside it" in told["alone.png"]
    assert "latin.txt: byte 3 (0xe9, in line 1) is not UTF-8" in told["latin.png"]
    assert "not a line of JSON" in told["metadata.jsonl:11"]
    assert len(found.images) + len(found.rejected) == len(lines) + 3 + 1


def test_images_of_a_run_keep_their_ids_and_nothing_else_of_it_is_an_image(tmp_path: Path) -> None:
    """Audits find images by their ids: what people preferred in an import is known of those judged anew."""
    ids = ["a" * 32, "b" * 32, "b" * 32, "7"]
    images = pa.table({"image_id": ids, "prompt": ["a cat"] * 4, "prompt_id": list("pppp"), "image": [picture()] * 4})
    put(
        tmp_path, {"manifest.json": '{"format": 1}', "images/nothing.txt": "", "rejected_prompts.parquet": "no Parquet"}
    )
    pq.write_table(images, tmp_path / "images/000000.parquet")
    found = list_existing(str(tmp_path))
    assert [image.image_id for image in found.images] == ids[:2]
    assert [reason for _, reason in found.rejected] == [
        "named twice",
        "its image_id is '7', and a run's are 32 hexadecimal digits",
    ]
    of_a_file = list_existing(str(tmp_path / "images/000000.parquet"))
    assert [image.image_id for image in of_a_file.images] == [None] * 4


def test_a_manifest_of_somebody_elses_makes_no_run_of_a_folder(tmp_path: Path) -> None:
    put(tmp_path, {"manifest.json": '{"name": "an app"}', "images/a.txt": "", "b.png": "", "b.txt": "a cat"})
    assert [image.prompt for image in list_existing(str(tmp_path)).images] == ["a cat"]


def test_images_in_a_bucket_are_found_and_taken_over_as_they_are_on_a_disk(any_bucket: str, tmp_path: Path) -> None:
    red, blue = picture("red"), picture("blue")
    rows = pa.table({"image_id": ["a" * 32], "prompt": ["a cat"], "image": [blue]})
    pq.write_table(rows, tmp_path / "rows.parquet")
    metadata = '{"file_name": "in/b@2.png", "text": "a dog"}\n{"file_name": "in/gone.png", "text": "an owl"}'
    store = Store(f"{any_bucket}/theirs")
    for name, data in {
        "folder/a.png": red,
        "folder/a.txt": b"a cat",
        "folder/in/b@2.png": blue,
        "folder/metadata.jsonl": metadata.encode(),
        "run/manifest.json": b'{"format": 1}',
        "run/images/0.parquet": (tmp_path / "rows.parquet").read_bytes(),
    }.items():
        store.write(name, data)
    folder = list_existing(f"{store.root}/folder/")
    assert [image.prompt for image in folder.images] == ["a dog", "a cat"]
    assert folder.rejected[0][0] == f"{store.root}/folder/in/gone.png"
    run = list_existing(f"{store.root}/run")
    assert run.images == [ExistingImage("a cat", f"{store.root}/run/images/0.parquet#0", None, "a" * 32)]
    assert listing_digest(folder.images, f"{store.root}/folder")
    done, [failed] = imported(*(image.source for image in folder.images + run.images), f"{store.root}/gone.png")
    assert [row["image"]["bytes"] for row in done] == [blue, red, blue]
    assert "gone" in failed["error"]
    with pytest.raises(InputError, match="there is no such file or folder"):
        list_existing(f"{store.root}/nothing")


def test_a_file_name_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    try:
        for name in (b"\xff.png", b"\xff.txt"):
            Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    put(tmp_path, {"a.png": "", "a.txt": "a cat"})
    found = list_existing(str(tmp_path))
    assert [image.prompt for image in found.images] == ["a cat"]
    assert found.rejected == [(f"{tmp_path}/\\udcff.png", "its name or caption is not UTF-8")]


def test_the_digest_of_a_listing_follows_the_pictures_and_not_the_place(tmp_path: Path) -> None:
    def digest(folder: Path) -> str:
        return listing_digest(list_existing(str(folder)).images, str(folder))

    folder = put(tmp_path / "here", {"a.png": "1", "a.txt": "a cat"})
    first = digest(folder)
    folder = folder.rename(tmp_path / "there")
    assert digest(folder) == first
    seen = {first}
    for name, content in {"a.png": "12", "a.txt": "a dog", "b.png": "1", "b.txt": "a cat"}.items():
        seen.add(digest(put(folder, {name: content})))
    assert len(seen) == 4  # a picture without caption is none


def test_the_digest_of_rows_follows_the_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"], "prompt": ["a"]}), tmp_path / "p.parquet")
    path = str(tmp_path / "p.parquet")
    first = listing_digest(list_existing(path).images, path)
    pq.write_table(pa.table({"image": [b"x" * 99], "prompt": ["a"]}), path)
    assert listing_digest(list_existing(path).images, path) != first


def image_columns(data: list[bytes | None]) -> dict[str, pa.Array]:
    rows = [None if item is None else {"bytes": item, "path": None} for item in data]
    return {"hugging face": pa.array(rows, IMAGE), "binary": pa.array(data, pa.binary())}


@pytest.mark.parametrize("kind", ["hugging face", "binary"])
def test_a_parquet_file_gives_its_rows_and_the_stage_takes_their_bytes(tmp_path: Path, kind: str) -> None:
    data = [picture("red"), picture("green", "JPEG"), None, picture("blue", "WEBP")]
    columns = {"image": image_columns(data)[kind], "caption": ["a", None, "c", "d"], "model": ["m", "m", "m", None]}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet", row_group_size=2)
    found = list_existing(str(tmp_path / "p.parquet"))
    name = f"{tmp_path}/p.parquet"
    assert found.images == [
        ExistingImage("a", f"{name}#0", "m"),
        ExistingImage("c", f"{name}#2", "m"),
        ExistingImage("d", f"{name}#3", None),
    ]
    assert found.rejected == [(f"{name}#1", "its caption is empty or no text")]
    done, failed = imported(*(image.source for image in found.images))
    assert [row["image"] for row in done] == [
        {"bytes": data[0], "path": "id0.png"},
        {"bytes": data[3], "path": "id2.webp"},
    ]
    assert [(row["image_id"], row["error"]) for row in failed] == [("id1", "the row holds no bytes of an image")]


def test_a_folder_of_parquet_files_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        pq.write_table(pa.table({"picture": [b"x"], "prompt": [name]}), tmp_path / f"{name}.parquet")
    assert [image.prompt for image in list_existing(str(tmp_path)).images] == ["a", "b"]


@pytest.mark.parametrize(
    ("files", "place", "told"),
    [
        ({}, "gone", "there is no such file or folder"),
        ({}, "", "there is no image. Write"),
        ({"notes.txt": "x"}, "", "there is no image. Write"),
        ({"a.png": "x"}, "a.png", "neither a folder nor a Parquet file"),
        ({"a.png": "x", "b.png": "x"}, "", "no image with a caption. The first, .*a.png: no caption: write a.txt"),
        ({"a.png": "x", "metadata.csv": "name,text\na.png,a cat\n"}, "", "no column 'file_name'.*name, text"),
        (
            {"a.png": "x", "metadata.csv": "file_name,b,c\na.png,a,a\n"},
            "",
            "Call the one with the prompts 'prompt': b, c",
        ),
        ({"a.png": "x", "metadata.jsonl": "{\n"}, "", "metadata.jsonl:1: malformed"),
        ({"p.parquet": "x"}, "", "cannot be read"),
    ],
)
def test_errors_name_the_path_and_what_to_write_instead(
    tmp_path: Path, files: dict[str, str | bytes], place: str, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        list_existing(str(put(tmp_path, files) / place))


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"image": pa.array([], pa.binary()), "prompt": pa.array([], pa.string())}, "there is no image"),
        ({"image": ["a.png"], "prompt": ["a"]}, "which column holds the images.*image .string."),
        ({"left": [b""], "right": [b""], "prompt": ["a"]}, "which column holds the images"),
        ({"image": [b""], "prompt": [3]}, "no column is named prompt or text or caption.*prompt .holds int64."),
    ],
)
def test_a_parquet_file_without_the_columns_is_an_error_that_lists_them(
    tmp_path: Path, columns: dict[str, Any], told: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    with pytest.raises(InputError, match=told):
        list_existing(str(tmp_path / "p.parquet"))


# ---- taking images over


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("MPO", ".jpg")])
def test_bytes_stay_as_they_are_and_the_suffix_follows_the_bytes_not_the_name(
    tmp_path: Path, kind: str, suffix: str
) -> None:
    data = picture("teal", kind, (7, 5))
    put(tmp_path, {"a.png": data})
    [row], failed = imported(str(tmp_path / "a.png"))
    assert not failed
    assert row["image"] == {"bytes": data, "path": f"id0{suffix}"}
    assert (row["width"], row["height"]) == (7, 5)
    assert row["unsafe"] is row["device"] is row["dtype"] is None
    expected = planned(str(tmp_path / "a.png")).drop_columns("block").to_pylist()[0]
    assert {name: row[name] for name in expected} == expected


def test_datasets_decodes_the_images_that_were_taken_over(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    put(tmp_path, {"a.png": picture("red")})
    done, _ = ImportImages()(planned(str(tmp_path / "a.png")))
    pq.write_table(done, tmp_path / "done.parquet")
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "done.parquet"), cache_dir=str(tmp_path / "cache"))
    assert loaded[0]["image"].getpixel((0, 0)) == (255, 0, 0)


def test_a_hash_in_a_file_name_is_no_row(tmp_path: Path) -> None:
    put(tmp_path, {"a.parquet#1.png": picture(), "#2": picture()})
    done, failed = imported(str(tmp_path / "a.parquet#1.png"), str(tmp_path / "#2"))
    assert (len(done), len(failed)) == (2, 0)


def test_every_kind_of_failure_is_a_row_with_its_reason(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "cut.png": picture(size=(64, 64), mode="RGB")[:-30],
            "cut.jpg": picture("red", "JPEG", (200, 200))[:-40],
            "text.png": "not an image",
            "empty.png": "",
            "gif.png": picture("red", "GIF"),
            "broken.parquet": "PAR1 no PAR1",
        },
    )
    pq.write_table(pa.table({"image": [picture()]}), tmp_path / "one.parquet")
    expected = {
        "cut.png": "broken image: .*truncated",
        "cut.jpg": "broken image: .*truncated",
        "text.png": r"not an image that can be read \(12 bytes\)",
        "empty.png": r"not an image that can be read \(0 bytes\)",
        "gif.png": "write a PNG, JPEG or WebP",
        "gone.png": "gone",
        "": "not a file",
        "broken.parquet#0": "cannot be read",
        "gone.parquet#0": "cannot be read.*gone.parquet",
        "one.parquet#1": "no such row: it has 1",
        "one.parquet#" + "9" * 5_000: "cannot be read|gone",
    }
    for name, reason in expected.items():
        with pytest.raises(InputError, match=reason):
            raise InputError(why_not(f"{tmp_path}/{name}"))
    assert why_not(None) == "the plan names no source for this image"


@pytest.mark.parametrize(("width", "height"), [(8_001, 8_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_an_image_too_large_is_told_by_its_size_before_its_pixels_are_decoded(
    tmp_path: Path, width: int, height: int
) -> None:
    put(tmp_path, {"a.png": header_only(width, height)})
    reason = why_not(str(tmp_path / "a.png"))
    assert "too large" in reason
    assert f"{width} × {height}" in reason or str(width * height) in reason


def test_an_image_just_within_the_limit_is_decoded(tmp_path: Path) -> None:
    """The header alone passes the limit, and only then is it found that no pixels follow."""
    put(tmp_path, {"a.png": header_only(8_000, 8_000)})
    assert "broken image" in why_not(str(tmp_path / "a.png"))


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(3 * 2**30)
    assert why_not(str(tmp_path / "a.png")) == "3072 MiB: at most 64 MiB are taken; scale it down"


def test_a_fifo_does_not_hold_up_the_others(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert "not a file" in why_not(str(tmp_path / "a.png"))


def test_a_file_that_may_not_be_read_is_a_failed_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, {"a.png": picture()})

    def refuse(path: Path, mode: str) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert "Permission denied" in why_not(str(tmp_path / "a.png"))


def test_a_parquet_file_is_opened_once_and_only_the_row_groups_wanted_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [picture(colour) for colour in ("red", "green", "blue", "white", "black", "grey")]
    pq.write_table(pa.table({"image": images, "prompt": ["x"] * 6}), tmp_path / "p.parquet", row_group_size=2)
    opened: list[str] = []
    groups: list[int] = []

    class Counted(pq.ParquetFile):  # type: ignore[misc]
        def __init__(self, file: str) -> None:
            opened.append(file)
            super().__init__(file)

        def read_row_group(self, group: int, columns: list[str]) -> pa.Table:
            groups.append(group)
            assert columns == ["image"]
            return super().read_row_group(group, columns)

    monkeypatch.setattr("visionprefer.imagebytes.pq.ParquetFile", Counted)
    done, failed = imported(*(f"{tmp_path}/p.parquet#{row}" for row in (5, 0, 1, 5, 4)))
    assert [row["image"]["bytes"] for row in done] == [images[row] for row in (5, 0, 1, 5, 4)]
    assert (failed, len(opened), groups) == ([], 1, [0, 2])


def test_an_empty_plan_gives_empty_tables() -> None:
    assert imported() == ([], [])


whole = {kind: picture("red", kind, (9, 9)) for kind in ("PNG", "JPEG", "WEBP")}


@given(
    spoilt=st.lists(
        st.tuples(st.sampled_from(sorted(whole)), st.integers(0, 10**6), st.binary(max_size=4), st.booleans()),
        max_size=6,
    )
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_planned_image_comes_out_once_whatever_its_bytes_are(
    tmp_path: Path, spoilt: list[tuple[str, int, bytes, bool]]
) -> None:
    sources = []
    for number, (kind, where, patch, cut) in enumerate(spoilt):
        data = whole[kind]
        at = where % len(data)
        spoilt_data = data[:at] if cut else data[:at] + patch + data[at + len(patch) :]
        (tmp_path / f"{number}.png").write_bytes(spoilt_data)
        sources.append(str(tmp_path / f"{number}.png"))
    done, failed = imported(*sources)
    assert sorted(row["image_id"] for row in done + failed) == sorted(f"id{number}" for number in range(len(spoilt)))
    assert all(row["error"] for row in failed)
    for row in done:
        assert row["image"]["bytes"] == Path(row["source"]).read_bytes()
