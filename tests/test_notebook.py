"""The notebooks run from top to bottom, and are committed without what they print."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from run_by_hand import with_oracle

from visionprefer.run_folder import RunFolder

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_committed_without_outputs(path: Path) -> None:
    assert not [cell.outputs for cell in code_cells(path) if cell.outputs or cell.execution_count]


@pytest.mark.parametrize(("seen", "pictures"), [({}, 3), ({"0-0": [5, 5, 5, 5], "0-1": [1, 2, 3, 5], "1-0": None}, 4)])
def test_look_at_a_run(run: RunFolder, monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any], pictures: int) -> None:
    """With and without an oracle."""
    run = with_oracle(run, seen) if seen else run
    [path] = [path for path in NOTEBOOKS if path.name == "look_at_a_run.ipynb"]
    monkeypatch.setenv("VISIONPREFER_RUN", run.store.root)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [
        output for output in outputs if output.output_type in ("error", "stream") and output.get("name") == "stderr"
    ]
    shown = "".join(output.get("data", {}).get("text/html", "") for output in outputs)
    assert "owner/small" in shown
    assert "One circle, and it is red." in shown
    assert sum("image/png" in output.get("data", {}) for output in outputs) == pictures
