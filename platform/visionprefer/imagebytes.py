"""The bytes of images that exist already: where they lie, read, and checked."""

import io
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from visionprefer.buckets import file_size, open_file
from visionprefer.errors import InputError

STORED = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp"}  # MPO: a JPEG with further pictures behind
LARGEST = 64_000_000  # pixels
LARGEST_FILE = 64 * 2**20  # bytes


def read_sources(sources: Iterable[str | None]) -> dict[str | None, bytes | InputError]:
    """The bytes of each source (a file, or "FILE.parquet#ROW"), or why there are none.

    Each Parquet file is opened once, and of it only the image column of the row groups that hold wanted rows is read.
    """
    found: dict[str | None, bytes | InputError] = {}
    rows: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for source in sources:
        table = re.fullmatch(r"(.+\.parquet)#(0|[1-9][0-9]{0,17})", source or "", re.DOTALL | re.IGNORECASE)
        if table and source:
            rows[table[1]][int(table[2])] = source
        else:
            found[source] = _read_file(source)
    for file, wanted in rows.items():
        cells = _read_rows(file, sorted(wanted))
        found |= {source: cells[row] for row, source in wanted.items()}
    return found


def _read_file(source: str | None) -> bytes | InputError:
    if source is None:
        return InputError("the plan names no source for this image")
    try:
        size = file_size(source)
        if size > LARGEST_FILE:
            return _too_large(size)
        with open_file(source) as file:
            return bytes(file.read())
    except OSError as error:
        return InputError(f"the file cannot be read: {error}")


def _read_rows(file: str, wanted: list[int]) -> dict[int, bytes | InputError]:
    try:
        with open_file(file) as opened, pq.ParquetFile(opened) as table:
            column = image_column(table.schema_arrow, file)
            cells: dict[int, bytes | InputError] = {}
            first = 0
            for group in range(table.num_row_groups):
                count = table.metadata.row_group(group).num_rows
                rows = [row for row in wanted if first <= row < first + count]
                if rows:
                    held = table.read_row_group(group, [column]).column(column)
                    cells |= {row: _cell(held[row - first].as_py()) for row in rows}
                first += count
    except (OSError, pa.ArrowException, InputError) as error:
        return dict.fromkeys(wanted, InputError(f"the file cannot be read: {error}"))
    return dict.fromkeys(wanted, InputError(f"the file has no such row: it has {first}")) | cells


def _cell(cell: Any) -> bytes | InputError:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        return InputError("the row holds no bytes of an image")
    return data if len(data) <= LARGEST_FILE else _too_large(len(data))


def _too_large(size: int) -> InputError:
    return InputError(f"{size / 2**20:.0f} MiB: at most {LARGEST_FILE // 2**20} MiB are taken; scale it down")


def check_image(data: bytes) -> tuple[int, int, str]:
    """Decode an image to see whether that can be done.

    Returns:
        Width and height in pixels, and the suffix for its format.

    Raises:
        InputError: as `open_image` does.
    """
    image = open_image(data)
    return *image.size, STORED[str(image.format)]


def open_image(data: bytes, most: int = LARGEST) -> Image.Image:
    """Decode an image, the first picture of an animated one.

    Raises:
        InputError: if it is no PNG, JPEG or WebP, has more pixels than `most` (told before decoding), or is broken.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"])
            width, height = image.size
            if width * height > most:
                limit = f"at most {most / 1e6:.0f} megapixels are taken; scale it down"
                raise InputError(f"too large: {width} × {height} pixels; {limit}")
            image.load()
            return image
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"not an image that can be read ({len(data)} bytes): write a PNG, JPEG or WebP file") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"too large: {error}") from error
    # What Pillow's decoders raise on broken files is not told anywhere, and a broken file must not stop the others.
    except Exception as error:
        raise InputError(f"broken image: {type(error).__name__}: {error}") from error


def image_column(schema: pa.Schema, file: str) -> str:
    """The column that holds images: the one called "image", or else the only one of bytes. Raises InputError."""
    held = [field.name for field in schema if _is_bytes(field.type)]
    named = [name for name in held if name.casefold() == "image"]
    if not named and len(held) != 1:
        listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise InputError(f"{file}: which column holds the images? Call it 'image'. The columns are: {listed}")
    return (named or held)[0]


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_bytes(field.type) for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
