"""Clusters that cannot be reached or cannot place the actors: told at once, and without starting Ray."""

import socket
import time
from typing import Any

import pytest

from visionprefer.errors import InputError
from visionprefer.settings import Workers
from visionprefer_pipelines import cluster


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever cluster other tests left open stays out of this, and open."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)


@pytest.mark.parametrize(
    "address", ["nonsense", "127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999", "host.invalid:x"]
)
def test_an_address_without_a_cluster_is_told_at_once(address: str) -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match="no Ray cluster answers there") as raised, cluster.connected(address, {}):
        pass
    assert str(raised.value).startswith(f"--address {address}: ")
    assert "Write HOST:PORT" in str(raised.value)
    assert time.monotonic() - started < 10


def test_an_address_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(InputError, match=r"^RAY_ADDRESS nonsense: "), cluster.connected(None, {}):
        pass


def test_a_cluster_that_answers_is_joined_whatever_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[dict[str, Any]] = []
    monkeypatch.setattr("ray.init", lambda **options: joined.append(options))
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with cluster.connected(address, {"images.workers": Workers(num_gpus=64)}):
            assert joined[0]["address"] == address


def test_a_cluster_that_listens_on_loopback_alone_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would look for it at this machine's own address, for minutes."""
    monkeypatch.setattr(cluster, "resolve_ip_for_localhost", lambda _: "127.0.0.2")
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(InputError, match="no Ray cluster answers there"),
        cluster.connected(f"127.0.0.1:{server.getsockname()[1]}", {}),
    ):
        pass


def test_a_cluster_of_its_own_has_cores_for_every_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", lambda **options: started.append(options))
    monkeypatch.setattr("ray.cluster_resources", dict)
    stages = {
        "images.workers": Workers(actors=100, num_cpus=1.5),
        "judge.workers": Workers(actors=(50, 90), num_cpus=1.01),
    }
    with cluster.connected(None, stages):
        assert started[0]["num_cpus"] == 201


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        (
            {"images.workers": Workers(num_gpus=1), "judge.workers": Workers()},
            r"^images\.workers\.num_gpus is 1, and this machine has 0 GPUs: write num_gpus: 0, or --address of a",
        ),
        (
            {"images.workers": Workers(num_gpus=0.5, actors=(2, 4)), "judge.workers": Workers(resources={"tpu": 4})},
            r"^images\.workers\.num_gpus is 0\.5 for each of 2 actors, and",
        ),
        (
            {"judge.workers": Workers(resources={"tpu": 4})},
            r"^judge\.workers\.resources\.tpu is 4, .* 0 tpu: write resources: {}",
        ),
    ],
)
def test_actors_that_find_no_place_are_refused(stages: dict[str, Workers], told: str) -> None:
    with pytest.raises(InputError, match=told):
        cluster.check_resources(stages, {"CPU": 8})


def test_stages_share_what_there_is() -> None:
    cluster.check_resources(
        {"images.workers": Workers(num_gpus=0.5), "judge.workers": Workers(num_gpus=0.5)}, {"GPU": 1}
    )
    with pytest.raises(
        InputError, match=r"^images\.workers\.num_gpus is 1 and judge\.workers\.num_gpus is 1, .* has 1 GPU"
    ):
        cluster.check_resources(
            {"images.workers": Workers(num_gpus=1), "judge.workers": Workers(num_gpus=1)}, {"GPU": 1}
        )
