"""Jobs of a Ray cluster: package and recipe are shipped, the log comes back, and a death costs little."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from visionprefer.align.ppo_recipe import PPORecipe
from visionprefer.align.recipe import DPORecipe
from visionprefer.errors import InputError
from visionprefer.recipe import Recipe
from visionprefer.run_folder import RunFolder
from visionprefer.store import Store
from visionprefer_pipelines.commands import free_port
from visionprefer_pipelines.shipping import _shipped, command_of

pytestmark = pytest.mark.slow
RAY = str(Path(sys.executable).parent / "ray")


@pytest.fixture
def environment() -> dict[str, str]:
    """Our command and the cluster share a token, and `python` is this one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 32}
    return os.environ | token | {"PATH": path, "RAY_USAGE_STATS_ENABLED": "0"}


class Cluster:
    """A cluster of one node on loopback, that can be lost with all that runs on it, and started anew."""

    def __init__(self, log: Path, environment: dict[str, str]) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._log, self._environment = log, environment

    def start(self) -> None:
        # A socket's path has at most 107 characters, and pytest's folders are long.
        self._session = tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
        command = [RAY, "start", "--head", "--block", "--num-cpus=4", f"--temp-dir={self._session.name}"]
        ports = ["--node-ip-address=127.0.0.1", f"--port={free_port()}", f"--dashboard-port={self.port}"]
        # Jobs go through the node's agent, whose port is else always the same one, that of another Ray here too.
        ports.append(f"--dashboard-agent-listen-port={free_port()}")
        with self._log.open("a") as log:
            self._head = psutil.Popen([*command, *ports], stdout=log, stderr=log, env=self._environment)
        deadline = time.monotonic() + 90
        while not listens(self.port) and time.monotonic() < deadline:
            assert self._head.poll() is None, self._log.read_text()
            time.sleep(0.2)

    def lose(self) -> None:
        processes = [*self._head.children(recursive=True), self._head]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=20)
        self._session.cleanup()


@pytest.fixture
def cluster(tmp_path: Path, environment: dict[str, str]) -> Iterator[Cluster]:
    started = Cluster(tmp_path / "log", environment)
    started.start()
    yield started
    started.lose()


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return not tried.connect_ex(("127.0.0.1", port))


def visionprefer(*command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "visionprefer_pipelines.cli", *command]
    return subprocess.run(whole, env=environment, capture_output=True, text=True, timeout=300, check=False)


def shards(out: Path) -> int:
    return len(list((out / "images").glob("*.parquet")))


