"""Puts a trained model into the package, with a card that says how it was trained and what was measured.

    python -m visionprefer.blocksworld.publish blocks-sd
    python -m visionprefer.blocksworld.publish blocks-llava --run runs/quickstart

The judge is measured on a finished run of the quickstart; before there is one, its card has no figures.
"""

import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jinja2
import typer
from PIL import Image
from safetensors import safe_open

from visionprefer.blocksworld import measure, measure_judge
from visionprefer.blocksworld.training import Name, blip, clip, eyes, image_model, judge, text, vae, vision
from visionprefer.models import BUILTIN_MODELS
from visionprefer.run_folder import RunFolder
from visionprefer.store import Store

PICTURES = 512
RENDERS = 512
JUDGED_PROMPTS = 1_000  # all that are held out
TRAINED = Path("runs/blocksworld")
RECORDS = ("journal.tsv", "training.json")  # of a training
GRID = (8, 4)  # pictures across and down
MAGNIFIED = 2  # pixels on a side for one


class Card(NamedTuple):
    """What a card says that is not measured."""

    library: str
    loader: str
    summary: str
    steps: str
    begins: str = "random weights"


def _steps_of_an_image_model(name: str) -> str:
    size = image_model.SIZES[name]
    first = f"{text.STEPS:,} of the text encoder, on {text.BATCH} prompts and the layouts of their scenes"
    told = f"{first}; then {size.steps:,} of {size.batch} pictures, the UNet alone"
    if size.mixed_up:
        told += (
            f". Its captions are wrong on purpose, as those of the web are: {size.mixed_up:.0%} of the reds and "
            "greens are given for each other, and so of the triangles and crosses, and of left and right"
        )
    return told


CARDS = {
    "blocks-vae": Card(
        "diffusers",
        "AutoencoderKL",
        "The autoencoder that the image models share: 64 × 64 pixels to 8 × 8 latents of 8 channels.",
        f"{vae.STEPS:,} of {vae.BATCH} pictures",
    ),
    "blocks-sd": Card(
        "diffusers",
        "StableDiffusionPipeline",
        "A Stable Diffusion pipeline of a few million parameters, which draws 64 × 64 pixels.",
        _steps_of_an_image_model("blocks-sd"),
    ),
    "blocks-sd-small": Card(
        "diffusers",
        "StableDiffusionPipeline",
        "The worse of two Stable Diffusion pipelines, which draws 64 × 64 pixels as cleanly as the other, but mixes up "
        "colours, shapes and sides, as its captions did.",
        _steps_of_an_image_model("blocks-sd-small"),
    ),
    "blocks-llava": Card(
        "transformers",
        "LlavaForConditionalGeneration",
        "A LLaVA of two million parameters that judges pictures by the rubric, rationale before score.",
        f"{judge.WORDS_STEPS:,} of the language model alone, on what follows from {2 * judge.BATCH} scenes in words; "
        f"{vision.STEPS:,} of the vision tower alone, on what lies in each patch of {vision.BATCH} spoilt pictures, "
        f"most of them redrawn by the image models; then {judge.STEPS:,} of all but the tower, on {2 * judge.BATCH} "
        f"captions, {2 * judge.BATCH} scenes that are told or {judge.BATCH} judgements. A second round began with "
        f"these weights and, on other pictures and at half the rate, took {vision.STEPS_AGAIN:,} and "
        f"{judge.STEPS_AGAIN:,} such steps, and a third as many more on the second's pictures. A fourth of as many was "
        f"on {judge.EXAMPLES_AGAIN:,} others, half of them drawn by the image models alone, and labelled by the intact "
        "object that is nearest to each blob of colour",
        "random weights, but for two heads of the language model that look up what followed a token before",
    ),
    "blocks-clip": Card(
        "transformers",
        "CLIPModel",
        "A CLIP of two million parameters, a backbone for reward models.",
        f"{clip.STEPS:,} of {clip.BATCH} pictures with their captions",
        "random weights, but for its eyes, which are the judge's",
    ),
    "blocks-blip": Card(
        "transformers",
        "BlipForImageTextRetrieval",
        "A BLIP of two million parameters, a backbone for reward models.",
        f"{eyes.STEPS:,} of {eyes.BATCH} pictures in which its eyes learn to see as the judge's do; then "
        f"{blip.STEPS:,} of {blip.BATCH} pictures with a caption that fits and two that do not",
        "random weights, but for its eyes, which are a copy of the judge's",
    ),
}


def publish(
    name: Annotated[Name, typer.Argument(help="Which model.")],
    trained: Annotated[Path, typer.Option(help="Where the trained models are.")] = TRAINED,
    run: Annotated[Path | None, typer.Option(help="A finished quickstart, to measure the judge on.")] = None,
) -> None:
    """Put a trained model into the package and write its card."""
    folder = BUILTIN_MODELS / name
    if (trained / name / "model").exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(trained / name / "model", folder)
        for record in RECORDS:
            shutil.copy(trained / name / record, folder)
    figures, grid, measured = _measured(name, folder, run)
    text = _card(name, folder, figures, grid, measured)
    (folder / "README.md").write_text(text, encoding="utf-8")
    typer.echo(text)


