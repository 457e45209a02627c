"""The rules of the house: where things lie, what imports what, what is shipped."""

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
PACKAGES = ["platform/visionprefer", "serve/visionprefer_serve", "pipelines/visionprefer_pipelines"]
HEAVY = {"torch", "ray", "transformers", "diffusers", "peft", "accelerate", "pandas", "datasets"}


def output_of(*command: str | Path) -> str:
    """What a command prints when it is run at the root; it must succeed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files() -> list[Path]:
    """Every file that is or would be committed, relative to the root."""
    listed = output_of("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a new interpreter has loaded when this has run."""
    at_exit = "import atexit, sys; atexit.register(lambda: print('loaded:', *sys.modules)); "
    names = output_of(sys.executable, "-c", at_exit + code).rpartition("loaded:")[2].split()
    return {name.partition(".")[0] for name in names}


def test_the_folder_platform_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "platform/__init__.py").exists()
    assert output_of(sys.executable, "-c", "import platform; print(platform.system())").strip()


@pytest.mark.parametrize(
    "code",
    [
        "import visionprefer.recipe",
        "sys.argv = ['visionprefer', '--help']; from visionprefer_pipelines.cli import main; main()",
    ],
)
def test_recipes_and_help_load_nothing_heavy(code: str) -> None:
    assert not loaded_by(code) & HEAVY


def test_the_reward_client_loads_what_speaks_http_and_arrow_and_nothing_more() -> None:
    known = loaded_by("import httpx, pyarrow, tenacity, pydantic, annotated_types")
    more = loaded_by("import visionprefer_serve.client") - known - sys.stdlib_module_names
    assert {name for name in more if not name.startswith("_")} == {"visionprefer_serve"}


def test_the_reward_client_needs_nothing_that_the_base_install_lacks() -> None:
    blocked = dict.fromkeys(HEAVY | {"visionprefer", "visionprefer_pipelines", "PIL"})
    assert "httpx" in loaded_by(f"sys.modules.update({blocked}); import visionprefer_serve.client")


def test_imports_run_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True, no_logo=True) == 0


def test_files_bear_one_title() -> None:
    sources = [file for file in files() if file.parts[0] in {"platform", "serve", "pipelines"}]
    lengths = {
        str(file): len((ROOT / file).read_text().splitlines())
        for file in sources
        if file.suffix in {".py", ".yaml", ".jinja"}
    }
    assert not {file: lines for file, lines in lengths.items() if lines > 350}


def test_names_say_something() -> None:
    assert not [file for file in files() if re.fullmatch(r"(utils?|helpers?|common|misc|base)\.\w+", file.name)]


def test_nothing_names_the_machine_it_was_written_on() -> None:
    places = [f"{ROOT}/", f"{Path.home()}/."]
    if ROOT.parent not in {Path("/"), Path(tempfile.gettempdir())}:  # those two are named everywhere
        places.append(f"{ROOT.parent}/")
    named = re.compile("|".join(rf"(?<![\w./-]){re.escape(place)}" for place in places))
    assert not [file for file in files() if named.search((ROOT / file).read_text(errors="ignore"))]


def test_the_wheel_holds_all_of_the_three_packages(tmp_path: Path) -> None:
    output_of(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    [wheel] = tmp_path.iterdir()
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    folders = tuple(f"{package}/" for package in PACKAGES)
    assert shipped == {str(file).partition("/")[2] for file in files() if str(file).startswith(folders)}
    assert {"visionprefer/py.typed", "visionprefer_serve/client.py"} <= shipped
    assert "visionprefer_pipelines/recipes/quickstart.yaml" in shipped
