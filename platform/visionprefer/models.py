"""Which model a name stands for: a folder, here or in a bucket, a hub id or a model that comes with the package,
resolved to a digest before anything expensive runs.
"""

import hashlib
import json
import re
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import httpx

from visionprefer.buckets import brought_here
from visionprefer.errors import InputError, missing_extra
from visionprefer.schema import content_id

LORA_WEIGHTS = "pytorch_lora_weights.safetensors"  # as diffusers names them
WEIGHTS = (".safetensors", ".bin", ".pt", ".onnx", ".msgpack")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
BUILTIN = "builtin:"  # before the name of a model that comes with the package
BUILTIN_MODELS = Path(__file__).parent / "blocksworld" / "models"


class Model(NamedTuple):
    """A model that was found."""

    name: str  # as people write it
    revision: str | None  # commit of a hub id
    variant: str | None
    digest: str  # of the folder's content, or of hub id and commit
    base: "Model | None" = None  # where the folder holds LoRA weights: the model they belong to

    @property
    def location(self) -> str:
        """Folder or hub id, for `from_pretrained`: on a worker, where the package lies there."""
        return self.name if self.revision else str(_folder(self.name))

    @property
    def label(self) -> str:
        """The name in tables: a hub id, or a folder's own name."""
        return self.name if self.revision else PurePosixPath(self.name.removeprefix(BUILTIN)).name


def find_model(
    name: str,
    kind: Literal["diffusers", "transformers"],
    revision: str | None = None,
    variant: str | None = None,
    commit: str | None = None,
) -> Model:
    """Find a model by its name, and check that a folder holds all its parts.

    Args:
        name: folder, local or s3://, gs://, hub id OWNER/NAME, or builtin:NAME. A folder may hold LoRA weights that
            were trained here.
        kind: the library whose `from_pretrained` is to load it.
        revision: branch, tag or commit of a hub id.
        variant: weights variant, such as fp16.
        commit: what the revision stood for before; None: ask the hub.

    Raises:
        InputError: if there is no such folder or hub id, or the folder lacks a part, or LoRA weights their base.
    """
    folder = _folder(name)
    if kind == "diffusers" and (folder / LORA_WEIGHTS).is_file():
        return _lora(name, folder)
    if folder.is_dir():
        _check_folder(folder, kind)
        return Model(name, None, variant, content_id(_folder_digest(folder), variant))
    if is_builtin(name):
        there_are = ", ".join(sorted(f"{BUILTIN}{place.name}" for place in BUILTIN_MODELS.glob("*/")))
        raise InputError(f"model {name!r}: no such model comes with the package. Write one of {there_are}")
    if not HUB_ID.fullmatch(name):
        raise InputError(f"model {name!r}: there is no such folder. Write the path of a model folder, or OWNER/NAME")
    commit = commit or _hub_commit(name, revision)
    return Model(name, commit, variant, content_id(name, commit, variant))


def _lora(name: str, folder: Path) -> Model:
    try:
        about = json.loads((folder / "training.json").read_text(encoding="utf-8"))["trained_on"]
        asked = about["recipe"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"model {str(folder)!r} holds LoRA weights, and no training.json beside them says of which model. Write a "
            "folder that `visionprefer dpo` made, or a whole pipeline"
        ) from error
    base = find_model(asked["model"], "diffusers", asked["revision"], asked["variant"], about["model_revision"])
    if base.digest != about["model_digest"]:
        raise InputError(
            f"model {str(folder)!r} holds LoRA weights for {asked['model']!r}, which is not what it was when they were "
            "trained: train again"
        )
    with (folder / LORA_WEIGHTS).open("rb") as content:
        return Model(
            name, None, None, content_id(hashlib.file_digest(content, "sha256").hexdigest(), base.digest), base
        )


def served_model(name: str, base_url: str | None) -> Model:
    """A model that a server runs under this name. What it is today, only the server knows."""
    return Model(name, None, None, content_id("served", name, base_url))


def is_builtin(name: str) -> bool:
    """Whether a name stands for a model that comes with the package. These know the blocks world and nothing else."""
    return name.startswith(BUILTIN)


def _folder(name: str) -> Path:
    return BUILTIN_MODELS / name.removeprefix(BUILTIN) if is_builtin(name) else brought_here(name)


def _check_folder(folder: Path, kind: str) -> None:
    index = folder / ("model_index.json" if kind == "diffusers" else "config.json")
    wanted = "a diffusers pipeline" if kind == "diffusers" else "a transformers model"
    if not index.is_file():
        raise InputError(f"model {str(folder)!r} is not {wanted}: it has no {index.name}")
    try:
        parts = json.loads(index.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"model {str(folder)!r}: {index.name} is not JSON: {error}") from error
    if kind == "transformers":
        _check_weights(folder, folder)
        return
    for part, origin in parts.items():
        if part.startswith("_") or not isinstance(origin, list) or origin[0] is None:
            continue
        if not (folder / part).is_dir():
            raise InputError(
                f"model {str(folder)!r} lacks a part: {index.name} names {part}, and there is no such folder"
            )
        if (folder / part / "config.json").is_file():
            _check_weights(folder, folder / part)


def _check_weights(folder: Path, part: Path) -> None:
    if not any(file.suffix in WEIGHTS for file in part.iterdir()):
        raise InputError(f"model {str(folder)!r} lacks a part: no weights (*.safetensors) in {part}")


def _folder_digest(folder: Path) -> str:
    """SHA-256 over names and contents of all files but notes and hidden ones."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_file() and file.suffix != ".md" and not any(part.startswith(".") for part in name.parts):
            with file.open("rb") as content:
                digest.update(f"{name.as_posix()} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _hub_commit(name: str, revision: str | None) -> str:
    """The commit that a branch or tag stands for: as the hub says or, out of its reach, as the local cache does."""
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise missing_extra("huggingface_hub", "local") from error
    try:
        return str(hub.HfApi().model_info(name, revision=revision, timeout=30).sha)
    except (httpx.HTTPError, OSError) as error:
        reason = str(error).splitlines()[0]
    try:
        cached = hub.snapshot_download(name, revision=revision, local_files_only=True)
    except OSError as error:
        raise InputError(
            f"model {name!r}: there is no such folder, and the hub has or gives no such model ({reason}). "
            "Write the path of a model folder, or a hub id OWNER/NAME that can be reached"
        ) from error
    return Path(cached).name
