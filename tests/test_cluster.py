"""cluster.yaml, as Ray's own loader, Ray's own scheduler and the API of AWS read it. Nothing here calls a cloud."""

import re
import tomllib
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import validate_parameters
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from visionprefer.recipe_file import load_any_recipe, load_recipe
from visionprefer_pipelines.cluster_file import check_cluster
from visionprefer_pipelines.demand import fewest, stages_of, wanted
from visionprefer_serve.settings import EndpointSettings

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "pipelines" / "visionprefer_pipelines" / "recipes"


@pytest.fixture
def cluster() -> dict[str, Any]:
    """The file with Ray's defaults filled in, as `ray up` sees it."""
    config: dict[str, Any] = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    return config


def to_start(
    cluster: dict[str, Any], demands: list[dict[str, float]], none_left: tuple[str, ...] = ()
) -> tuple[dict[str, int], int]:
    """Nodes that the autoscaler starts for these demands, and how many demands it cannot meet.

    `none_left` are the node types that the cloud has just refused.
    """
    config = AutoscalingConfig(cluster, skip_content_hash=True)
    asked = [ResourceRequestUtil.make(demand) for demand in demands]
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count(asked),
        recoverable_resource_availabilities=dict.fromkeys(none_left, 0.0),
    )
    reply = ResourceDemandScheduler(None).schedule(request)
    return {launch.instance_type: launch.count for launch in reply.to_launch}, len(reply.infeasible_resource_requests)


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    validate_config(cluster)


def test_aws_knows_every_field_of_a_node(cluster: dict[str, Any]) -> None:
    ec2 = botocore.session.get_session().get_service_model("ec2")
    for node in cluster["available_node_types"].values():
        request = node["node_config"] | {"MinCount": 1, "MaxCount": 1}
        validate_parameters(request, ec2.operation_model("RunInstances").input_shape)


def test_only_what_is_asked_for_is_started(cluster: dict[str, Any]) -> None:
    assert to_start(cluster, []) == ({}, 0)
    assert to_start(cluster, [{"CPU": 1}] * 17) == ({"cpu": 2}, 0)
    assert to_start(cluster, [{"CPU": 4, "GPU": 1, "draw": 1}] * 3) == ({"draw-spot": 3}, 0)
    assert to_start(cluster, [{"CPU": 4, "GPU": 1, "train": 1}] * 4) == ({"train-spot": 1}, 0)
    assert to_start(cluster, [{"CPU": 4, "GPU": 1, "serve": 1}] * 5) == ({"serve": 4}, 1)


@pytest.mark.parametrize("pool", ["draw", "judge", "train"])
def test_where_no_spot_machines_are_left_machines_on_demand_are_started(cluster: dict[str, Any], pool: str) -> None:
    asked = [{"CPU": 4.0, "GPU": 1.0, pool: 1.0}]
    assert to_start(cluster, asked) == ({f"{pool}-spot": 1}, 0)
    assert to_start(cluster, asked, none_left=(f"{pool}-spot",)) == ({pool: 1}, 0)


def test_idle_clusters_are_a_lone_head_that_is_never_spot(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert all(node["min_workers"] == 0 for node in types.values())
    assert types["head"]["max_workers"] == 0
    spot = [name for name, node in types.items() if "InstanceMarketOptions" in node["node_config"]]
    assert spot == ["draw-spot", "judge-spot", "train-spot"]


@pytest.mark.parametrize("name", ["visionprefer", "sdxl"])
def test_recipes_at_full_size_find_room(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    placed = check_cluster(stages_of(recipe), ROOT / "cluster.yaml")
    assert [re.findall(r"room for \d+ ([\w-]+)", line) for line in placed][:2] == [["draw-spot"], ["judge-spot"]]


@pytest.mark.parametrize(
    ("name", "started"),
    [
        ("vpscore", {"train-spot": 1}),
        ("dpo", {"train-spot": 1}),
        ("sdxl-dpo", {"train-spot": 1}),
        ("ppo", {"train-spot": 1, "draw-spot": 4}),
    ],
)
def test_trainings_at_full_size_start_the_pools_that_they_are_for(
    cluster: dict[str, Any], name: str, started: dict[str, int]
) -> None:
    everybody = stages_of(load_any_recipe(RECIPES / f"{name}.yaml")).values()
    assert to_start(cluster, [wanted(each) for each in everybody for _ in range(fewest(each))]) == (started, 0)


def test_the_endpoint_never_stands_on_a_spot_machine(cluster: dict[str, Any]) -> None:
    config = yaml.safe_load((ROOT / "serve" / "visionprefer_serve" / "config.yaml").read_text())
    [model] = EndpointSettings.model_validate(config["applications"][0]["args"]).models.values()
    fewest_, most = model.workers.actors
    assert to_start(cluster, [wanted(model.workers)] * fewest_) == ({"serve": 1}, 0)
    assert to_start(cluster, [wanted(model.workers)] * most) == ({"serve": 4}, 0)


def test_nodes_run_the_ray_and_the_extra_of_this_project(cluster: dict[str, Any]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [version] = re.findall(r"ray\[[\w,]+]==([\d.]+)", " ".join(extras["local"]))
    assert cluster["docker"]["image"].startswith(f"rayproject/ray:{version}-")
    for commands in (cluster["head_setup_commands"], cluster["worker_setup_commands"]):
        assert any("~/wheels" in command and "[vllm,api]" in command for command in commands)
        assert not any("ray-wheels" in command for command in commands)  # Ray's default would install a nightly Ray
