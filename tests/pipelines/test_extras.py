"""Extras, as the metadata of an installed distribution tells them."""

import importlib.metadata
from pathlib import Path

import pytest

from visionprefer_pipelines.extras import missing, versions


def test_what_extras_lack_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {
        "there": ["numpy>=1"],
        "not-there": ["no-such-package[fast]>=2", "numpy>=1"],
        "too-new": ["numpy>=999"],
        "elsewhere": ["no-such-package; sys_platform == 'nowhere'"],
    }
    lines = ["Metadata-Version: 2.4", "Name: by-hand", "Version: 1", "Requires-Dist: no-such-package-either"]
    for extra, requirements in wanted.items():
        lines.append(f"Provides-Extra: {extra}")
        for requirement in requirements:
            name, _, marker = requirement.partition("; ")
            both = f"({marker}) and extra == '{extra}'" if marker else f"extra == '{extra}'"
            lines.append(f"Requires-Dist: {name}; {both}")
    (tmp_path / "by_hand-1.dist-info").mkdir()
    (tmp_path / "by_hand-1.dist-info" / "METADATA").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    assert missing("by-hand") == {
        "there": [],
        "not-there": ["no-such-package"],
        "too-new": ["numpy>=999"],
        "elsewhere": [],
    }


def test_versions_are_those_of_what_is_installed() -> None:
    assert versions(["numpy", "no-such-package"]) == {"numpy": importlib.metadata.version("numpy")}


def test_our_own_extras_are_known() -> None:
    found = missing()
    assert {"local", "api", "vllm", "notebook"} <= found.keys()
    assert found["local"] == []
