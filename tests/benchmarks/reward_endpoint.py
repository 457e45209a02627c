"""The reward endpoint against the bare model, and against a server that makes no batches.

    python tests/benchmarks/reward_endpoint.py [--size small-blip|blocks-blip|blip-large]

All in one run, on one machine, the clients beside the server. The model has random heads; what it says does not matter.

1. Saturated by requests of 64 items in Arrow: items/s, against the bare model's at its batch size, in as many threads
   as there are cores. On the CPU the endpoint has as many replicas of one thread instead.
2. One client, one item at a time: what the endpoint adds to the bare forward, beside what it adds for a model of next
   to nothing (two layers of 32) in the same Serve application.
3. 32 clients, one item each at a time: items/s, against a FastAPI server that gives each request a forward of its own.

2026-11-27, 2 cores of an AMD EPYC, nothing else running, small-blip, 8 s each, two replicas of one thread: the bare
model 96.4 items/s; saturated 83.0, 0.86 of it (0.9 is wanted), p50 3.0 s, p95 4.1 s, p99 4.3 s; one item took 70 ms, 32
more than the bare forward, and 24 more for next to nothing; 32 clients 39.8 items/s, 2.01 of the server without
batches, in batches of 6.6 of 32.

On 2026-11-25, with one replica of two threads and other work beside it: 36.7 items/s bare, 27.5 saturated, 0.75 of it.
Where the rest went, in CPU time of all processes of the saturated endpoint: 28.8 of 33.3 ms an item were the model's,
as many as it takes alone; 0.9 Serve's controller, 0.7 each the client and the ingress, 0.8 GCS and raylet, 0.5 the
proxy, and most of that by the second, not by the item. A pass of two threads on two cores waits for whichever core the
others are on. With one replica of one thread, beside which a core is free, against the bare model in one thread:
0.96 and 0.90 of it in two of three turns, on a machine on which so much else ran that the third said 1.35.
"""

import argparse
import asyncio
import contextlib
import io
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image

from visionprefer.models import BUILTIN_MODELS
from visionprefer.random_backbones import blip
from visionprefer.reward.vpscore import Scored, VPScore
from visionprefer.settings import Workers
from visionprefer_pipelines.commands import free_port
from visionprefer_serve import wire
from visionprefer_serve.settings import EndpointSettings, ServedModel

BATCH, BULK, CLIENTS = 32, 64, 32
THREADS = os.cpu_count() or 1
HEADERS = {"Content-Type": wire.ARROW}


def pictures(count: int, size: int) -> list[bytes]:
    """PNGs of smooth noise."""
    chance = np.random.default_rng(0)
    written = []
    for _ in range(count):
        coarse = Image.fromarray(chance.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        file = io.BytesIO()
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(file, "PNG")
        written.append(file.getvalue())
    return written


def body(images: list[bytes], model: str | None = None) -> bytes:
    """A request."""
    return wire.write_arrow(wire.Request([wire.Item(f"prompt {n}", image) for n, image in enumerate(images)], model))


def bare(folder: Path, images: list[bytes], seconds: float) -> dict[str, float]:
    """The model alone, images opened: items/s in batches, and the milliseconds of one item in a replica's threads."""
    torch.set_num_threads(THREADS)
    model = VPScore.from_pretrained(folder, "cuda" if torch.cuda.is_available() else "cpu")
    opened = [Image.open(io.BytesIO(image)).convert("RGB") for image in images[:BATCH]]
    prompts = [f"prompt {n}" for n in range(BATCH)]
    model.score(prompts, opened, BATCH)
    began, items = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        items += len(model.score(prompts, opened, BATCH))
    rate = items / (time.perf_counter() - began)
    single = []
    torch.set_num_threads(THREADS if torch.cuda.is_available() else 1)
    for _ in range(50):
        began = time.perf_counter()
        model.score(prompts[:1], opened[:1])
        single.append(time.perf_counter() - began)
    return {"items/s": rate, "ms": 1000 * statistics.median(single)}


async def saturate(url: str, bodies: list[bytes], items: int, clients: int, seconds: float) -> dict[str, float]:
    """Clients that ask again as soon as they are answered."""
    taken: list[float] = []
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=120, limits=limits) as http:
        (await http.post("/v1/score", content=bodies[0])).raise_for_status()
        began = time.perf_counter()

        async def client(number: int) -> None:
            while time.perf_counter() - began < seconds:
                asked = time.perf_counter()
                response = await http.post("/v1/score", content=bodies[number % len(bodies)])
                response.raise_for_status()
                taken.append(time.perf_counter() - asked)

        await asyncio.gather(*map(client, range(clients)))
        rate = len(taken) * items / (time.perf_counter() - began)
    cuts = statistics.quantiles(taken, n=100)
    return {"items/s": rate, **{f"p{part} ms": 1000 * cuts[part - 1] for part in (50, 95, 99)}}


