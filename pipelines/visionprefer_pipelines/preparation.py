"""What happens before anything expensive: models found, prompts read, images planned, and the folder checked."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from visionprefer.align.ppo_recipe import PPORecipe
from visionprefer.align.recipe import AlignRecipe
from visionprefer.blocksworld.boundary import warning
from visionprefer.errors import InputError
from visionprefer.existing import Existing, list_existing, listing_digest
from visionprefer.judging.judge import judge_digest
from visionprefer.models import Model, find_model, served_model
from visionprefer.plan import Plan, plan_existing, plan_generation, write_plan
from visionprefer.prompts import Prompts, clean_prompts, clean_text, read_prompts
from visionprefer.recipe import ImageModel, JudgeSettings, PolishRecipe, Recipe
from visionprefer.reward.recipe import RewardRecipe
from visionprefer.schema import REJECTED_PROMPTS
from visionprefer.store import Store

# What a folder may hold before it has a manifest: a run that was stopped while it planned.
BEFORE_THE_MANIFEST = {"estimate.json", "prompts.parquet", "rejected_prompts.parquet", "plan"}

# What people write as a path, and a plan knows by its content.
DIGESTED = {"prompts.path", "prompts.block_list", "images.existing"}


class Prepared(NamedTuple):
    """A run whose plan is written."""

    manifest: dict[str, Any]
    models: list[Model]
    judge: Model
    notes: list[str]  # for the person at the terminal


def prepare(recipe: Recipe, store: Store) -> Prepared:
    """Find the models, and write the plan unless it is there.

    Raises:
        InputError: if something that the recipe names cannot be used, or the folder belongs to another recipe.
    """
    manifest = store.manifest()
    models, judge = _find_models(recipe, manifest.get("models", []))
    found = _list(recipe)
    made_from = _made_from(recipe, models, found)
    notes: list[str] = []
    if manifest:
        _check_same(store, manifest["plan"]["made_from"], made_from)
        if found and manifest["recipe"]["images"]["existing"] != recipe.images.existing:  # it was moved
            write_plan(store, _existing(recipe, found)[1])
    else:
        _check_empty(store)
        manifest, notes = _plan(recipe, store, models, found, made_from)
    digest = judge_digest(judge, recipe.judge)
    if manifest.get("judge") not in (None, digest[:12]):
        notes.append("another judge than last time: the images stay, and are judged anew")
    written = recipe.model_dump(mode="json")
    if manifest.get("recipe") != written:
        manifest.pop("derived", None)  # the derived tables follow another recipe
    manifest |= {"name": recipe.name, "recipe": written, "judge": digest[:12]}
    manifest["judges"] = manifest.get("judges", {}) | {digest[:12]: {"model": judge.label, "digest": digest}}
    named: list[ImageModel | JudgeSettings] = [*recipe.images.models, recipe.judge]
    manifest["models"] = [
        {"name": model.name, "revision": asked.revision, "commit": model.revision, "digest": model.digest}
        for asked, model in zip(named, [*models, judge], strict=True)
    ]
    store.write_manifest(manifest)
    return Prepared(manifest, models, judge, notes)


def check(recipe: Recipe | PolishRecipe | RewardRecipe | AlignRecipe) -> list[str]:
    """Find all that a recipe names, and write nothing. What a training learns from is no part of its recipe.

    Returns:
        Sentences for the person at the terminal.

    Raises:
        InputError: if something that the recipe names cannot be used.
    """
    if isinstance(recipe, RewardRecipe):
        return [f"starts from {find_model(recipe.backbone, 'transformers', recipe.revision).label}"]
    if isinstance(recipe, AlignRecipe):
        model = find_model(recipe.model, "diffusers", recipe.revision, recipe.variant)
        drawn = _counted(read_prompts(recipe.prompts, recipe.seed)) if isinstance(recipe, PPORecipe) else ""
        return [f"teaches {model.label}", *filter(None, [drawn])]
    if isinstance(recipe, PolishRecipe):
        if recipe.polish.engine != "openai":
            find_model(recipe.polish.model, "transformers", recipe.polish.revision)
        return [_counted(read_prompts(recipe.prompts, recipe.seed))]
    _find_models(recipe, [])
    if found := _list(recipe):
        prompts, plan = _existing(recipe, found)
        images = f"{plan.num_rows} images to take over and judge"
    else:
        prompts = read_prompts(recipe.prompts, recipe.seed)
        of_a_prompt = recipe.images.images_per_prompt * (len(recipe.images.models) if recipe.images.every_model else 1)
        images = f"{prompts.kept.num_rows * of_a_prompt} images to make and judge"
    return [*(f"· {note}" for note in _notes(recipe, prompts)), f"{_counted(prompts)}; {images}"]


def _counted(prompts: Prompts) -> str:
    return f"{prompts.kept.num_rows} prompts kept, {prompts.rejected.num_rows} rejected"


def _notes(recipe: Recipe, prompts: Prompts) -> list[str]:
    outside = warning(recipe, prompts.kept["prompt"].to_pylist())
    return prompts.notes + ([outside] if outside else [])


def _find_models(recipe: Recipe, before: list[dict[str, Any]]) -> tuple[list[Model], Model]:
    """The image models and the judge; what was asked for before stays at the commit that it was then."""
    commits = {(model["name"], model["revision"]): model["commit"] for model in before}

    def commit(asked: ImageModel | JudgeSettings) -> str | None:
        return commits.get((asked.model, asked.revision))

    models = [
        find_model(asked.model, "diffusers", asked.revision, asked.variant, commit(asked))
        for asked in recipe.images.models
    ]
    judge = recipe.judge
    if judge.engine == "openai":
        return models, served_model(judge.model, judge.api.base_url)
    return models, find_model(judge.model, "transformers", judge.revision, commit=commit(judge))


def _list(recipe: Recipe) -> Existing | None:
    return list_existing(recipe.images.existing) if recipe.images.existing else None


def _plan(
    recipe: Recipe, store: Store, models: list[Model], found: Existing | None, made_from: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    if found:
        prompts, plan = _existing(recipe, found)
    else:
        prompts = read_prompts(recipe.prompts, recipe.seed)
        plan = plan_generation(prompts.kept, recipe.images, models, recipe.seed)
    store.write_table("prompts.parquet", prompts.kept)
    store.write_table("rejected_prompts.parquet", prompts.rejected)
    described = write_plan(store, plan) | {"made_from": made_from}
    counts = {
        "kept": prompts.kept.num_rows,
        "rejected": prompts.rejected.num_rows,
        "not_sampled": prompts.not_sampled,
    }
    notes = _notes(recipe, prompts)
    if plan.padding > 0.2:
        notes.append(
            f"{plan.padding:.0%} of the places in batches stay empty: images share a batch when model, guidance_scale "
            "and num_inference_steps are equal. Fewer values to draw from, or a smaller images.batch_size, waste less"
        )
    return {"format": 1, "prompts": counts, "plan": described, "shards": {}}, notes


def _existing(recipe: Recipe, found: Existing) -> tuple[Prompts, Plan]:
    """Captions become prompts, and an image goes the way of its caption."""
    captions: dict[str, tuple[str, str]] = {}
    for image in found.images:
        captions.setdefault(clean_text(image.prompt).casefold(), (image.prompt, image.source))
    # A caption much like another one is a prompt of its own: its image shows something else.
    settings = recipe.prompts.model_copy(update={"near_duplicate": None})
    prompts = clean_prompts(captions.values(), settings, recipe.seed)
    kept = {prompt.casefold(): prompt for prompt in prompts.kept["prompt"].to_pylist()}
    images, left_out = [], list(found.rejected)
    for image in found.images:
        prompt = kept.get(clean_text(image.prompt).casefold())
        if prompt is None:
            left_out.append((image.source, "image left out: its caption was rejected or not sampled"))
        else:
            images.append(image._replace(prompt=prompt))
    rows = [{"prompt": None, "source": source, "reason": reason} for source, reason in left_out]
    rejected = pa.concat_tables([prompts.rejected, pa.Table.from_pylist(rows, schema=REJECTED_PROMPTS)])
    plan = plan_existing(prompts.kept, images, recipe.images.existing or "", recipe.images.block_size)
    return prompts._replace(rejected=rejected), plan


def _made_from(recipe: Recipe, models: list[Model], found: Existing | None) -> dict[str, Any]:
    """Everything that the plan follows from; files, images and models by content, so that they may move."""
    prompts = recipe.prompts.model_dump(mode="json")
    for field in ("path", "block_list"):
        prompts[field] = _content(prompts[field])
    images = recipe.images.model_dump(mode="json", exclude={"workers", "device"})
    for described, model in zip(images["models"], models, strict=True):
        described["model"] = model.digest
        del described["revision"], described["variant"]
    if found:
        images["existing"] = listing_digest(found.images, images["existing"])
    return {"seed": recipe.seed, "prompts": prompts, "images": images}


def _content(file: str | None) -> str | None:
    if file is None or not Path(file).is_file():
        return file
    with Path(file).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _check_same(store: Store, before: dict[str, Any], now: dict[str, Any]) -> None:
    was, is_now = _flat(before), _flat(now)
    changed = sorted({field for field, _ in was.items() ^ is_now.items()})
    if changed:
        told = [_told(field, was.get(field), is_now.get(field)) for field in changed]
        raise InputError(
            f"--out {store.root}: this folder holds the run of another recipe ({'; '.join(told)}). "
            "Write another --out, or set these back. The judge and the preferences may change in the same folder"
        )


def _told(field: str, was: str | None, is_now: str | None) -> str:
    if field in DIGESTED:
        return f"the content of {field} changed"
    if field.endswith(".model"):
        return f"{field.removesuffix('.model')} is another model or was changed"
    return f"{field} was {was}, and is now {is_now}"


def _flat(data: Any, place: str = "") -> dict[str, str]:
    if isinstance(data, dict | list):
        items = data.items() if isinstance(data, dict) else enumerate(data)
        return {k: v for key, value in items for k, v in _flat(value, f"{place}.{key}" if place else str(key)).items()}
    return {place: repr(data)}


def _check_empty(store: Store) -> None:
    others = [name for name in store.names("") if name not in BEFORE_THE_MANIFEST]
    if others:
        raise InputError(
            f"--out {store.root}: the folder holds other things ({', '.join(others[:3])}). Write a new folder"
        )
