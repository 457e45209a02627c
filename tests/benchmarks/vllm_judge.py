"""The built-in judge in vLLM, inside a run, against a plain loop of transformers' generate.

    python tests/benchmarks/vllm_judge.py [--images 1024]

Needs vLLM. The images are spoilt scenes. vLLM's rate is taken in the run, from the first reply that is committed to the
last, so that its start does not count; how busy the engine is, is the share of that time in which its process computes,
asked every half second. The plain loop generates without grammar, stopping at the same number of tokens, with the best
of several batch sizes. Both choose the likeliest token; the share of scores on which they agree is printed too.

2026-11-27, 2 cores of an AMD EPYC, nothing else running, 512 images: vLLM 44.1 images/s, its engine busy all the time
once warm; transformers 21.2, 36.1, 46.0, 46.9 and 47.5 images/s in batches of 8 to 128: vLLM 0.93 of its best. Equal
scores on all aspects of 256 images. So small a model gains nothing from paged attention, and vLLM holds each reply to a
grammar, which the plain loop does not.
"""

import argparse
import importlib.util
import io
import itertools
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from PIL import Image
from rich.console import Console

from visionprefer.blocksworld.scenes import sample
from visionprefer.blocksworld.spoiler import spoil
from visionprefer.blocksworld.wording import word
from visionprefer.judging.rubric import UnusableReply, parse_reply, question
from visionprefer.models import BUILTIN_MODELS
from visionprefer.recipe import Recipe
from visionprefer.run_folder import RunFolder
from visionprefer.schema import ASPECTS
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.run import run

MODEL = BUILTIN_MODELS / "blocks-llava"
MOST_TOKENS = 256
BATCH_SIZES = (8, 16, 32, 64, 128)
BLOCK = 32  # images


class EngineWatch:
    """Asks every half second whether vLLM's engine computes."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, bool]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def busy(self, begin: float, end: float) -> float:
        """The share of a span of time in which it did; times of `time.time`."""
        self._ended.set()
        self._thread.join()
        within = [busy for when, busy in self.asked if begin <= when <= end]
        return sum(within) / len(within)

    def _watch(self) -> None:
        engines: dict[int, psutil.Process] = {}
        while not self._ended.wait(0.5):
            for process in psutil.Process().children(recursive=True):
                if process.pid not in engines and "EngineCore" in process.name():
                    engines[process.pid] = process
            used = [process.cpu_percent() for process in engines.values() if process.is_running()]
            self.asked.append((time.time(), sum(used) > 50))


def in_vllm(pictures: Path, out: Path) -> tuple[RunFolder, float, float]:
    """The run, its images a second once warm, and how busy the engine was then."""
    judge = {
        "engine": "vllm",
        "model": str(MODEL),
        "max_new_tokens": MOST_TOKENS,
        "batch_size": 64,
        "engine_kwargs": {"max_model_len": 512},
    }
    recipe = {"name": "benchmark", "images": {"existing": str(pictures), "block_size": BLOCK}, "judge": judge}
    watch = EngineWatch()
    with Progress(Console(file=io.StringIO())) as progress:
        folder = run(Recipe.model_validate(recipe), str(out), progress)
    times = sorted(file.stat().st_mtime for file in out.glob("replies/*/*.parquet"))
    rate = BLOCK * (len(times) - 1) / (times[-1] - times[0])
    return folder, rate, watch.busy(times[0], times[-1])


def plain(prompts: list[str], images: list[Image.Image], size: int) -> tuple[list[str], float]:
    """Replies of transformers' own loop in batches of a size, and images a second."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(MODEL)
    model = AutoModelForImageTextToText.from_pretrained(MODEL, dtype=torch.float32).eval()

    def conversation(prompt: str, image: Image.Image) -> list[dict[str, Any]]:
        content = [{"type": "image", "image": image}, {"type": "text", "text": question(prompt)}]
        return [{"role": "user", "content": content}]

    told: list[str] = []
    began = time.monotonic()
    for start in range(0, len(prompts), size):
        asked = list(itertools.starmap(conversation, zip(prompts[start:], images[start : start + size], strict=False)))
        inputs = processor.apply_chat_template(
            asked,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=MOST_TOKENS, do_sample=False)
        told += processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return told, len(prompts) / (time.monotonic() - began)


def agreement(folder: RunFolder, names: list[str], told: list[str]) -> float:
    """On which share of the aspects both give one score; a reply of the plain loop without a verdict agrees on none."""
    sources = dict(zip(*folder.images.table(["image_id", "source"]).to_pydict().values(), strict=True))
    ours = {(sources[row["image_id"]], row["scorer"]): row["score"] for row in folder.judgements().to_pylist()}
    same = 0
    for name, reply in zip(names, told, strict=True):
        try:
            verdict = parse_reply(reply)
        except UnusableReply:
            continue
        same += sum(ours.get((name, aspect)) == getattr(verdict, aspect).score for aspect in ASPECTS)
    return same / (len(names) * len(ASPECTS))


def main() -> None:
    """Print rates, their ratio, how busy the engine was, and on how many scores both agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    arguments = parser.parse_args()
    if importlib.util.find_spec("vllm") is None:
        print("vLLM is not installed in this environment: there is nothing to compare")
        return
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary:
        pictures = Path(temporary) / "pictures"
        pictures.mkdir()
        names, prompts, images = [], [], []
        for i in range(arguments.images):
            wish = sample("training", chance)
            names.append(str(pictures / f"{i:04}.png"))
            prompts.append(word(wish, chance))
            images.append(spoil(wish, chance).picture)
            images[-1].save(names[-1])
            Path(names[-1]).with_suffix(".txt").write_text(prompts[-1])
        folder, rate, busy = in_vllm(pictures, Path(temporary) / "out")
        print(f"vLLM in the run: {rate:.1f} images/s, the engine busy {busy:.0%} of the time once warm")
        few = min(256, arguments.images)
        rates = {size: plain(prompts[:few], images[:few], size) for size in BATCH_SIZES}
        for size, (_, of_size) in rates.items():
            print(f"transformers, batches of {size}: {of_size:.1f} images/s")
        best = max(rates, key=lambda size: rates[size][1])
        print(f"vLLM / transformers at its best: {rate / rates[best][1]:.2f}")
        print(f"same score on {agreement(folder, names[:few], rates[best][0]):.1%} of the aspects of {few} images")


if __name__ == "__main__":
    main()