def unbatched(folder: str, port: int) -> None:
    """A FastAPI server around the same model: a forward for each request."""
    import threading

    import uvicorn
    from fastapi import FastAPI, Request, Response

    torch.set_num_threads(THREADS)
    model = VPScore.from_pretrained(Path(folder), "cuda" if torch.cuda.is_available() else "cpu")
    app, lock = FastAPI(), threading.Lock()

    def scored(asked: wire.Request) -> list[Scored]:
        images = [Image.open(io.BytesIO(item.image or b"")) for item in asked.items]
        with lock:
            return model.score([item.prompt for item in asked.items], images)

    @app.post("/v1/score")
    async def score(request: Request) -> Response:
        asked = wire.read_arrow(await request.body(), BULK)
        found = await asyncio.to_thread(scored, asked)
        answers = [wire.Answer(**each._asdict(), model="plain") for each in found]
        return Response(wire.write_answers(answers), media_type=wire.ARROW)

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


def endpoint(folders: dict[str, str], port: int) -> None:
    """The endpoint, as `visionprefer serve` starts it."""
    from visionprefer_pipelines.endpoint import serve_models

    on_gpu = torch.cuda.is_available()
    # On the CPU one-thread replicas: a pass of several threads waits for the slowest, and others want the cores too.
    workers = Workers(num_cpus=THREADS, num_gpus=0.5) if on_gpu else Workers(actors=THREADS)
    models = {name: ServedModel(path=path, workers=workers, max_batch_size=BATCH) for name, path in folders.items()}
    serve_models(EndpointSettings(models=models), "127.0.0.1", port, None, lambda url: print(f"serving at {url}"))


@contextlib.contextmanager
def listening(target: Any, served: Any) -> Iterator[str]:
    """The address of a server in a process beside this one, for as long as the block lasts."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = multiprocessing.get_context("spawn").Process(target=target, args=(served, port))
    server.start()
    nothing = body(pictures(1, 64))
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.post(f"{url}/v1/score", content=nothing, headers=HEADERS, timeout=60).is_success:
                break
        time.sleep(0.5)
    yield url
    server.terminate()
    server.join(60)


def filled(url: str) -> tuple[float, float]:
    """Items and batches so far, by the endpoint's own measures, once they have arrived."""
    time.sleep(15)
    found = httpx.get(f"{url}/metrics", timeout=60).text.splitlines()
    sums = [
        sum(float(line.rpartition(" ")[2]) for line in found if line.startswith(f"ray_serve_actual_batch_size_{part}"))
        for part in ("sum", "count")
    ]
    return sums[0], sums[1]


def told(name: str, figures: dict[str, float], **ratios: float) -> None:
    """Print a row."""
    listed = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
    print(f"{name:<38} {listed}" + "".join(f"  {name} {value:.2f}" for name, value in ratios.items()), flush=True)


def main() -> None:
    """Print rates, latencies and ratios."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--size", default="small-blip", choices=["small-blip", "blocks-blip", "blip-large"])
    arguments.add_argument("--seconds", type=float, default=20, help="of each measurement")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        built_in = BUILTIN_MODELS / given.size
        sizes = {"true": given.size, "tiny": "tiny-blip"}
        folders = {name: Path(parent) / name for name in sizes}
        for name, size in sizes.items():
            backbone = built_in if size == "blocks-blip" else blip(Path(parent) / size, size)
            VPScore.from_backbone(str(backbone)).save_pretrained(folders[name])
        pixels = VPScore.from_pretrained(folders["true"]).config.inputs.image_size
        images = pictures(BULK, pixels)
        alone = {name: bare(folder, images, given.seconds) for name, folder in folders.items()}
        with listening(unbatched, str(folders["true"])) as url:
            ones = [body([image]) for image in images]
            apart = asyncio.run(saturate(url, ones, 1, CLIENTS, given.seconds))
        with listening(endpoint, {name: str(folder) for name, folder in folders.items()}) as url:
            bulk = asyncio.run(saturate(url, [body(images)], BULK, 4, given.seconds))
            before = filled(url)
            together = asyncio.run(saturate(url, ones, 1, CLIENTS, given.seconds))
            after = filled(url)
            single = {
                name: asyncio.run(saturate(url, [body(images[:1], name)], 1, 1, given.seconds / 2)) for name in sizes
            }
    added = single["true"]["p50 ms"] - alone["true"]["ms"]
    added_to_tiny = single["tiny"]["p50 ms"] - alone["tiny"]["ms"]
    print(f"{given.size}, batches of {BATCH}, {THREADS} threads, {pixels} px")
    told("bare model", alone["true"])
    told(f"saturated by requests of {BULK}", bulk, of_bare=bulk["items/s"] / alone["true"]["items/s"])
    told("one client, one item", single["true"], ms_added=added)
    told("the same, a model of next to nothing", single["tiny"], ms_added=added_to_tiny)
    print(f"{'more than for next to nothing':<38} ms {added - added_to_tiny:.2f}")
    told(f"{CLIENTS} clients, one item each", together, of_unbatched=together["items/s"] / apart["items/s"])
    told("a server without batches", apart)
    print(f"{'items of a batch, at that':<38} {(after[0] - before[0]) / max(1, after[1] - before[1]):.1f} of {BATCH}")


if __name__ == "__main__":
    main()
