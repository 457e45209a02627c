"""Commands of `visionprefer`, given one after the other as a person would give them, each told before it is run."""

import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

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


@contextmanager
def serving(model: Path) -> Iterator[str]:
    """The address of a reward endpoint of this model, as long as the block lasts; who asks waits until it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["serve", "--model", str(model), "--port", str(port)]
    typer.echo(f"\n$ visionprefer {shlex.join(command)} &")
    server = subprocess.Popen([*_VISIONPREFER, *command], stdout=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
