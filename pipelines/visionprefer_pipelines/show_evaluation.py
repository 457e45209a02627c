"""Image models set against each other, in the terminal."""

from pathlib import PurePosixPath

from rich.console import Console

from visionprefer.errors import InputError
from visionprefer.evaluation.evaluation import tables, write_evaluation
from visionprefer.run_folder import RunFolder
from visionprefer.store import Store
from visionprefer_pipelines.show import print_tables


def show_evaluation(run_dir: str, rewards: list[str], console: Console) -> None:
    """Evaluate the models of a run, print who wins and where the page is. Raises InputError if that cannot be told."""
    run, scored = RunFolder(Store(run_dir)), {}
    run.check_finished()
    named = {PurePosixPath(folder).name: folder for folder in rewards}
    if len(named) < len(rewards):
        raise InputError(f"--reward: of {', '.join(rewards)} two have the same name: give them different ones")
    for name, folder in named.items():
        from visionprefer.reward.testing import score_run
        from visionprefer.reward.vpscore import VPScore

        with console.status(f"scoring images by {folder}"):
            scored[name] = score_run(VPScore.from_pretrained(folder), run, None).scores
    found = write_evaluation(run, scored)
    console.print(f"{found.meetings:,} meetings of {', '.join(found.models)} on {found.prompts:,} prompts")
    print_tables(tables(found), console)
    console.print(f"Side by side, worst regressions first: {run.store.root}/evaluation.html")
