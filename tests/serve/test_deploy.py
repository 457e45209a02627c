"""The config that `serve deploy` takes, and an endpoint that Ray's own command starts from it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import ray
import yaml
from ray.serve.schema import ServeDeploySchema

import visionprefer_serve
from visionprefer_pipelines.commands import free_port
from visionprefer_serve.settings import EndpointSettings

CONFIG = Path(visionprefer_serve.__file__).parent / "config.yaml"


def test_the_config_is_what_ray_and_the_endpoint_take() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    deployed = ServeDeploySchema.model_validate(config)
    settings = EndpointSettings.model_validate(deployed.applications[0].args)
    assert settings.models["vpscore"].workers.actors == (1, 8)
    assert settings.tokens


@pytest.fixture
def deployed(vpscores: dict[str, Path], tmp_path: Path) -> Iterator[int]:
    """The port of an endpoint on all interfaces, without tokens."""
    port = free_port()
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    config["http_options"]["port"] = port
    config["applications"][0]["args"] = {"models": {"blip": {"path": str(vpscores["blip"])}}}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [str(Path(sys.executable).parent / "serve"), "run", str(file)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    yield port
    for each in [*psutil.Process(process.pid).children(recursive=True), process]:
        each.kill()
    process.wait()


@pytest.mark.slow
def test_ray_starts_it_from_the_config_and_without_tokens_it_answers_its_own_machine_alone(deployed: int) -> None:
    answered = None
    deadline = time.monotonic() + 120
    while answered is None or answered.status_code != 200:
        assert time.monotonic() < deadline, answered
        time.sleep(0.5)
        try:
            answered = httpx.get(f"http://127.0.0.1:{deployed}/readyz")
        except httpx.TransportError:
            continue
    address = f"http://{ray.util.get_node_ip_address()}:{deployed}/readyz"
    assert httpx.get(address, headers={"Host": "localhost"}).status_code == 403
    assert httpx.get(address).status_code == 400
