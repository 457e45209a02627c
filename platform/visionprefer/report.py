"""A run as one HTML file that needs no network: figures, pictures, scores and rationales.

Prompts and rationales are other people's words: all text is escaped, and the page forbids itself scripts and requests.
"""

from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionprefer.blocksworld.boundary import warning
from visionprefer.gallery import Gallery
from visionprefer.judging.rubric import SCORES
from visionprefer.run_folder import RunFolder
from visionprefer.statistics import read_statistics, tables

MOST_PICTURES = 400  # in the grid: with the bytes of a thumbnail, this keeps the file below 15 MB
MOST_CONTRASTS = 12  # best against worst
MOST_FAILURES = 100  # of a kind


class Failure(NamedTuple):
    """A row that failed, as it is shown."""

    what: str
    prompt: str
    reason: str
    seen: str | None  # the raw reply


def write_report(run: RunFolder, path: str | None = None, most_prompts: int = 48) -> str:
    """Write the report of a finished run.

    Args:
        run: a finished run.
        path: a local file; None: report.html in the run's folder.
        most_prompts: prompts in the grid, chosen evenly over the margins between best and worst image.

    Returns:
        Where the report is.

    Raises:
        InputError: if the run is not finished.
    """
    html = report(run, most_prompts).encode()
    if path is None:
        run.store.write("report.html", html)
        return f"{run.store.root}/report.html"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(html)
    return path


def report(run: RunFolder, most_prompts: int = 48) -> str:
    """The report as HTML; see `write_report`."""
    run.check_finished()
    figures = read_statistics(run)
    gallery = Gallery(run)
    in_grid, in_contrast = gallery.spread(most_prompts, MOST_PICTURES), gallery.contrasts(MOST_CONTRASTS)
    prompts = gallery.prompts([*in_grid, *in_contrast])
    failures = _failed_images(run) + _failed_replies(run)
    return (
        environment()
        .get_template("report.html")
        .render(
            run=run,
            figures=figures,
            warning=warning(run.recipe, run.prompts()["prompt"].to_pylist()),
            tables=tables(figures),
            histograms={aspect: _histogram(figures.aspects[aspect].scores) for aspect in figures.aspects},
            contrasts=[prompts[prompt_id] for prompt_id in in_contrast],
            prompts=[prompts[prompt_id] for prompt_id in in_grid],
            all_prompts=len(gallery),
            thumbnails=gallery.thumbnails(judged for prompt in prompts.values() for judged in prompt.images),
            failures=failures,
            rejected=run.rejected_prompts().slice(0, MOST_FAILURES).to_pylist(),
        )
    )


def environment() -> jinja2.Environment:
    """For pages: all text is escaped."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("visionprefer"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.globals["scale"] = SCORES
    return made


def _histogram(counts: dict[float, int]) -> list[tuple[float, int]]:
    """Counts along the whole scale, in half points if there are any; of scores off the scale, those there are."""
    if not counts or min(counts) < SCORES[0] or max(counts) > SCORES[1]:
        return sorted(counts.items())
    step = 1.0 if all(float(score).is_integer() for score in counts) else 0.5
    return [(float(score), counts.get(float(score), 0)) for score in np.arange(SCORES[0], SCORES[1] + step, step)]


def _failed_images(run: RunFolder) -> list[Failure]:
    failed = run.images.failed()
    failures = []
    for row in failed.slice(0, MOST_FAILURES).to_pylist() if failed else []:
        what = f"image {row['candidate']} by {row['model']}" if row["model"] else f"image {row['source']}"
        failures.append(Failure(what, row["prompt"], row["error"], None))
    return failures


def _failed_replies(run: RunFolder) -> list[Failure]:
    failed = run.replies.failed()
    if not failed:
        return []
    rows = failed.slice(0, MOST_FAILURES).to_pylist()
    images = run.images.table(["image_id", "prompt", "candidate"])
    asked_about = pa.array([row["image_ids"][0] for row in rows], pa.string())
    by_id = {image["image_id"]: image for image in images.filter(pc.is_in(images["image_id"], asked_about)).to_pylist()}
    failures = []
    for row in rows:
        image = by_id[row["image_ids"][0]]
        what = f"reply of {row['judge']} to image {image['candidate']}"
        failures.append(Failure(what, image["prompt"], row["error"], row["raw"]))
    return failures
