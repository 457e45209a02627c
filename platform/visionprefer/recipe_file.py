"""Recipes as files: YAML read and checked, with one sentence for each mistake."""

import difflib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from visionprefer.align.ppo_recipe import PPORecipe, Reward, Watch
from visionprefer.align.recipe import DPORecipe, FinetuneRecipe
from visionprefer.engine_settings import ApiSettings, EngineSettings, Price
from visionprefer.errors import InputError
from visionprefer.recipe import (
    ImageModel,
    ImageSettings,
    JudgeSettings,
    PolishRecipe,
    PreferenceSettings,
    PromptSettings,
    Recipe,
)
from visionprefer.reward.recipe import AblationRecipe, RewardRecipe
from visionprefer.settings import Range, Settings, Workers

AnyRecipe = TypeVar(
    "AnyRecipe", Recipe, PolishRecipe, RewardRecipe, AblationRecipe, DPORecipe, FinetuneRecipe, PPORecipe
)


def load_polish_recipe(path: Path, overrides: list[str] | None = None) -> PolishRecipe:
    """Read a recipe that polishes prompts, and check it. Like `load_recipe`."""
    recipe, folder = _read(path, overrides, PolishRecipe), path.resolve().parent
    polish = recipe.polish
    if polish.engine == "transformers":
        polish = polish.model_copy(update={"model": _found(polish.model, folder)})
    return recipe.model_copy(update={"prompts": _prompts_found(recipe.prompts, folder), "polish": polish})


def load_reward_recipe(path: Path, overrides: list[str] | None = None) -> RewardRecipe:
    """Read a recipe that trains a reward model, and check it. Like `load_recipe`."""
    recipe = _read(path, overrides, RewardRecipe)
    return recipe.model_copy(update={"backbone": _found(recipe.backbone, path.resolve().parent)})


def load_ablation_recipe(path: Path, overrides: list[str] | None = None) -> AblationRecipe:
    """Read a recipe of variants of a reward model, and check it; the variants themselves are not."""
    return _read(path, overrides, AblationRecipe)


def load_dpo_recipe(path: Path, overrides: list[str] | None = None) -> DPORecipe:
    """Read a recipe that trains an image model, and check it. Like `load_recipe`."""
    recipe = _read(path, overrides, DPORecipe)
    return recipe.model_copy(update={"model": _found(recipe.model, path.resolve().parent)})


def load_finetune_recipe(path: Path, overrides: list[str] | None = None) -> FinetuneRecipe:
    """Read a recipe that fine-tunes an image model, and check it. Like `load_recipe`."""
    recipe = _read(path, overrides, FinetuneRecipe)
    return recipe.model_copy(update={"model": _found(recipe.model, path.resolve().parent)})


def load_ppo_recipe(path: Path, overrides: list[str] | None = None) -> PPORecipe:
    """Read a recipe that trains an image model by rewards, and check it. Like `load_recipe`."""
    recipe, folder = _read(path, overrides, PPORecipe), path.resolve().parent
    found = {"model": _found(recipe.model, folder), "prompts": _prompts_found(recipe.prompts, folder)}
    return recipe.model_copy(update=found)


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and check it.

    Files and folders that it names are looked for beside the recipe first, then in the working directory.

    Args:
        path: a YAML file.
        overrides: `key.subkey=value` each, the value in YAML.

    Raises:
        InputError: naming each field that is wrong, its value and what to write.
    """
    return _with_paths(_read(path, overrides, Recipe), path.resolve().parent)


def load_any_recipe(
    path: Path, overrides: list[str] | None = None
) -> Recipe | PolishRecipe | RewardRecipe | AblationRecipe | DPORecipe | FinetuneRecipe | PPORecipe:
    """Read a recipe of any kind, the one that has most of the file's fields, and check it. Like `load_recipe`."""
    fields = _fields(path).keys()
    shared = {kind: len(fields & kind.model_fields.keys()) for kind in _LOADERS}
    kind = max(shared, key=shared.__getitem__)
    if kind is DPORecipe and shared[DPORecipe] == shared[FinetuneRecipe]:
        raise InputError(
            f"{path}: it may be a recipe of dpo or of finetune, which have these fields both. Write one more into the "
            f"file that tells which: beta: 5000, or min_scores: {{}}"
        )
    return _LOADERS[kind](path, overrides)


