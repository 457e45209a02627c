"""Published weights: where they lie, what is in them, and a digest by which to know them again."""

import hashlib
import re
from pathlib import Path

import torch
from safetensors.torch import load_file

from visionprefer.errors import InputError

HUB_FILE = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)/(.+)")

Weights = dict[str, torch.Tensor]


def find_file(location: str) -> Path:
    """A local file, or one of the hub, fetched: OWNER/NAME/FILE.

    Raises:
        InputError: if there is no such file, or the hub does not give it.
    """
    if Path(location).is_file():
        return Path(location)
    named = HUB_FILE.fullmatch(location)
    if Path(location).exists() or named is None:
        raise InputError(f"{location}: there is no such file. Write the path of a checkpoint, or OWNER/NAME/FILE")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(named[1], named[2]))
    except Exception as error:  # refusals of the hub and of networks are of many kinds
        raise InputError(
            f"{location}: there is no such file, and the hub gives none ({str(error).splitlines()[0]}). "
            "Write the path of a checkpoint, or OWNER/NAME/FILE"
        ) from error


def read_weights(file: Path) -> Weights:
    """The weights in a file of safetensors or of torch, alone or under "state_dict"; nothing else in it is run.

    Raises:
        InputError: if there are none.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # what broken files raise is not told anywhere
        raise InputError(f"{file} cannot be read as weights: {error}") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(weight, torch.Tensor) for weight in found.values()):
        raise InputError(f"{file} holds no weights by name. Write a file of safetensors, or of torch.save(state_dict)")
    return found


def count_layers(weights: Weights, encoder: str) -> int:
    """How many layers an encoder has whose weights are called ENCODER followed by a number."""
    pattern = re.compile(re.escape(encoder) + r"(\d+)\.")
    return 1 + max(int(found[1]) for name in weights if (found := pattern.match(name)))


def file_digest(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
