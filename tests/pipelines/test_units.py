"""Actors commit what they did, whatever happens beside it."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from visionprefer.errors import InputError
from visionprefer.schema import FAILED_IMAGES, IMAGES
from visionprefer.shards import Shards
from visionprefer.store import Store
from visionprefer_pipelines import units

NOTHING = (IMAGES.empty_table(), FAILED_IMAGES.empty_table())


class Committing(units._Committing):
    """Unit 1 takes as long as `go` lets it; the budget is spent at unit 2."""

    go = threading.Event()
    begun = threading.Event()

    def work(self, unit: str, generation: int) -> tuple[pa.Table, pa.Table]:
        if unit == "000002":
            raise InputError("the budget is spent")
        self.begun.set()
        assert self.go.wait(30)
        return NOTHING


def test_what_stops_a_run_waits_for_what_is_done_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise Ray would end the actor with answers in it that are paid for."""
    monkeypatch.setattr("ray.get", lambda reference: reference)
    said: list[Any] = []
    log = SimpleNamespace(add=SimpleNamespace(remote=lambda *entry: said.append(entry)))
    shards = Shards(Store(tmp_path), "images", IMAGES)
    actor = Committing(lambda: SimpleNamespace(describe=lambda: "a stage"), shards, log)

    def ask(unit: str) -> dict[str, np.ndarray]:
        return actor({"unit": np.array([unit]), "generation": np.array([0])})

    slow = threading.Thread(target=ask, args=("000001",))
    slow.start()
    assert actor.begun.wait(30)
    threading.Timer(0.5, actor.go.set).start()
    with pytest.raises(InputError, match="budget"):
        ask("000002")
    assert shards.written("000001", 0) is not None
    slow.join()
    assert said[-1] == ("mend", "the budget is spent")