def driver_of(out: Path) -> psutil.Process | None:
    """The job that writes there."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "visionprefer_pipelines.cli" in command and "run" in command and str(out) in command:
            return process
    return None


def when_there_are(out: Path, images: int) -> None:
    """Wait until a job has written so many shards."""
    deadline = time.monotonic() + 240
    while shards(out) < images or driver_of(out) is None:
        assert time.monotonic() < deadline, f"{shards(out)} shards"
        time.sleep(0.05)


def test_the_wheel_and_the_recipe_run_as_a_job_and_whatever_ends_it_the_next_goes_on(
    cluster: Cluster, environment: dict[str, str], tmp_path: Path, tiny_sd: Path, tiny_llava: Path
) -> None:
    """One job is stopped by its user. The next is lost with its whole cluster, and is submitted to the cluster that
    stands there instead. Nothing is made twice.
    """
    (tmp_path / "prompts.txt").write_text("".join(f"a red cat, number {number}\n" for number in range(20)))
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
    out, at = tmp_path / "out", f"--address={cluster.address}"
    submitted = ("submit", str(tmp_path / "recipe.yaml"), "--out", str(out), at)

    detached = visionprefer(*submitted, "--detach", environment=environment)
    assert detached.returncode == 0, detached.stdout + detached.stderr
    first = re.findall(r"(trial-\S+): submitted", detached.stdout)[0]
    assert f"visionprefer stop {first} {at}".replace("=", " ") in " ".join(detached.stdout.split())
    when_there_are(out, 1)
    assert f"{first}: stopped" in visionprefer("stop", first, at, environment=environment).stdout
    assert "had ended already" in visionprefer("stop", first, at, environment=environment).stdout
    assert "stopped" in visionprefer("jobs", at, environment=environment).stdout
    before = shards(out)
    assert 0 < before < 20

    def lose() -> None:
        when_there_are(out, before + 1)
        cluster.lose()
        cluster.start()

    losing = threading.Thread(target=lose, daemon=True)
    losing.start()
    done = visionprefer(*submitted, "--retries=1", environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not losing.is_alive()
    second, third = re.findall(r"(trial-\S+): submitted", done.stdout)
    assert f"{second}: the cluster does not answer" in " ".join(done.stdout.split())
    assert f"{second}: failed" in done.stdout
    assert f"{third}: succeeded" in done.stdout
    assert "40 planned = 40 done + 0 failed" in done.stdout
    assert [tuple(counts) for counts in RunFolder(Store(out)).counts().values()] == [(40, 0, 0), (40, 0, 0)]

    listed = visionprefer("jobs", at, environment=environment).stdout
    assert third in listed and "succeeded" in listed and second not in listed
    assert "40 planned" in visionprefer("logs", third, at, environment=environment).stdout
    bearer = {"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"}
    about = httpx.get(f"{cluster.address}/api/jobs/{third}", headers=bearer).raise_for_status().json()
    assert about["runtime_env"]["py_modules"][0].endswith(".whl")

    unknown = visionprefer("logs", "nobody", at, environment=environment)
    assert unknown.returncode == 2
    assert f"nobody: the cluster has no such job. Its jobs: {third}" in unknown.stderr


def test_images_that_exist_are_judged_where_the_machines_find_them(tmp_path: Path) -> None:
    def shipped(existing: str) -> str:
        recipe = {"name": "r", "images": {"existing": existing}, "judge": {"model": "owner/judge"}}
        return str(_shipped(Recipe.model_validate(recipe), tmp_path)["images"]["existing"])

    assert shipped("/shared/pictures") == "/shared/pictures"
    assert shipped("s3://bucket/pictures") == "s3://bucket/pictures"
    with pytest.raises(InputError, match=r"pictures is not shipped .* Write the full path"):
        shipped("pictures")


def test_a_training_is_submitted_with_what_it_learns_from_and_nothing_else(tmp_path: Path) -> None:
    drawn = {"name": "p", "model": "owner/model", "prompts": {"path": "prompts.txt"}}
    dpo, ppo = DPORecipe(name="d", model="owner/model"), PPORecipe.model_validate(drawn)
    told = command_of(dpo, "s3://bucket/a model", data="/shared/run")
    assert told.endswith("cli dpo recipe.yaml --data /shared/run --out 's3://bucket/a model'")
    told = command_of(ppo, "/shared/ppo", endpoint="http://10.0.0.2:8000")
    assert told.endswith("cli ppo recipe.yaml --endpoint http://10.0.0.2:8000 --out /shared/ppo")
    with pytest.raises(InputError, match="--data: `dpo` wants the folder of the finished run"):
        command_of(dpo, "/shared/dpo")
    with pytest.raises(InputError, match="--data /shared/run: it is a recipe of `ppo`, which takes no --data"):
        command_of(ppo, "/shared/ppo", data="/shared/run", endpoint="http://10.0.0.2:8000")
    with pytest.raises(InputError, match="--endpoint: `ppo` wants the URL of a reward endpoint"):
        command_of(ppo, "/shared/ppo")
    with pytest.raises(InputError, match="--data runs/mine: a job's own folder goes when it ends"):
        command_of(dpo, "/shared/dpo", data="runs/mine")
    with pytest.raises(InputError, match="--retry-failed: d is a recipe of `dpo`, which has no rows"):
        command_of(dpo, "/shared/dpo", data="/shared/run", retry_failed=True)

    (tmp_path / "prompts.txt").write_text("a red circle")
    (tmp_path / "shipped").mkdir()
    drawn["prompts"] = {"path": str(tmp_path / "prompts.txt")}
    assert _shipped(PPORecipe.model_validate(drawn), tmp_path / "shipped")["prompts"]["path"] == "path.txt"
    assert (tmp_path / "shipped" / "path.txt").read_text() == "a red circle"


def test_a_training_runs_as_a_job(
    cluster: Cluster, environment: dict[str, str], tmp_path: Path, make_run: Callable[..., RunFolder], tiny_blip: Path
) -> None:
    run = make_run({f"prompt {n}": ("train", [[score] * 4 for score in (1, 5)]) for n in range(12)})
    recipe = {"name": "reward", "backbone": str(tiny_blip), "epochs": 1, "batch_size": 8, "validation": 0.25}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    submitted = ("submit", str(tmp_path / "recipe.yaml"), f"--address={cluster.address}", f"--out={tmp_path / 'model'}")
    done = visionprefer(*submitted, f"--data={run.store.root}", environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "epoch 1: validation loss" in done.stdout
    assert re.search(r"reward-\S+: succeeded", done.stdout)
    assert (tmp_path / "model" / "vpscore.json").exists()

    refused = visionprefer(*submitted, environment=environment)
    assert refused.returncode == 2
    assert "--data: `reward train` wants" in refused.stderr


def test_where_no_cluster_is_that_is_told(environment: dict[str, str], tmp_path: Path) -> None:
    recipe = {"name": "r", "prompts": {"path": "p"}, "images": {"models": [{"model": "m"}]}, "judge": {"model": "j"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = ("submit", str(tmp_path / "recipe.yaml"), "--out", "/out", f"--address=http://127.0.0.1:{free_port()}")
    answer = visionprefer(*command, environment=environment)
    assert answer.returncode == 2
    assert "no Ray cluster takes jobs there" in answer.stderr
    assert "Write that of its dashboard" in answer.stderr
