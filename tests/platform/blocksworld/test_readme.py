"""The README's figures are those of a run, and nothing else in it changes."""

from pathlib import Path

import pytest
from run_by_hand import with_oracle

from visionprefer.blocksworld.comparison import MEASURES, Compared, Share, read_figures, write_figures
from visionprefer.blocksworld.readme import COMPARISON, END, QUICKSTART, readme
from visionprefer.errors import InputError
from visionprefer.run_folder import RunFolder


@pytest.fixture
def seen(run: RunFolder) -> Path:
    """A run whose oracle knows two images: the judge orders them rightly in all aspects but the last."""
    with_oracle(run, {"0-0": [5, 5, 5, 1], "0-1": [2, 2, 2, 5]})
    return Path(run.store.root)


def test_tables_replace_what_stood_between_the_marks(seen: Path, tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(f"# Title\n{QUICKSTART}old\n{END}the rest\n")
    readme(seen, file)
    text = file.read_text()
    assert text.startswith(f"# Title\n{QUICKSTART}| Images that are fully right |")
    assert text.endswith(f"{END}the rest\n")
    assert "old" not in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    agreement = {row[0]: row[2] for row in rows}
    assert (agreement["fidelity"], agreement["harmlessness"]) == ("100.0 %", "0.0 %")
    readme(seen, file)
    assert file.read_text() == text


def test_a_comparison_has_marks_of_its_own(tmp_path: Path) -> None:
    gained = {measure: Share(0.25, -0.125, 0.5) for measure in MEASURES}
    found = [Compared("before", 1, Share(0.25, 0.2, 0.3), {}), Compared("DPO", 3, Share(0.5, 0.4, 0.6), gained)]
    write_figures(found, tmp_path)
    assert read_figures(tmp_path) == found
    file = tmp_path / "README.md"
    file.write_text(f"# Title\n{QUICKSTART}kept\n{END}{COMPARISON}old\n{END}the rest\n")
    readme(tmp_path, file)
    text = file.read_text()
    assert "| DPO | 3 | 50.0 % | 40.0 to 60.0 | +25.0 | -12.5 to +50.0 |" in text
    assert text.startswith(f"# Title\n{QUICKSTART}kept\n{END}{COMPARISON}| Fully right |")
    assert text.endswith(f"{END}the rest\n")


def test_a_text_without_marks_stays_as_it_is(seen: Path, tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(f"{END}{QUICKSTART}")
    with pytest.raises(InputError, match="lacks a mark"):
        readme(seen, file)
    assert file.read_text() == f"{END}{QUICKSTART}"


def test_a_run_without_the_oracle_has_nothing_to_tell(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no built-in model"):
        readme(Path(run.store.root), tmp_path / "README.md")
