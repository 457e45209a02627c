"""Which packages are installed, and what the extras of a distribution would bring."""

import importlib.metadata
from collections.abc import Iterable
from contextlib import suppress

from packaging.requirements import Requirement


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for package in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def missing(distribution: str = "visionprefer") -> dict[str, list[str]]:
    """What each extra wants that is not there, or not in a version that fits: by extra, the packages in words."""
    about = importlib.metadata.metadata(distribution)
    requirements = [Requirement(text) for text in about.get_all("Requires-Dist") or []]
    return {
        extra: [
            wrong
            for wanted in requirements
            if wanted.marker and wanted.marker.evaluate({"extra": extra}) and (wrong := _wrong(wanted))
        ]
        for extra in about.get_all("Provides-Extra") or []
    }


def _wrong(wanted: Requirement) -> str:
    there = versions([f"{wanted.name}-cpu", wanted.name])  # vLLM for the CPU is a distribution of its own
    if not there:
        return wanted.name
    version = there.popitem()[1]
    return "" if wanted.specifier.contains(version, prereleases=True) else f"{wanted.name}{wanted.specifier}"
