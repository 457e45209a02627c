"""`make blocksworld`: what each way to teach the blocks world's weaker image model is worth, by the oracle's word.

    python -m visionprefer_pipelines.comparison --out runs/blocksworld

Every step is a command of `visionprefer`, told as it is run. Given again, each goes on where it stopped.
"""

import json
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple, cast

import httpx
import pyarrow as pa
import typer
import yaml
from rich.console import Console
from rich.table import Table

from visionprefer.blocksworld.comparison import MEASURES, RIGHT, Compared, Share, compare
from visionprefer.blocksworld.renders import write_renders
from visionprefer.blocksworld.training.image_model import SIZES
from visionprefer.run_folder import RunFolder
from visionprefer.schema import ASPECTS
from visionprefer.store import Store

MODEL = "blocks-sd-small"
RENDERS = 2_000
SECONDS_TO_SERVE = 120.0
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
    out: Annotated[Path, typer.Option(help="Folder for all that is made.")] = Path("runs/blocksworld"),
    seeds: Annotated[int, typer.Option(min=1, help="Models of each method.")] = 3,
    prompts: Annotated[int, typer.Option(min=1, help="Held-out prompts to compare them on.")] = 512,
    training_prompts: Annotated[int, typer.Option(min=1, help="Prompts to learn from.")] = 2_000,
    change: Annotated[list[str] | None, typer.Option(help="COMMAND.KEY=VALUE: changes that command's recipes.")] = None,
) -> None:
    """Teach the blocks world's weaker image model in every way, and compare what came of it."""
    changes = [tuple(one.split(".", 1)) for one in change or []]

    def run(command: str, *arguments: str, settings: tuple[str, ...] = ()) -> None:
        settings = (*settings, *(setting for name, setting in changes if name == command))
        _run([command, *arguments, *(part for setting in settings for part in ("--set", setting))])

    out.mkdir(parents=True, exist_ok=True)
    sample = f"prompts.sample={training_prompts}"
    run("run", "quickstart", "--out", f"{out}/data", settings=("prompts.path=builtin:blocks-training", sample))
    if not (out / "renders" / "metadata.jsonl").exists():
        write_renders(out / "renders", min(RENDERS, training_prompts), 0, SIZES[MODEL].mixed_up)
    existing = ("prompts={near_duplicate: null}", f"images={{existing: {out}/renders}}")
    run("run", "quickstart", "--out", f"{out}/own", settings=existing)
    for name, backbone in (("vpscore", "blocks-blip"), ("vpscore-clip", "blocks-clip")):
        data = ("--data", f"{out}/data", "--out", f"{out}/{name}", "--set", f"backbone=builtin:{backbone}")
        _run(["reward", "train", "blocks-vpscore", *data])
    folders: dict[str, list[Path]] = {}
    for name, method in METHODS.items():
        of_method = folders.setdefault(name, [])
        for seed in range(seeds):
            of_method.append(out / f"{_slug(name)}-{seed}")
            arguments = [method.recipe, "--out", str(of_method[-1])]
            own = (*method.changes, f"seed={seed}")
            if method.command != "ppo":
                run(method.command, *arguments, "--data", f"{out}/{method.source}", settings=own)
            elif not _is_trained(of_method[-1]):
                with _serving(out / method.source) as url:
                    run("ppo", *arguments, "--endpoint", url, settings=own)
    models = [folder for of_method in folders.values() for folder in of_method]
    (out / "evaluation.yaml").write_text(_evaluation(models, prompts))
    run("run", f"{out}/evaluation.yaml", "--out", f"{out}/evaluation")
    _run(["evaluate", f"{out}/evaluation"])
    _tell(out, folders)


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name).lower()


def _run(command: list[str]) -> None:
    typer.echo(f"\n$ visionprefer {shlex.join(command)}")
    done = subprocess.run([sys.executable, "-m", "visionprefer_pipelines.cli", *command], check=False)
    if done.returncode:
        typer.echo("Stopped. What is done is kept: give the same command to go on", err=True)
        raise SystemExit(done.returncode)


def _is_trained(folder: Path) -> bool:
    record = folder / "training.json"
    return record.exists() and "trained_on" in json.loads(record.read_text(encoding="utf-8"))


@contextmanager
def _serving(model: Path) -> Iterator[str]:
    """A reward endpoint of this model, as long as the block lasts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["serve", "--model", str(model), "--port", str(port)]
    typer.echo(f"\n$ visionprefer {shlex.join(command)}")
    full = [sys.executable, "-m", "visionprefer_pipelines.cli", *command]
    server = subprocess.Popen(full, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + SECONDS_TO_SERVE
        while server.poll() is None and time.monotonic() < until:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _evaluation(models: list[Path], prompts: int) -> str:
    """The recipe by which all models draw the same prompts from the same noise."""
    recipe = yaml.safe_load((RECIPES / "blocks-evaluation.yaml").read_text(encoding="utf-8"))
    recipe["prompts"]["sample"] = prompts
    base = recipe["images"]["models"][0]
    recipe["images"]["models"] = [base, *({**base, "model": str(model.resolve())} for model in models)]
    return yaml.safe_dump(recipe, sort_keys=False)


def _tell(out: Path, folders: dict[str, list[Path]]) -> None:
    run = RunFolder(Store(str(out / "evaluation")))
    images = run.images.table(["image_id", "prompt_id", "model"])
    names = {row.model.rsplit("/", 1)[-1]: row.model for row in run.recipe.images.models}
    found = compare(
        cast(pa.Table, run.oracle()),  # which is there, since the models are built in
        images,
        run.recipe.images.models[0].model,
        {name: [names[folder.name] for folder in of_method] for name, of_method in folders.items()},
    )
    (out / "comparison.json").write_text(json.dumps([row._asdict() for row in found], indent=2) + "\n")
    table = Table("taught by", "models", "fully right", "gained, points", *(f"{aspect}" for aspect in ASPECTS))
    for row in found:
        table.add_row(row.method, str(row.models), _percent(row.fully_right), *_gains(row))
    console = Console()
    console.print(table)
    console.print("Gains are means of the differences from the model before, prompt by prompt, with 95 % intervals.")
    console.print(f"In numbers: {out}/comparison.json; side by side: {out}/evaluation/evaluation.html")


def _percent(share: Share) -> str:
    return f"{share.mean:.1%} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _gains(row: Compared) -> list[str]:
    if not row.gained:
        return [""] * len(MEASURES)
    points = Share(*(100 * value for value in row.gained[RIGHT]))
    told = [f"{points.mean:+.1f} ({points.low:+.1f} to {points.high:+.1f})"]
    for gain in (row.gained[aspect] for aspect in ASPECTS):
        told.append(f"{gain.mean:+.2f} ({gain.low:+.2f} to {gain.high:+.2f})")
    return told


if __name__ == "__main__":
    typer.run(main)
