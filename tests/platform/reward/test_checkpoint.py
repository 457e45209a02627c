"""Weights are read from the layouts in which they are published, and nothing else is."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from visionprefer.errors import InputError
from visionprefer.reward.checkpoint import file_digest, find_file, read_weights


def test_weights_lie_alone_or_under_state_dict(tmp_path: Path) -> None:
    weights = {"layer.weight": torch.arange(6.0).view(2, 3)}
    torch.save(weights, tmp_path / "alone.pth")
    torch.save({"epoch": 3, "name": "run", "state_dict": weights}, tmp_path / "under.pt")
    save_file(weights, tmp_path / "safe.safetensors")
    for name in ("alone.pth", "under.pt", "safe.safetensors"):
        found = read_weights(tmp_path / name)
        assert found.keys() == weights.keys()
        assert torch.equal(found["layer.weight"], weights["layer.weight"])


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("harm"),)  # type: ignore[return-value]


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "harm": Harm()}, tmp_path / "harm.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Harm()))
    for name in ("harm.pt", "plain.pt"):
        with pytest.raises(InputError, match="cannot be read as weights"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("held", [[1, 2], {"state_dict": {"epoch": 3}}])
def test_a_file_without_weights_is_told(held: object, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"holds no weights by name. Write a file of safetensors"):
        read_weights(tmp_path / "other.pt")


def test_a_place_without_a_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("nothing.pt", str(tmp_path)):
        with pytest.raises(InputError, match=r"no such file. Write the path of a checkpoint, or OWNER/NAME/FILE"):
            find_file(place)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="no such file, and the hub gives none"):
        find_file("nobody/nothing/weights.pt")
    (tmp_path / "a.pt").write_bytes(b"abc")
    assert find_file(str(tmp_path / "a.pt")) == tmp_path / "a.pt"
    assert file_digest(tmp_path / "a.pt").startswith("ba7816bf")  # the standard's example
