"""What goes to a Ray cluster with a job: the command, the recipe with its files of prompts, and the package."""

import importlib.util
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

import visionprefer
from visionprefer.align.ppo_recipe import PPORecipe
from visionprefer.align.recipe import DPORecipe, FinetuneRecipe
from visionprefer.buckets import is_in_bucket
from visionprefer.errors import InputError
from visionprefer.recipe import PolishRecipe, Recipe
from visionprefer.reward.recipe import RewardRecipe

Shippable = Recipe | PolishRecipe | RewardRecipe | DPORecipe | FinetuneRecipe | PPORecipe
COMMANDS: dict[type[Shippable], str] = {
    Recipe: "run",
    PolishRecipe: "polish",
    RewardRecipe: "reward train",
    DPORecipe: "dpo",
    FinetuneRecipe: "finetune",
    PPORecipe: "ppo",
}
_TAKE_DATA = (RewardRecipe, DPORecipe, FinetuneRecipe)
_TAKE_UP_FAILED_ROWS = (Recipe, PolishRecipe)
_ROOT = Path(visionprefer.__file__).parents[2]


def command_of(
    recipe: Shippable, out: str, data: str | None = None, endpoint: str | None = None, retry_failed: bool = False
) -> str:
    """What a machine of the cluster is to do, beside what `packed` sends there.

    Args:
        recipe: of what.
        out: folder for what is made, as the cluster's machines see it.
        data: folder of the run that a training learns from, as they see it.
        endpoint: URL of the endpoint that says what PPO's images are worth, as they see it.
        retry_failed: take up again the rows that failed before.

    Raises:
        InputError: if something is missing, is not for such a recipe, or would lie in the job's own folder, which goes
            when it ends.
    """
    command = COMMANDS[type(recipe)]
    _check(command, "--data", data, isinstance(recipe, _TAKE_DATA), "the folder of the finished run to learn from")
    _check(command, "--endpoint", endpoint, isinstance(recipe, PPORecipe), "the URL of a reward endpoint")
    if retry_failed and not isinstance(recipe, _TAKE_UP_FAILED_ROWS):
        raise InputError(f"--retry-failed: {recipe.name} is a recipe of `{command}`, which has no rows. Leave it out")
    for option, folder in (("--out", out), ("--data", data)):
        if folder and not (is_in_bucket(folder) or Path(folder).is_absolute()):
            raise InputError(
                f"{option} {folder}: a job's own folder goes when it ends. Write s3://…, gs://… or the full path of a "
                "folder that the machines share"
            )
    told = {"--data": data, "--endpoint": endpoint, "--out": out}
    options = [part for option, value in told.items() if value for part in (option, value)]
    given = [*command.split(), "recipe.yaml", *options, *(["--retry-failed"] if retry_failed else [])]
    return f"python -m visionprefer_pipelines.cli {shlex.join(given)}"


def _check(command: str, option: str, value: str | None, wanted: bool, what: str) -> None:
    """Raises InputError if an option is missing, or is not for this command."""
    if wanted and not value:
        raise InputError(f"{option}: `{command}` wants {what}, as the cluster's machines see it. Write {option} …")
    if value and not wanted:
        raise InputError(f"{option} {value}: it is a recipe of `{command}`, which takes no {option}. Leave it out")


@contextmanager
def packed(recipe: Shippable, wheel: Path | None) -> Iterator[dict[str, Any]]:
    """What is sent along, as a runtime environment of Ray.

    Args:
        recipe: checked.
        wheel: of this package; None: built, if the package lies in a checkout; else what is installed there is used.

    Raises:
        InputError: if something cannot be shipped.
    """
    with tempfile.TemporaryDirectory() as folder:
        working = Path(folder) / "recipe"
        working.mkdir()
        (working / "recipe.yaml").write_text(yaml.safe_dump(_shipped(recipe, working), sort_keys=False))
        wheel = wheel or _built(Path(folder) / "wheel")
        yield {"working_dir": str(working), **({"py_modules": [str(wheel)]} if wheel else {})}


def _shipped(recipe: Shippable, folder: Path) -> dict[str, Any]:
    """The recipe as it is read there, its files copied into the folder and named as they lie."""
    existing = recipe.images.existing if isinstance(recipe, Recipe) else None
    if existing and not (is_in_bucket(existing) or Path(existing).is_absolute()):
        raise InputError(
            f"images.existing: {existing} is not shipped with a job. Write the full path of a folder that the machines "
            "of the cluster share, s3://… or gs://…"
        )
    told = recipe.model_dump(mode="json", exclude_unset=True)
    if isinstance(recipe, Recipe | PolishRecipe | PPORecipe):
        for field in ("path", "block_list"):
            value = getattr(recipe.prompts, field)
            if value and Path(value).is_file():
                told["prompts"][field] = field + Path(value).suffix
                shutil.copy(value, folder / told["prompts"][field])
    return told


def _built(folder: Path) -> Path | None:
    if not (_ROOT / "pyproject.toml").exists():
        return None
    here = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *here, "--wheel-dir", str(folder)]
    done = subprocess.run([*command, str(_ROOT)], check=False, capture_output=True, text=True)
    if done.returncode:
        raise InputError(
            f"the package cannot be built: {done.stderr[-500:]}\nWrite --wheel FILE, as `make wheel` makes it"
        )
    return next(folder.glob("*.whl"))
