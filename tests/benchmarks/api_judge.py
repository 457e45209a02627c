"""How many of the possible requests a second a judge behind an API makes, and what becomes of 1,000 under a bad server.

    python tests/benchmarks/api_judge.py [--images 1000] [--concurrency 64]

The server stands on loopback and answers in one second, so that `concurrency` requests a second are possible. The rate
is taken between the arrivals of the first request and of the last `concurrency`, of a whole run on Ray. The bad server
answers half of the requests well, the others with 429, 500, half a reply, HTML, broken JSON, prose or too late.

2026-11-27, 2 cores of an AMD EPYC, nothing else running: 59.0 requests/s of 64 (92 %); under the bad server 1000
planned = 876 done + 124 failed, each with its reason.
"""

import argparse
import io
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

from chat_server import Answer, ChatServer, problem, said

from visionprefer.recipe import Recipe
from visionprefer.run_folder import RunFolder
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.run import run

JSON = {"content-type": "application/json"}
BAD = [
    problem(429, **{"retry-after": "0.2"}),
    problem(500),
    Answer(200, said().body, JSON, cut=60),
    Answer(200, "<html>Sign in</html>", {"content-type": "text/html"}),
    Answer(200, '{"choices": [', JSON),
    said("It is lovely."),
    said(""),
    said(wait=5),
]


def judged(server: ChatServer, folder: Path, out: str, **api: Any) -> RunFolder:
    """A run that judges the images of a folder."""
    recipe = {
        "name": "benchmark",
        "images": {"existing": str(folder), "block_size": 64},
        "judge": {"engine": "openai", "model": "judge", "api": {"base_url": server.url} | api},
    }
    with Progress(Console(file=io.StringIO())) as progress:
        return run(Recipe.model_validate(recipe), str(folder.parent / out), progress)


def main() -> None:
    """Print a rate as a share of the possible one, and a count of reasons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        folder.mkdir()
        for i in range(arguments.images):
            Image.new("RGB", (64, 64), (i % 256, i // 256, 0)).save(folder / f"{i:04}.png")
            (folder / f"{i:04}.txt").write_text(f"thing {i // 4}")

        good = ChatServer(lambda n, body: said(wait=1.0))
        judged(good, folder, "good", concurrency=arguments.concurrency)
        steady = good.times[: -arguments.concurrency]  # the last have no followers to wait for
        rate = (len(steady) - 1) / (steady[-1] - steady[0])
        share = rate / arguments.concurrency
        print(f"{rate:.1f} requests/s of {arguments.concurrency} that are possible: {share:.0%}")

        chance = random.Random(0)
        bad = ChatServer(lambda n, body: said() if chance.random() < 0.5 else chance.choice(BAD))
        counts = judged(bad, folder, "bad", concurrency=arguments.concurrency, timeout=2, retries=2)
        replies = counts.counts()["replies"]
        failed = counts.replies.failed()
        reasons = Counter(reason[:60] for reason in failed["error"].to_pylist()) if failed else {}
        print(f"bad server: {sum(replies)} planned = {replies.done} done + {replies.failed} failed")
        for reason, number in reasons.most_common(10):
            print(f"  {number:4} {reason}")


if __name__ == "__main__":
    main()
