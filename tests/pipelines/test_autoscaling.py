"""Ray's own autoscaler, with the node types of cluster.yaml, whose nodes are processes here: what a run wants comes
when it is wanted, and goes.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from ray._private.services import get_node_ip_address
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE

from visionprefer.run_folder import RunFolder
from visionprefer.store import Store
from visionprefer_pipelines.commands import free_port

pytestmark = pytest.mark.slow
IDLE_MINUTES = 0.1
CLUSTER = yaml.safe_load((Path(__file__).parents[2] / "cluster.yaml").read_text())
TYPES = {
    FAKE_HEAD_NODE_TYPE if name == CLUSTER["head_node_type"] else name: node | {"node_config": {}}
    for name, node in CLUSTER["available_node_types"].items()
}
POOLS = frozenset({"draw", "judge", "train", "serve"})
COMMANDS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
WATCH = """
import json, sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
while True:
    print("nodes", json.dumps([node["Resources"] for node in ray.nodes() if node["Alive"]]), flush=True)
    time.sleep(0.5)
"""


def alive(said: Iterable[str]) -> list[dict[str, float]]:
    """What the nodes have that are there now; now and then Ray says something of its own between."""
    line = next(line for line in said if line.startswith("nodes "))
    nodes: list[dict[str, float]] = json.loads(line.removeprefix("nodes "))
    return nodes


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A head without work, whose autoscaler may start nodes of TYPES."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 32)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    port = free_port()
    address = f"{get_node_ip_address()}:{port}"
    provider = {
        "type": "external",  # Ray's wheel lacks the defaults of its type fake_multinode
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "head_node_id": FAKE_HEAD_NODE_ID,
        "gcs_address": address,
        "launch_multiple": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    config = {
        "cluster_name": "fake",
        "provider": provider,
        "available_node_types": TYPES,
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "max_workers": CLUSTER["max_workers"],
        "idle_timeout_minutes": IDLE_MINUTES,
        "upscaling_speed": 1,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        **{f"{when}_commands": [] for when in COMMANDS},
    }
    (tmp_path / "cluster.json").write_text(json.dumps(config))
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={port}", "--num-cpus=0"]
    command += [f"--autoscaling-config={tmp_path}/cluster.json", "--include-dashboard=false"]
    # A folder of its own, so that nobody takes this for the cluster of the machine; short, as names of sockets must be.
    files = Path(tempfile.mkdtemp(prefix="ray-"))
    command += [f"--temp-dir={files}"]
    environment = os.environ | {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_worker_prestart": "0",  # of a process for each of so many CPUs, which are not there
    }
    with (tmp_path / "head.log").open("w") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while "Ray runtime started" not in (said := (tmp_path / "head.log").read_text()):
            assert head.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.2)
        yield address
    finally:
        started = psutil.Process(head.pid)  # not `ray stop`, which would stop other clusters too
        for process in [*started.children(recursive=True), started]:
            process.kill()
        head.wait(60)
        shutil.rmtree(files, ignore_errors=True)


def test_a_run_gets_the_nodes_that_it_wants_and_lets_them_go(address: str, tmp_path: Path) -> None:
    """Machines of the two pools that recipes at full size name, and of no other."""
    watch = subprocess.Popen([sys.executable, "-c", WATCH, address], stdout=subprocess.PIPE, text=True)
    assert watch.stdout is not None
    try:
        assert all("GPU" not in node and "CPU" not in node for node in alive(watch.stdout))
        settings = ["prompts.sample=8", "images.block_size=4"]
        for stage, pool in (("images", "draw"), ("judge", "judge")):
            settings.append(f"{stage}.workers={{num_cpus: 4, num_gpus: 1, resources: {{{pool}: 1}}}}")
        command = [sys.executable, "-m", "visionprefer_pipelines.cli", "run", "quickstart", "--address", address]
        command += ["--out", f"{tmp_path}/run", *(word for setting in settings for word in ("--set", setting))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert RunFolder(Store(tmp_path / "run")).is_finished
        deadline, nodes, came = time.monotonic() + 120, [{"CPU": 1.0}], set[frozenset[str]]()
        while len(came) < 2 or any("CPU" in node for node in nodes):  # from before the run until nothing is left of it
            nodes = alive(watch.stdout)
            came |= {POOLS & set(node) for node in nodes if "CPU" in node}
            assert time.monotonic() < deadline, f"came: {came}; now {nodes}"
        assert came == {frozenset({"draw"}), frozenset({"judge"})}
    finally:
        watch.kill()
