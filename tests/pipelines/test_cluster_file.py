"""A cluster's file says which actors could be placed; those that would wait for ever are told before they do."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from visionprefer.errors import InputError
from visionprefer.settings import Workers
from visionprefer_pipelines.cli import app
from visionprefer_pipelines.cluster_file import NodeType, check_cluster, read_cluster

CLUSTER = """
max_workers: 12
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}, node_config: {}}
  cpu: {resources: {CPU: 16}, max_workers: 4, node_config: {}}
  gpu: {resources: {CPU: 8, GPU: 1}, max_workers: 8, node_config: {}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    return tmp_path / "cluster.yaml"


def workers(**settings: object) -> Workers:
    return Workers.model_validate(settings)


def test_machines_are_counted_as_the_autoscaler_would_start_them(file: Path, tmp_path: Path) -> None:
    cluster = read_cluster(file)
    kinds = {kind.name: kind for kind in cluster.kinds}
    assert kinds["head"] == NodeType("head", {"CPU": 0.0}, 1)
    assert kinds["gpu"] == NodeType("gpu", {"CPU": 8.0, "GPU": 1.0}, 8)
    told = yaml.safe_load(CLUSTER)
    told["max_workers"] = 3
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(told))
    assert {kind.name: kind.most for kind in read_cluster(tmp_path / "small.yaml").kinds} == {
        "head": 1,
        "cpu": 3,
        "gpu": 3,
    }


def test_all_kinds_together_are_no_more_than_the_cluster_may_have(tmp_path: Path) -> None:
    """Three machines of each of two kinds, and three in all."""
    told = yaml.safe_load(CLUSTER)
    told["max_workers"] = 3
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(told))
    assert check_cluster({"judge.workers": workers(actors=4, num_cpus=8)}, tmp_path / "small.yaml")
    with pytest.raises(InputError, match="there is room for 8"):
        check_cluster({"judge.workers": workers(actors=9, num_cpus=8)}, tmp_path / "small.yaml")


def test_where_actors_could_be_placed_is_told(file: Path) -> None:
    stages = {"images.workers": workers(actors=4, num_gpus=1), "judge.workers": workers(actors=(2, 9), num_cpus=4)}
    assert check_cluster(stages, file) == [
        "images.workers: 4 actors of 1 CPU and 1 GPU; there is room for 8 gpu",
        "judge.workers: 2 actors of 4 CPU; there is room for 16 cpu, 16 gpu",
    ]


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        (
            {"judge.workers": workers(num_gpus=2)},
            "judge.workers: an actor wants 1 CPU and 2 GPU, and no machine has so much (head: 0 CPU; cpu: 16 CPU; ",
        ),
        (
            {"images.workers": workers(actors=9, num_gpus=1)},
            "images.workers.actors is 9, each of 1 CPU and 1 GPU, and there is room for 8 (8 gpu): write fewer actors",
        ),
        (
            {"images.workers": workers(actors=5, num_gpus=1), "judge.workers": workers(actors=4, num_gpus=1)},
            "images.workers and judge.workers work at once and want 9 GPU together, and all machines have 8: ",
        ),
        (
            {"images.workers": workers(resources={"spot": 1})},
            "images.workers: an actor wants 1 CPU and 1 spot, and no machine has so much",
        ),
    ],
)
def test_what_would_wait_for_ever_is_told(file: Path, stages: dict[str, Workers], told: str) -> None:
    with pytest.raises(InputError) as raised:
        check_cluster(stages, file)
    assert "some actors would wait for ever" in str(raised.value)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "no cluster of Ray's autoscaler that says what it may start: ParserError"),
        ("available_node_types: {}", "KeyError: 'head_node_type'"),
        ("[1]", "AttributeError: "),
        ("{available_node_types: {gpu: {}}, head_node_type: gpu, max_workers: 1}", "KeyError: 'resources'"),
    ],
)
def test_a_file_that_is_no_cluster_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError) as raised:
        read_cluster(tmp_path / "c.yaml")
    assert told in str(raised.value)


def test_trainings_are_checked_against_a_cluster_too(file: Path) -> None:
    for recipe, told in (
        ("blocks-ppo", "rollout_workers: 1 actors of 1 CPU"),
        ("blocks-vpscore", "starts from blocks-b"),
    ):
        answer = CliRunner().invoke(app, ["recipe", "check", recipe, "--cluster", str(file)])
        assert answer.exit_code == 0, answer.output
        assert told in answer.output
    refused = CliRunner().invoke(app, ["recipe", "check", "vpscore", "--cluster", str(file)])
    assert isinstance(refused.exception, InputError)
    assert "train" in str(refused.exception)


def test_a_recipe_is_checked_against_a_cluster(file: Path) -> None:
    asked = ["recipe", "check", "quickstart", "--cluster", str(file)]
    answer = CliRunner().invoke(app, asked)
    assert answer.exit_code == 0, answer.output
    assert "images.workers: 1 actors of 1 CPU; there is room for 64 cpu, 64 gpu" in answer.output
    refused = CliRunner().invoke(app, [*asked, "--set", "judge.workers.num_gpus=2"])
    assert isinstance(refused.exception, InputError)