_LOADERS: dict[type[Settings], Callable[..., Any]] = {
    Recipe: load_recipe,
    PolishRecipe: load_polish_recipe,
    RewardRecipe: load_reward_recipe,
    AblationRecipe: load_ablation_recipe,
    DPORecipe: load_dpo_recipe,
    FinetuneRecipe: load_finetune_recipe,
    PPORecipe: load_ppo_recipe,
}


def _fields(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a YAML file that can be read: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: a recipe is a mapping of fields; this file holds {type(data).__name__}")
    return data


def _read(path: Path, overrides: list[str] | None, kind: type[AnyRecipe]) -> AnyRecipe:
    data = _fields(path)
    for override in overrides or []:
        _override(data, override)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{path}: " + "\n".join(_sentences(error, kind))) from error


def recipe_schema() -> str:
    """The JSON schema of a recipe, for editors that complete and check YAML."""
    return json.dumps(Recipe.model_json_schema(), indent=2, ensure_ascii=False)


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise InputError(f"--set {override}: write --set key=value, such as --set images.batch_size=4")
    try:
        *parents, last = [int(part) if part.isdecimal() else part for part in key.split(".")]
        target: Any = data
        for parent in parents:
            target = target.setdefault(parent, {}) if isinstance(target, dict) else target[parent]
        target[last] = yaml.safe_load(value)
    except (IndexError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"--set {override}: the recipe has no such place as {key}: {error}") from error


def _sentences(error: ValidationError, kind: type[Settings]) -> list[str]:
    """One sentence per wrong field: where, what is wrong, the value found, the nearest name."""
    sentences = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in problem["loc"] if not _is_type_tag(part)) or "recipe"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            known = _fields_at(problem["loc"][:-1], kind)
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
            hint = f"did you mean {near[0]}?" if near else "known here: " + ", ".join(known)
            sentences.append(f"{where}: no such field; {hint}")
        elif problem["type"] == "missing":
            sentences.append(f"{where}: missing; add it")
        elif problem["type"] == "value_error":
            sentences.append(f"{where}: {message}")
        else:
            sentences.append(f"{where}: {message[0].lower()}{message[1:]}, and it is {problem['input']!r}")
    return sentences


def _is_type_tag(part: int | str) -> bool:
    """pydantic adds the tried member of a union to the place of an error; people do not write it."""
    return (
        isinstance(part, str) and re.match(r"^(list|tuple|constrained-|function-|Range$|int$|float$)", part) is not None
    )


def _fields_at(loc: tuple[int | str, ...], kind: type[Settings]) -> list[str]:
    """Field names of the settings that stand at a place in the recipe."""
    models: dict[str, type[Settings]] = {
        "prompts": PromptSettings,
        "images": ImageSettings,
        "judge": JudgeSettings,
        "polish": EngineSettings,
        "preferences": PreferenceSettings,
        "models": ImageModel,
        "api": ApiSettings,
        "price": Price,
        "workers": Workers,
        "rollout_workers": Workers,
        "rewards": Reward,
        "watch": Watch,
        "Range": Range,
    }
    names = [part for part in loc if isinstance(part, str) and part in models]
    return list(models[names[-1]].model_fields if names else kind.model_fields)


def _with_paths(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every local file it names as an absolute path."""
    models = [model.model_copy(update={"model": _found(model.model, folder)}) for model in recipe.images.models]
    existing = _found(recipe.images.existing, folder)
    images = recipe.images.model_copy(update={"models": models, "existing": existing})
    judge = recipe.judge
    if judge.engine == "transformers":
        judge = judge.model_copy(update={"model": _found(judge.model, folder)})
    prompts = _prompts_found(recipe.prompts, folder)
    return recipe.model_copy(update={"prompts": prompts, "images": images, "judge": judge})


def _prompts_found(prompts: PromptSettings, folder: Path) -> PromptSettings:
    files = {"path": _found(prompts.path, folder), "block_list": _found(prompts.block_list, folder)}
    return prompts.model_copy(update=files)


def _found(value: str | None, folder: Path) -> str | None:
    if value is None or "://" in value:
        return value
    for candidate in (folder / Path(value).expanduser(), Path(value).expanduser()):
        if candidate.exists():
            return str(candidate.resolve())
    return value
