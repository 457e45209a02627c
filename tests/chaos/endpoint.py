"""PPO under attack: the endpoint that values its images loses its replica, and gives no wrong answer."""

import io
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from command import Command, command, settings, undisturbed
from PIL import Image
from trainings import Trained, history, moment
from verification import Outcome

from visionprefer.reward.vpscore import VPScore
from visionprefer.run_folder import RunFolder
from visionprefer.store import Store
from visionprefer_pipelines.commands import free_port
from visionprefer_serve.client import RewardClient

ROLLOUTS, IMAGES = 6, 8
RECIPE = {
    "rollouts": ROLLOUTS,
    "images": IMAGES,
    "images_per_prompt": 4,
    "min_count": 4,
    "updates": 2,
    "rollout_batch_size": 8,
    "batch_size": 8,
    "num_inference_steps": 10,
    "watch": "null",
}
REPLICA = "model-vpscore"  # in the command line of its process
SAME = 1e-2  # mean rewards of a rollout, whose images follow from the rewards before
RECOVERY = 120.0  # seconds
EXACT = 1e-4  # scores of an image, which may meet others in its forward pass


class Known(NamedTuple):
    """Images whose scores are known."""

    prompts: list[str]
    images: list[bytes]
    scores: list[float]


def known(data: Path, vpscore: Path) -> Known:
    """Some images of a run, with the scores that the model gives them in this process."""
    rows = RunFolder(Store(data)).images.table(["prompt", "image"]).slice(0, 8).to_pylist()
    prompts, images = [row["prompt"] for row in rows], [row["image"]["bytes"] for row in rows]
    scored = VPScore.from_pretrained(vpscore).score(prompts, [Image.open(io.BytesIO(image)) for image in images])
    return Known(prompts, images, [one.score for one in scored])


class Asker:
    """Asks an endpoint about known images again and again while the block lasts, and counts wrong answers."""

    def __init__(self, url: str, about: Known) -> None:
        self.url, self.about = url, about
        self.right = self.wrong = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        with RewardClient(self.url) as client:
            while not self._ended.wait(0.5):
                answers = client.score(self.about.prompts, self.about.images)
                for answer, score in zip(answers, self.about.scores, strict=True):
                    if answer.score is not None:
                        self.right += abs(answer.score - score) <= EXACT
                        self.wrong += abs(answer.score - score) > EXACT


class Endpoint(NamedTuple):
    """One that answers."""

    url: str
    serving: Command


@contextmanager
def served(vpscore: Path, log: Path) -> Iterator[Endpoint]:
    """An endpoint for as long as the block lasts."""
    port = free_port()
    with command("serve", "--model", vpscore, "--port", port, log=log) as serving:
        if not serving.wait_until("Ready at"):
            raise RuntimeError(f"{log}: the endpoint did not start")
        yield Endpoint(f"http://127.0.0.1:{port}", serving)


def words(url: str, out: Path) -> list[object]:
    """The command that learns from an endpoint."""
    return ["ppo", "blocks-ppo", "--endpoint", url, "--out", out, *settings(RECIPE)]


def ppo_undisturbed(vpscore: Path, folder: Path) -> Trained:
    """The training that others are compared with."""
    out = folder / "ppo"
    with served(vpscore, folder / "endpoint") as endpoint:
        return Trained(out, undisturbed(*words(endpoint.url, out), log=folder / "log"))


def attack(chance: random.Random, vpscore: Path, about: Known, model: Trained, folder: Path) -> Outcome | None:
    """One round: the replica is killed in a rollout drawn by lot. None if PPO ended before.

    A row is an image of a rollout: lost if it has no reward, redone if its rollout was told of once more, wrong if its
    rollout has another mean reward than undisturbed. Wrong are also answers to another client that asks all the while.
    """
    out = folder / "ppo"
    with served(vpscore, folder / "endpoint") as endpoint, Asker(endpoint.url, about) as asker:
        with command(*words(endpoint.url, out), log=folder / "log") as training:
            if not moment(training, "rollout {} of", chance.randrange(ROLLOUTS), chance):
                return None
            [replica] = endpoint.serving.processes(REPLICA)
            replica.kill()
            seconds = training.finish() - model.seconds
            told = Counter(re.findall(r"· rollout (\d+) of", training.printed))
        right, until = asker.right, time.monotonic() + RECOVERY
        while asker.right == right:
            if time.monotonic() > until:
                raise RuntimeError(f"{folder / 'endpoint'}: no answer within {RECOVERY:g} seconds of PPO's end")
            time.sleep(0.1)
    ours, theirs = ({row["rollout"]: row for row in history(at)} for at in (out, model.out))
    others = [n for n in ours.keys() & theirs.keys() if abs(ours[n]["reward"] - theirs[n]["reward"]) > SAME]
    return Outcome(
        lost=IMAGES * len(theirs.keys() - ours.keys()) + sum(row["failed"] for row in ours.values()),
        duplicated=IMAGES * (len(history(out)) - len(ours)),
        wrong=IMAGES * len(others) + asker.wrong,
        redone=IMAGES * sum(times - 1 for times in told.values()),
        seconds=seconds,
    )
