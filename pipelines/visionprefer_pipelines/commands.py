"""Commands of `visionprefer`, given one after the other as a person would give them, each told before it is run."""

import contextlib
import random
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import typer

from visionprefer.errors import InputError

_VISIONPREFER = (sys.executable, "-m", "visionprefer_pipelines.cli")


def run_command(*command: str, settings: tuple[str, ...] = ()) -> None:
    """Run a command to its end; where it fails, this process ends as it did.

    Args:
        command: without `visionprefer`.
        settings: each is given with --set.
    """
    command = (*command, *(part for setting in settings for part in ("--set", setting)))
    typer.echo(f"\n$ visionprefer {shlex.join(command)}")
    done = subprocess.run([*_VISIONPREFER, *command], check=False)
    if done.returncode:
        typer.echo("Stopped. What is done is kept: give the same command to go on", err=True)
        raise SystemExit(done.returncode)


@contextlib.contextmanager
def serving(model: Path, *options: str) -> Iterator[str]:
    """The address of a reward endpoint of this model, which is ready, and ends with the block.

    Args:
        model: its folder.
        options: further ones of `visionprefer serve`.

    Raises:
        InputError: if it does not start; it has said why.
    """
    port = free_port()
    command = ["serve", "--model", str(model), "--port", str(port), *options]
    typer.echo(f"\n$ visionprefer {shlex.join(command)} &")
    server = subprocess.Popen([*_VISIONPREFER, *command], stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        while not _is_ready(url):
            if server.poll() is not None:
                raise InputError(f"the endpoint of {model} did not start")
            time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    """A port of loopback on which nobody listens, below those that systems give out by themselves: another process, as
    Ray starts many, might be given one of those before it is listened on.
    """
    while True:
        port = random.randrange(20_000, 30_000)  # noqa: S311
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=60).is_success
    except httpx.TransportError:
        return False
