"""What more nodes, more rows and a million planned images cost.

    python tests/benchmarks/scale.py [--seconds 1] [--rows 1000 10000 100000] [--planned 1000000]

Runs go through the whole pipeline, with stages that sleep in the place of models: images are single pixels, and replies
always the same. First one, two and four nodes, with an image actor and a judge on each and as much work for each, all
on this machine: how much of so many times one node's speed there is. Then runs of more and more rows, without sleep:
the peak memory of the driver and of Ray's head, each in a process of its own. Last the plan alone, of so many images.

2026-11-27, 2 cores of an AMD EPYC, nothing else running: one, two and four nodes gave 29.9, 60.0 and 122.4 of the 32,
64 and 128 rows a second that sleep alone allows: 1.00, 1.00 and 1.02 of linear. On 2026-11-28, beside other
work, 1,000, 10,000, 100,000 and a million rows took 23, 26, 115 and 1,021 s, and the driver 252, 258, 293 and 945 MiB
while it streamed, of which the last is the plan's, 309, 376, 640 and 1,825 MiB when it compared the scores, 8,192
prompts at a time, and counted them; Ray's head took 81, 86, 112 and 298 MiB. So it is not flat: 1.3 kB of the driver's
and 0.2 of the head's memory come with each row. That was with plans as tables, of 889 MiB for a million images. Drawn
as numbers and written block by block they take as long and 384 MiB: the same day, on a slower machine, 98 s of a core.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from PIL import Image

from visionprefer.judging.asking import Asker
from visionprefer.judging.engine import Reply, Request
from visionprefer.recipe import Recipe
from visionprefer.schema import ASPECTS, FAILED_IMAGES, IMAGES

UNIT = 32  # rows
UNITS_OF_A_NODE = 40
VERDICT = json.dumps({aspect: {"rationale": "Seen.", "score": 3} for aspect in ASPECTS})


class SleepingImages:
    """A stage that makes single pixels, and takes so many seconds for a unit."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        buffer = io.BytesIO()
        Image.new("RGB", (1, 1)).save(buffer, "png")
        made = {"width": 1, "height": 1, "unsafe": None, "device": "none", "dtype": "none"}
        self.made = made | {"image": {"bytes": buffer.getvalue(), "path": "pixel.png"}}

    def __call__(self, plan: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Columns in: PLAN. Columns out: IMAGES, and no failed rows."""
        time.sleep(self.seconds)
        rows = [{name: (row | self.made)[name] for name in IMAGES.names} for row in plan.to_pylist()]
        return pa.Table.from_pylist(rows, schema=IMAGES), FAILED_IMAGES.empty_table()

    def describe(self) -> str:
        """Nothing was chosen."""
        return "images are pixels"


class SleepingEngine:
    """A judge that says the same of all images, and takes so many seconds for a unit."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """A verdict on each."""
        if requests:  # none is asked about a second time
            time.sleep(self.seconds)
        return [Reply(VERDICT, 100, 50) for _ in requests]

    def describe(self) -> str:
        """Nothing was chosen."""
        return "replies are all alike"


@contextmanager
def sleeping(seconds: float) -> Iterator[None]:
    """Let the pipeline's actors sleep so long for each unit, in the place of its models."""
    from visionprefer_pipelines import answers, dataset

    def asker(questions: Any, *_: Any) -> Callable[[], Asker]:
        return lambda: Asker(questions, SleepingEngine(seconds))

    before = dataset._image_stage, answers.asker
    dataset._image_stage, answers.asker = lambda *_: lambda: SleepingImages(seconds), asker
    try:
        yield
    finally:
        dataset._image_stage, answers.asker = before


def recipe_of(folder: Path, images: int, actors: int) -> Recipe:
    """Prompts for so many images, four each, and random weights that nobody loads."""
    from visionprefer import random_models

    models = folder / "models"
    if not models.exists():
        random_models.stable_diffusion(models / "image", size="tiny-sd")
        random_models.llava(models / "judge")
    prompts = folder / f"{images}.txt"
    prompts.write_text("\n".join(f"a photo of thing number {number}" for number in range(images // 4)))
    drawn = {"model": str(models / "image"), "guidance_scale": {"low": 3, "high": 12, "step": 1}}
    return Recipe.model_validate(
        {
            "name": "scale",
            "prompts": {"path": str(prompts), "near_duplicate": None},
            "images": {"models": [drawn], "block_size": UNIT, "workers": {"actors": actors}},
            "judge": {"model": str(models / "judge"), "workers": {"actors": actors}},
        }
    )


class Seen(NamedTuple):
    """What a run showed while it streamed."""

    done: list[tuple[float, int]]  # when how many replies were there
    head_mib: float  # peak memory of Ray's head, where this process started it


def go(recipe: Recipe, out: Path) -> Seen:
    """Run it."""
    from rich.console import Console

    from visionprefer.shards import Counts
    from visionprefer_pipelines.progress import Progress
    from visionprefer_pipelines.run import run

    done, head = [], [0.0]

    class Watch(Progress):
        """Looks on."""

        def update(self, images: Counts, replies: Counts, waits: str = "") -> None:
            done.append((time.monotonic(), replies.done))
            head.append(head_peak())

    run(recipe, str(out), Watch(Console(quiet=True)))
    return Seen(done, max(head))


def speed(seen: list[tuple[float, int]]) -> float:
    """Replies a second, between a fifth and four fifths of them: actors start, and end, one after the other."""
    planned = seen[-1][1]
    inner = [(moment, done) for moment, done in seen if 0.2 * planned <= done <= 0.8 * planned]
    (first, few), (last, many) = inner[0], inner[-1]
    return (many - few) / (last - first)


def on_nodes(folder: Path, nodes: int, seconds: float) -> float:
    """Replies a second of a run on so many nodes."""
    import ray
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**small)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        with sleeping(seconds):
            return speed(go(recipe_of(folder, UNIT * UNITS_OF_A_NODE * nodes, nodes), folder / f"nodes-{nodes}").done)
    finally:
        ray.shutdown()
        cluster.shutdown()


def peak(process: int | str = "self") -> float:
    """Most memory that a process had, in MiB; `resource` would count what its parent had when it was forked."""
    return int(Path(f"/proc/{process}/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def head_peak() -> float:
    """Most memory that Ray's control store and its raylet had, in MiB, where this process started them."""
    import psutil

    started = psutil.Process().children()
    return sum(peak(process.pid) for process in started if process.name() in ("gcs_server", "raylet"))


def of_rows(folder: Path, images: int) -> dict[str, float]:
    """A run in this process, without sleep: seconds, and the peak memory of the driver, streaming and in all, and of
    Ray's head.
    """
    started, at_end_of_stream = time.monotonic(), []

    with sleeping(0):
        from visionprefer_pipelines import run as running

        derive = running._derive
        running._derive = lambda *given: at_end_of_stream.append(peak()) or derive(*given)
        seen = go(recipe_of(folder, images, 1), folder / f"rows-{images}")
    return {
        "seconds": time.monotonic() - started,
        "streamed_mib": at_end_of_stream[0],
        "peak_mib": peak(),
        "head_mib": seen.head_mib,
    }


def of_plan(folder: Path, images: int) -> dict[str, float]:
    """The plan of so many images in this process: seconds, those of a core, and peak memory."""
    from visionprefer.store import Store
    from visionprefer_pipelines.preparation import prepare

    recipe = recipe_of(folder, images, 1)
    started, of_core = time.monotonic(), time.process_time()
    prepare(recipe, Store(folder / f"planned-{images}"))
    return {
        "seconds": time.monotonic() - started,
        "core_seconds": time.process_time() - of_core,
        "peak_mib": peak(),
    }


def apart(what: str, folder: Path, images: int) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, what, str(folder), str(images)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    if sys.argv[1:2] in (["of_rows"], ["of_plan"]):
        print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1, help="that a stage sleeps for a unit of 32 rows")
    parser.add_argument("--nodes", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--planned", type=int, nargs="*", default=[1_000_000])
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, one = Path(temporary), 0.0
        recipe_of(folder, UNIT, 1)  # makes the models, for which the runs that are measured would load torch
        for nodes in settings.nodes:
            reached = on_nodes(folder, nodes, settings.seconds)
            one = one or reached / nodes
            print(f"{nodes} nodes       {reached:8.1f} rows/s = {reached / nodes / one:.2f} of linear", flush=True)
        for images in settings.rows:
            found = apart("of_rows", folder, images)
            print(
                f"{images:9,} rows {found['seconds']:6.0f} s, driver's peak {found['streamed_mib']:.0f} MiB streaming, "
                f"{found['peak_mib']:.0f} MiB in all; head's {found['head_mib']:.0f} MiB",
                flush=True,
            )
        for images in settings.planned:
            found = apart("of_plan", folder, images)
            print(
                f"{images:9,} planned {found['seconds']:6.0f} s, {found['core_seconds']:.0f} s of a core, "
                f"peak {found['peak_mib']:.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