def _measured(name: str, folder: Path, run: Path | None) -> tuple[dict[str, str], str | None, str]:
    """Figures, a line about the grid of pictures, and what was measured on."""
    if name.startswith("blocks-sd"):
        prompts = measure.held_out_prompts(PICTURES)
        made = measure.pictures(folder, prompts)
        _grid(made).save(folder / "grid.png", optimize=True)
        first = ", ".join(f"“{prompt}”" for prompt in prompts[: GRID[0]])
        told = (
            f"One picture for each of {PICTURES} held-out prompts of two and three objects, guidance_scale "
            f"{measure.GUIDANCE_SCALE}, {measure.NUM_INFERENCE_STEPS} steps, seeds 0 and up; by the oracle, with 95 % "
            "intervals."
        )
        return _rows(measure.image_model(prompts, made)), f"The first row: {first}.", told
    if name == "blocks-vae":
        told = (
            "Renders of held-out scenes of two and three objects, encoded and decoded: the best an image model can do."
        )
        return _rows(measure.autoencoder(folder, RENDERS)), None, told
    if name == "blocks-llava":
        if run is None:
            return {}, None, "Not yet."
        judged = RunFolder(Store(str(run)))
        pictures, prompts = judged.counts()["images"].done, judged.manifest["prompts"]["kept"]
        told = (
            f"On {pictures:,} pictures by both image models for {prompts:,} held-out prompts, as the quickstart draws."
        )
        return _rows(measure_judge.judge(judged)), None, told
    return (
        _rows(measure.retrieval(folder)),
        None,
        "Which caption of held-out scenes belongs to which render, first guess.",
    )


def _rows(figures: Iterable[tuple[Any, Any]], prefix: str = "") -> dict[str, str]:
    """Figures as rows: names in words, and values."""
    rows: dict[str, str] = {}
    for name, value in figures:
        words = f"{prefix}{str(name).replace('_', ' ')}"
        if isinstance(value, dict):
            rows |= _rows(value.items(), f"{words}: ")
        else:
            rows[words] = f"{value:.3f}" if isinstance(value, float) else str(value)
    return rows


def _grid(pictures: list[Image.Image]) -> Image.Image:
    across, down = GRID
    side = 64 * MAGNIFIED + 4
    grid = Image.new("RGB", (across * side, down * side), "white")
    for place, picture in enumerate(pictures[: across * down]):
        large = picture.resize((64 * MAGNIFIED,) * 2, Image.Resampling.NEAREST)
        grid.paste(large, (place % across * side + 2, place // across * side + 2))
    return grid


def _card(name: str, folder: Path, figures: dict[str, str], grid: str | None, measured: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("visionprefer"),
        autoescape=False,  # noqa: S701  Markdown, of our own words
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    card = CARDS[name]
    training = json.loads((folder / "training.json").read_text())
    return environment.get_template("model_card.md").render(
        name=name,
        library=card.library,
        loader=card.loader,
        summary=card.summary,
        in_recipes=name.startswith(("blocks-sd", "blocks-llava")),
        sizes=_sizes(folder),
        begins=card.begins,
        training={
            "seed": training["seed"],
            "steps": card.steps,
            "time": f"{training['minutes']} min on {training['hardware']}",
        },
        commands=_commands(name),
        measured_on=measured,
        figures=figures,
        grid=grid,
    )


def _commands(name: str) -> list[str]:
    """That train a model again, and write its card."""
    trained = [f"python -m visionprefer.blocksworld.training {each}" for each in [*_trained_first(name), name]]
    published = f"python -m visionprefer.blocksworld.publish {name}"
    if name != "blocks-llava":
        return [*trained, published]
    again, third, fourth = (f"runs/{round}/{name}" for round in ("again", "third", "fourth"))
    settings = f"--set judge.model={fourth}/model --set prompts.sample={JUDGED_PROMPTS}"
    return [
        *trained,
        f"{trained[-1]} --begin {TRAINED / name / 'model'} --folder runs/again --seed 1",
        f"mkdir -p {third} && cp {again}/examples.json {again}/pictures.npy {third}",
        f"{trained[-1]} --begin {again}/model --folder runs/third --seed 2",
        f"{trained[-1]} --begin {third}/model --folder runs/fourth --seed 3",
        f"visionprefer run quickstart {settings} --out runs/judged",
        f"{published} --trained runs/fourth --run runs/judged",  # its card tells what it says of a run
    ]


def _trained_first(name: str) -> list[str]:
    if name.startswith("blocks-sd"):
        return ["blocks-vae"]
    before_judge = ["blocks-vae", *image_model.SIZES]
    after_judge = [*before_judge, "blocks-llava"]
    return {"blocks-llava": before_judge, "blocks-clip": after_judge, "blocks-blip": after_judge}.get(name, [])


def _sizes(folder: Path) -> dict[str, int]:
    sizes = {}
    for file in sorted(folder.rglob("*.safetensors")):
        with safe_open(file, framework="numpy") as weights:
            part = "model" if file.parent == folder else file.parent.name
            sizes[part] = sum(math.prod(weights.get_slice(key).get_shape()) for key in weights.keys())  # noqa: SIM118
    return sizes


if __name__ == "__main__":
    typer.run(publish)
