"""Reward models in the terminal: how they learnt, what they are worth, and what they say."""

import json
import shlex
from pathlib import Path

from rich.console import Console

from visionprefer.audit import known_preferences_of
from visionprefer.errors import InputError
from visionprefer.reward.ablation import AblationFigures
from visionprefer.reward.ablation import table as ablation_table
from visionprefer.reward.card import best_epoch
from visionprefer.run_folder import RunFolder
from visionprefer.statistics.tables import Table as TextTable
from visionprefer.store import Store
from visionprefer_pipelines.show import print_tables


def show_reward(out: str, data: str, seconds: float, console: Console) -> None:
    """Print how a reward model learnt, where it is, and what to do with it."""
    record = json.loads(Store(out).read("training.json"))
    best = best_epoch(record)
    rows = [[name, f"{best['loss'][name]:.3f}", f"{share:.1%}"] for name, share in best["right"].items()]
    title = f"Validation, epoch {best['epoch']} of {len(record['history'])}, which was kept"
    print_tables([TextTable(title, ["score", "loss", "right"], rows)], console)
    console.print(f"{seconds:.0f} s. The model is in {out}, with its card")
    folder = shlex.quote(out)
    console.print(f"Next\n  visionprefer reward test {folder} --data {shlex.quote(data)}")
    console.print(f"  visionprefer score --model {folder} --prompt '…' IMAGE…")
    console.print(f"  visionprefer serve --model {folder}")


def show_reward_test(model_dir: str, data: str, against: str, split: str, console: Console) -> None:
    """Print how far a reward model agrees with what is known. Raises InputError if that cannot be told."""
    from visionprefer.reward.testing import score_run, test
    from visionprefer.reward.testing import tables as reward_tables
    from visionprefer.reward.vpscore import VPScore

    model, run = VPScore.from_pretrained(model_dir), RunFolder(Store(data))
    known = known_preferences_of(run, against)
    with console.status("scoring images"):
        found = score_run(model, run, None if split == "all" else split)
    figures = test(model, found, known, model_dir, against)
    console.print(f"{model_dir} against {against}: {figures.images:,} images of {data}, split {split}")
    print_tables(reward_tables(figures), console)


def show_scores(model_dir: str, prompt: str, files: list[Path], console: Console) -> None:
    """Print the scores of images for a prompt, the best first. Raises InputError if one cannot be read."""
    from visionprefer.imagebytes import open_image
    from visionprefer.reward.vpscore import VPScore

    model, images = VPScore.from_pretrained(model_dir), []
    for file in files:
        try:
            images.append(open_image(file.read_bytes()))
        except (InputError, OSError) as error:
            raise InputError(f"{file}: {error}") from error
    scored = model.score([prompt] * len(files), images)
    rows = [
        [str(file), f"{one.score:+.2f} ± {one.uncertainty:.2f}", *(f"{value:+.2f}" for value in one.aspects.values())]
        for file, one in sorted(zip(files, scored, strict=True), key=lambda pair: -pair[1].score)
    ]
    print_tables([TextTable(prompt, ["image", *model.config.scores], rows)], console)


def show_ablation(out: Path, figures: AblationFigures, console: Console) -> None:
    """Print what variants of a reward model are worth, and where it is written."""
    print_tables([ablation_table(figures)], console)
    console.print(f"Mean and standard deviation over the seeds: {out}/ablation.json, {out}/ablation.png")


def show_comparison(
    data: str, scorers: list[str], model_dir: str | None, against: str, split: str, console: Console
) -> None:
    """Have scorers score a run's images, and print how far they agree with what is known. Raises InputError."""
    from visionprefer.scorers.comparison import ScorerAgreement, agreement_of_judge, compare
    from visionprefer.scorers.comparison import tables as comparison_tables

    run, chosen = RunFolder(Store(data)), None if split == "all" else split
    known = known_preferences_of(run, against)
    for text in scorers:
        _score(run, text, console)
    found = compare(run, known, chosen)
    if model_dir:
        from visionprefer.reward.testing import score_run, test
        from visionprefer.reward.vpscore import VPScore

        model = VPScore.from_pretrained(model_dir)
        with console.status("vpscore"):
            figures = test(model, score_run(model, run, chosen), known, model_dir, against)
        found.append(
            ScorerAgreement(scorer="vpscore", judge=figures.model, images=figures.images, aspects=figures.aspects)
        )
    if against != "judge":
        found.append(agreement_of_judge(run, known, chosen))
    console.print(f"{data}, split {split}")
    print_tables(comparison_tables(found, against), console)


def _score(run: RunFolder, text: str, console: Console) -> None:
    from visionprefer.scorers.named import load_scorer
    from visionprefer.scorers.scoring import write_scores

    scorer = load_scorer(text)
    with console.status(scorer.name) as status:
        written = write_scores(run, scorer, lambda done, of: status.update(f"{scorer.name}: {done:,} of {of:,} images"))
    total = written.done + written.failed
    told = f"{total:,} images = {written.done:,} scored + {written.failed:,} failed; {written.before:,} were there"
    console.print(f"{scorer.name:<15} {told}")
