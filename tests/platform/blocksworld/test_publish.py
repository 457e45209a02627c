"""A trained model comes into the package as it is, with a card of what was measured and how to train it again."""

from dataclasses import replace

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from visionprefer.blocksworld import publish
from visionprefer.blocksworld.training import clip, image_model, text, vae
from visionprefer.blocksworld.training.__main__ import train

pytestmark = pytest.mark.slow


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder of hardly trained models, and a place for those of the package."""
    monkeypatch.setattr(vae, "STEPS", 2)
    monkeypatch.setattr(text, "STEPS", 2)
    monkeypatch.setattr(vae, "SCENES", 20)
    monkeypatch.setattr(clip, "STEPS", 2)
    monkeypatch.setattr(clip, "SCENES", 20)
    monkeypatch.setattr(publish, "PICTURES", 33)
    monkeypatch.setattr(publish, "BUILTIN_MODELS", tmp_path / "models")
    trained = tmp_path / "trained"
    monkeypatch.setattr(publish, "RENDERS", 8)
    size = replace(image_model.SIZES["blocks-sd-small"], steps=2, batch=2, scenes=20)
    monkeypatch.setitem(image_model.SIZES, "blocks-sd-small", size)
    for name in ("blocks-vae", "blocks-sd-small", "blocks-clip"):
        train(name, trained, seed=7)
        publish.publish(name, trained=trained)
    return tmp_path / "models"


def test_cards_say_what_was_measured(published):
    card = (published / "blocks-sd-small" / "README.md").read_text()
    assert "builtin:blocks-sd-small" in card
    assert "| fully right |" in card
    assert "n = 33" in card
    assert "| seed | 7 |" in card
    assert "python -m visionprefer.blocksworld.training blocks-sd-small" in card
    assert Image.open(published / "blocks-sd-small" / "grid.png").size == (8 * 132, 4 * 132)
    assert "| mean absolute error |" in (published / "blocks-vae" / "README.md").read_text()
    assert "| image to text |" in (published / "blocks-clip" / "README.md").read_text()


def test_the_judges_card_is_written_with_what_it_says_of_a_run():
    training = "python -m visionprefer.blocksworld.training blocks-llava"
    assert publish._commands("blocks-llava")[-7:] == [
        training,
        f"{training} --begin runs/blocksworld/blocks-llava/model --folder runs/again --seed 1",
        "mkdir -p runs/third/blocks-llava && cp runs/again/blocks-llava/examples.json "
        "runs/again/blocks-llava/pictures.npy runs/third/blocks-llava",
        f"{training} --begin runs/again/blocks-llava/model --folder runs/third --seed 2",
        f"{training} --begin runs/third/blocks-llava/model --folder runs/fourth --seed 3",
        "visionprefer run quickstart --set judge.model=runs/fourth/blocks-llava/model --set prompts.sample=1000 "
        "--out runs/judged",
        "python -m visionprefer.blocksworld.publish blocks-llava --trained runs/fourth --run runs/judged",
    ]


def test_the_judge_alone_has_another_round(tmp_path):
    with pytest.raises(typer.BadParameter, match="this is blocks-vae: leave it out"):
        train("blocks-vae", tmp_path, seed=0, begin=tmp_path)
    assert not any(tmp_path.iterdir())


def test_the_commands_of_a_card_are_there():
    for module in ("training", "publish"):
        __import__(f"visionprefer.blocksworld.{module}")
    app = typer.Typer()
    app.command()(train)
    assert "blocks-llava" in CliRunner().invoke(app, ["--help"]).output
