"""A run as a job of a Ray cluster: package and recipe are shipped, the log comes back, and a death costs little."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from visionprefer.run_folder import RunFolder
from visionprefer.store import Store

pytestmark = pytest.mark.slow
RAY = str(Path(sys.executable).parent / "ray")


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@pytest.fixture
def environment() -> dict[str, str]:
    """Our command and the cluster share a token, and `python` is this one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 32}
    return os.environ | token | {"PATH": path, "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture
def dashboard(tmp_path: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of a cluster of one node, on loopback."""
    port = free_port()
    # A socket's path has at most 107 characters, and pytest's folders are long.
    with tempfile.TemporaryDirectory(prefix="ray") as session, (tmp_path / "log").open("w") as log:
        command = [RAY, "start", "--head", "--block", "--num-cpus=4", f"--temp-dir={session}"]
        ports = ["--node-ip-address=127.0.0.1", f"--port={free_port()}", f"--dashboard-port={port}"]
        cluster = psutil.Popen([*command, *ports], stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + 90
        while not listens(port) and time.monotonic() < deadline:
            assert cluster.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
        processes = [*cluster.children(recursive=True), cluster]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=20)


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return not tried.connect_ex(("127.0.0.1", port))


def visionprefer(*command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "visionprefer_pipelines.cli", *command]
    return subprocess.run(whole, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_the_wheel_and_the_recipe_run_as_a_job_that_is_submitted_again_when_it_dies(
    dashboard: str, environment: dict[str, str], tmp_path: Path, tiny_sd: Path, tiny_llava: Path
) -> None:
    """The job is killed with the first images there; the same command takes it up, and nothing is made twice."""
    (tmp_path / "prompts.txt").write_text("".join(f"a red cat, number {number}\n" for number in range(12)))
    recipe = {
        "name": "trial",
        "prompts": {"path": "prompts.txt", "near_duplicate": None},
        "images": {
            "models": [{"model": str(tiny_sd), "num_inference_steps": 2}],
            "images_per_prompt": 2,
            "block_size": 2,
            "batch_size": 2,
        },
        "judge": {"model": str(tiny_llava), "rationale_length": 10},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    out, killed = tmp_path / "out", []

    def kill() -> None:
        """The job's driver, once, when the first images are there."""
        while not list((out / "images").glob("*.parquet")):
            time.sleep(0.05)
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if "visionprefer_pipelines.cli" in command and "run" in command and str(out) in command:
                process.kill()
                killed.append(process.pid)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    at = f"--address={dashboard}"
    submitted = ("submit", str(tmp_path / "recipe.yaml"), "--out", str(out), at)
    done = visionprefer(*submitted, "--retries=2", environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert killed
    first, second = re.findall(r"(trial-\S+): submitted", done.stdout)
    assert f"{first}: failed" in done.stdout
    assert f"{second}: succeeded" in done.stdout
    assert "24 planned = 24 done + 0 failed" in done.stdout
    assert [tuple(counts) for counts in RunFolder(Store(out)).counts().values()] == [(24, 0, 0), (24, 0, 0)]

    listed = visionprefer("jobs", at, environment=environment).stdout
    assert second in listed and "succeeded" in listed and "failed" in listed
    assert "24 planned" in visionprefer("logs", second, at, environment=environment).stdout
    assert "had ended already" in visionprefer("stop", second, at, environment=environment).stdout
    bearer = {"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"}
    about = httpx.get(f"{dashboard}/api/jobs/{second}", headers=bearer).raise_for_status().json()
    assert about["runtime_env"]["py_modules"][0].endswith(".whl")

    unknown = visionprefer("logs", "nobody", at, environment=environment)
    assert unknown.returncode == 2
    assert f"nobody: the cluster has no such job. Its jobs: {second}, {first}" in unknown.stderr


def test_where_no_cluster_is_that_is_told(environment: dict[str, str], tmp_path: Path) -> None:
    recipe = {"name": "r", "prompts": {"path": "p"}, "images": {"models": [{"model": "m"}]}, "judge": {"model": "j"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = ("submit", str(tmp_path / "recipe.yaml"), "--out", "out", f"--address=http://127.0.0.1:{free_port()}")
    answer = visionprefer(*command, environment=environment)
    assert answer.returncode == 2
    assert "no Ray cluster takes jobs there" in answer.stderr
    assert "Write that of its dashboard" in answer.stderr
