"""`make blocksworld`: what each way to teach the blocks world's weaker image model is worth, by the oracle's word.

    python -m visionprefer_pipelines.comparison --out runs/comparison

Every step is a command of `visionprefer`, told as it is run. Given again, each goes on where it stopped.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple, cast

import pyarrow as pa
import typer
import yaml

from visionprefer.blocksworld.comparison import FIGURES, compare, suited_guidance, tables, write_figures
from visionprefer.blocksworld.renders import write_renders
from visionprefer.blocksworld.side_by_side import FILE, write_side_by_side
from visionprefer.blocksworld.training.image_model import SIZES
from visionprefer.run_folder import RunFolder
from visionprefer.store import Store
from visionprefer_pipelines import cli
from visionprefer_pipelines.commands import run_command, serving
from visionprefer_pipelines.show import print_tables
from visionprefer_pipelines.terminal import console_of
from visionprefer_pipelines.training import is_trained

MODEL = "blocks-sd-small"
RENDERS = 2_000
EPOCHS = "epochs=5"  # with 2,000 prompts the loss on validation prompts is least after two to four
GUIDANCE_PROMPTS = 128  # of those that are learnt from, to choose each model's guidance by
GUIDANCE = (1.5, 2.0, 2.5)
RECIPES = Path(__file__).parent / "recipes"


class Method(NamedTuple):
    """A way to teach the model: a command with its recipe, what it learns from in the output folder, and changes."""

    command: str
    recipe: str
    source: str
    changes: tuple[str, ...] = ()


# Both controls take as many steps as what they are compared with.
METHODS = {
    "DPO": Method("dpo", "blocks-dpo", "data"),
    "PPO": Method("ppo", "blocks-ppo", "vpscore"),
    "control: DPO, labels by lot": Method("dpo", "blocks-dpo", "data", ("shuffled_labels=true",)),
    "control: its own training data": Method("finetune", "blocks-dreamsync", "own", ("min_scores={}",)),
    "DreamSync, one round": Method("finetune", "blocks-dreamsync", "data"),
    "PPO, VP-Score with CLIP": Method("ppo", "blocks-ppo", "vpscore-clip"),
}


def main(
    out: Annotated[Path, typer.Option(help="Folder for all that is made.")] = Path("runs/comparison"),
    seeds: Annotated[int, typer.Option(min=1, help="Models of each method.")] = 3,
    prompts: Annotated[int, typer.Option(min=1, help="Held-out prompts to compare them on.")] = 512,
    training_prompts: Annotated[int, typer.Option(min=1, help="Prompts to learn from.")] = 2_000,
) -> None:
    """Teach the blocks world's weaker image model in every way, and compare what came of it."""
    out.mkdir(parents=True, exist_ok=True)
    sample = f"prompts.sample={training_prompts}"
    run_command("run", "quickstart", "--out", f"{out}/data", settings=("prompts.path=builtin:blocks-training", sample))
    if not (out / "renders" / "metadata.jsonl").exists():
        write_renders(out / "renders", min(RENDERS, training_prompts), 0, SIZES[MODEL].mixed_up)
    existing = ("prompts={near_duplicate: null}", f"images={{existing: {out}/renders}}")
    run_command("run", "quickstart", "--out", f"{out}/own", settings=existing)
    for name, backbone in (("vpscore", "blocks-blip"), ("vpscore-clip", "blocks-clip")):
        data = ("--data", f"{out}/data", "--out", f"{out}/{name}")
        run_command("reward", "train", "blocks-vpscore", *data, settings=(f"backbone=builtin:{backbone}", EPOCHS))
    folders: dict[str, list[Path]] = {}
    for name, method in METHODS.items():
        of_method = folders.setdefault(name, [])
        for seed in range(seeds):
            of_method.append(out / f"{_slug(name)}-{seed}")
            arguments = [method.recipe, "--out", str(of_method[-1])]
            own = (*method.changes, f"seed={seed}")
            if method.command != "ppo":
                run_command(method.command, *arguments, "--data", f"{out}/{method.source}", settings=own)
            elif not is_trained(of_method[-1]):
                with serving(out / method.source) as url:
                    run_command("ppo", *arguments, "--endpoint", url, settings=own)
    taught = [folder for of_method in folders.values() for folder in of_method]
    models = {MODEL: f"builtin:{MODEL}", **{folder.name: str(folder.resolve()) for folder in taught}}
    every = [(model, guidance) for model in models.values() for guidance in GUIDANCE]
    run = _drawn(
        out / "guidance", every, ("prompts.path=builtin:blocks-training", f"prompts.sample={GUIDANCE_PROMPTS}")
    )
    guidance = suited_guidance(run.judgements(), run.images.table(["image_id", "model", "guidance_scale"]))
    suited = [(model, guidance[name]) for name, model in models.items()]
    run = _drawn(out / "evaluation", suited, (f"prompts.sample={prompts}",))
    run_command("evaluate", f"{out}/evaluation")
    _tell(out, run, folders, guidance)


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name).lower()


def _recipe(models: Sequence[tuple[str, float]]) -> str:
    """The recipe by which models draw the same prompts from the same noise, each with its guidance_scale."""
    recipe = yaml.safe_load((RECIPES / "blocks-evaluation.yaml").read_text(encoding="utf-8"))
    base = recipe["images"]["models"][0]
    recipe["images"]["models"] = [{**base, "model": model, "guidance_scale": scale} for model, scale in models]
    return yaml.safe_dump(recipe, sort_keys=False)


def _drawn(out: Path, models: Sequence[tuple[str, float]], settings: tuple[str, ...]) -> RunFolder:
    file = out.with_suffix(".yaml")
    file.write_text(_recipe(models), encoding="utf-8")
    run_command("run", str(file), "--out", str(out), settings=settings)
    return RunFolder(Store(str(out)))


def _tell(out: Path, run: RunFolder, folders: dict[str, list[Path]], guidance: dict[str, float]) -> None:
    oracle = cast(pa.Table, run.oracle())  # which is there, since the models are built in
    images = run.images.table(["image_id", "prompt_id", "model"])
    models = {name: [folder.name for folder in of_method] for name, of_method in folders.items()}
    found = compare(oracle, images, MODEL, models)
    write_figures(found, out)
    write_side_by_side(run, {"before": MODEL, **{name: of_method[0] for name, of_method in models.items()}}, out)
    console = console_of()
    print_tables(tables(found), console)
    console.print("Gains are means of the differences from the model before, prompt by prompt, with 95 % intervals.")
    chosen = ", ".join(f"{model} {scale:g}" for model, scale in sorted(guidance.items()))
    console.print(f"guidance_scale, as the judge likes it on training prompts: {chosen}")
    console.print(f"In numbers: {out}/{FIGURES}; side by side: {out}/{FILE} and {out}/evaluation/evaluation.html")


if __name__ == "__main__":
    cli.main(lambda: typer.run(main))
