"""`make quickstart`: prompts to a dataset to a reward model that is served, and short trainings of an image model.

    python -m visionprefer_pipelines.quickstart --out runs

Every step is a command of `visionprefer`, told as it is run. Given again, each goes on where it stopped.
"""

import signal
from pathlib import Path
from typing import Annotated

import typer

from visionprefer.errors import InputError
from visionprefer.run_folder import RunFolder
from visionprefer.statistics.tables import Table
from visionprefer.store import Store
from visionprefer_pipelines import cli
from visionprefer_pipelines.commands import run_command, serving
from visionprefer_pipelines.show import print_tables
from visionprefer_pipelines.terminal import console_of, interrupt
from visionprefer_pipelines.training import is_trained
from visionprefer_serve.client import RewardClient

# Enough to see that everything runs, and too little to make an image model better.
SHORT_DPO = ("steps=40", "batch_size=16")
SHORT_PPO = ("rollouts=3", "images=32", "updates=2", "watch.images=16")
IMAGES = 4  # that the endpoint is asked about


def main(
    out: Annotated[Path, typer.Option(help="Folder for all that is made.")] = Path("runs"),
    prompts: Annotated[int, typer.Option(min=32, help="Prompts of the dataset.")] = 256,
) -> None:
    """Make a dataset and a reward model, serve it, and begin to teach an image model."""
    signal.signal(signal.SIGTERM, interrupt)
    data, vpscore, dpo, ppo = (out / name for name in ("quickstart", "vpscore", "short-dpo", "short-ppo"))
    run_command("run", "quickstart", "--out", str(data), settings=(f"prompts.sample={prompts}",))
    run_command("reward", "train", "blocks-vpscore", "--data", str(data), "--out", str(vpscore))
    run_command("reward", "test", str(vpscore), "--data", str(data), "--against", "oracle")
    run_command("dpo", "blocks-dpo", "--data", str(data), "--out", str(dpo), settings=SHORT_DPO)
    with serving(vpscore) as url:
        show_served(RunFolder(Store(data)), url)
        if not is_trained(ppo):
            run_command("ppo", "blocks-ppo", "--endpoint", url, "--out", str(ppo), settings=SHORT_PPO)
    console_of().print(f"""
There are now
  {data}  a preference dataset; open {data}/report.html
  {vpscore}  a reward model, which was served a moment ago
  {dpo}, {ppo}  an image model after a few steps of DPO and of PPO, to show that they run: too few to
    make it better

Next: serve the reward model yourself, or teach the image model in earnest, by pictures for prompts to train on, as the
README says under "Improve the image model"
  visionprefer serve --model {vpscore}
  visionprefer run quickstart --set prompts.path=builtin:blocks-training --set prompts.sample=1000 \\
    --out {out}/training
  visionprefer dpo blocks-dpo --data {out}/training --out {out}/dpo""")


def show_served(run: RunFolder, url: str) -> None:
    """Ask an endpoint about the first images of a run, as any program would, and print what it says.

    Raises:
        InputError: if it does not answer.
    """
    rows = next(run.images.tables(["prompt", "image"])).slice(0, IMAGES).to_pylist()
    typer.echo(f'\n>>> RewardClient("{url}").score(prompts, images)')
    with RewardClient(url) as client:
        answers = client.score([row["prompt"] for row in rows], [row["image"]["bytes"] for row in rows])
    if failed := next((answer.error for answer in answers if answer.error), None):
        raise InputError(f"the endpoint gave no score: {failed}")
    told = [
        [row["prompt"], row["image"]["path"], f"{answer.score:+.2f}", f"{answer.uncertainty:.2f}"]
        for row, answer in zip(rows, answers, strict=True)
    ]
    print_tables([Table("What the endpoint says", ["prompt", "image", "score", "uncertainty"], told)], console_of())


if __name__ == "__main__":
    cli.main(lambda: typer.run(main))
