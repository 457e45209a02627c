"""The recipe that people try first: on models that come with the package, about a world that these know."""

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from visionprefer.recipe_file import load_dpo_recipe, load_ppo_recipe
from visionprefer.run_folder import RunFolder
from visionprefer_pipelines.commands import run_command, serving
from visionprefer_pipelines.quickstart import SHORT_DPO, SHORT_PPO, show_served
from visionprefer_pipelines.terminal import path_of

pytestmark = pytest.mark.slow


def test_the_endpoint_answers_the_client_and_ends_whatever_happens(
    make_run: Callable[..., RunFolder], vpscores: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ZeroDivisionError), serving(vpscores["blip"]) as url:
        show_served(make_run(), url)
        assert httpx.get(f"{url}/readyz").is_success
        raise ZeroDivisionError
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/readyz")
    told = capsys.readouterr().out
    assert f"$ visionprefer serve --model {vpscores['blip']}" in told
    assert "What the endpoint says" in told
    assert len(re.findall(r"[+-]\d+\.\d\d ", told)) == 3  # of the first four images of the run one failed


def test_short_trainings_are_short_and_of_the_recipes_that_train_in_earnest() -> None:
    dpo, ppo = load_dpo_recipe(path_of("blocks-dpo"), SHORT_DPO), load_ppo_recipe(path_of("blocks-ppo"), SHORT_PPO)
    assert dpo.steps * dpo.batch_size < 1_000
    assert ppo.rollouts * ppo.images < 100


def test_a_command_that_fails_ends_the_quickstart_as_it_ended(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command("show", "nowhere")
    assert ended.value.code == 2
    written = capfd.readouterr()
    assert "no run at" in written.err
    assert "give the same command to go on" in written.err
