"""kuberay/, as KubeRay, Kubernetes, Ray's autoscaler and Ray Serve read it. Nothing here calls a cluster."""

import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema
from typer.testing import CliRunner

from visionprefer.recipe_file import load_recipe
from visionprefer_pipelines.cli import app
from visionprefer_pipelines.cluster_file import check_cluster, read_cluster
from visionprefer_pipelines.demand import stages_of

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "pipelines" / "visionprefer_pipelines" / "recipes"
KUBERNETES = "1.30"


def fields(required: str = "", **types: Any) -> dict[str, Any]:
    """A JSON schema of an object that has these fields alone."""
    properties = {name: {"type": of} if isinstance(of, str) else of for name, of in types.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False, "required": required.split()}


WORDS = {"type": "object", "additionalProperties": {"type": "string"}}
POD = {"type": "object"}  # whose fields Kubernetes' own schema checks

# The fields of ray.io/v1 in KubeRay 1.3, from its API reference.
AUTOSCALER = fields(
    resources="object", image="string", imagePullPolicy="string", securityContext="object", env="array",
    envFrom="array", volumeMounts="array", idleTimeoutSeconds="integer", version={"enum": ["v1", "v2"]},
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
)  # fmt: skip
HEAD = fields(
    "rayStartParams template", serviceType="string", headService="object", enableIngress="boolean",
    rayStartParams=WORDS, template=POD,
)  # fmt: skip
WORKERS = fields(
    "groupName minReplicas maxReplicas rayStartParams template", groupName="string", replicas="integer",
    minReplicas="integer", maxReplicas="integer", numOfHosts="integer", idleTimeoutSeconds="integer",
    rayStartParams=WORDS, template=POD, scaleStrategy="object", suspend="boolean",
)  # fmt: skip
CLUSTER = fields(
    "headGroupSpec", suspend="boolean", managedBy="string", autoscalerOptions=AUTOSCALER,
    headServiceAnnotations=WORDS, enableInTreeAutoscaling="boolean", gcsFaultToleranceOptions="object",
    headGroupSpec=HEAD, rayVersion="string", workerGroupSpecs={"type": "array", "items": WORKERS},
)  # fmt: skip
SPECS = {
    "RayJob": fields(
        activeDeadlineSeconds="integer", backoffLimit="integer", rayClusterSpec=CLUSTER, submitterPodTemplate=POD,
        metadata=WORDS, clusterSelector=WORDS, submitterConfig="object", managedBy="string", deletionStrategy="object",
        entrypoint="string", runtimeEnvYAML="string", jobId="string", entrypointResources="string",
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]}, entrypointNumCpus="number",
        entrypointNumGpus="number", ttlSecondsAfterFinished="integer", shutdownAfterJobFinishes="boolean",
        suspend="boolean",
    ),
    "RayService": fields(
        serveService="object", upgradeStrategy="object", serveConfigV2="string", rayClusterConfig=CLUSTER,
        excludeHeadPodFromServeSvc="boolean",
    ),
}  # fmt: skip


def resource(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "kuberay" / f"{name}.yaml").read_text())
    return loaded


def cluster_of(name: str) -> dict[str, Any]:
    spec = resource(name)["spec"]
    cluster: dict[str, Any] = spec["rayClusterSpec" if "rayClusterSpec" in spec else "rayClusterConfig"]
    return cluster


def groups_of(name: str) -> list[dict[str, Any]]:
    cluster = cluster_of(name)
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


@pytest.mark.parametrize(("name", "kind"), [("run", "RayJob"), ("endpoint", "RayService")])
def test_kuberay_knows_every_field(name: str, kind: str) -> None:
    told = resource(name)
    assert (told["apiVersion"], told["kind"]) == ("ray.io/v1", kind)
    jsonschema.validate(told["spec"], SPECS[kind])
    told["spec"]["rayClusterSpec" if kind == "RayJob" else "rayClusterConfig"]["headGroupSpec"]["replicas"] = 1
    with pytest.raises(jsonschema.ValidationError, match="replicas"):  # which a head has none of
        jsonschema.validate(told["spec"], SPECS[kind])


@pytest.mark.parametrize("name", ["run", "endpoint"])
def test_kubernetes_knows_every_field_of_a_pod(name: str) -> None:
    for group in groups_of(name):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        pod["spec"]["containers"][0]["mounts"] = []
        with pytest.raises(kubernetes_validate.ValidationError, match="mounts"):
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", ["run", "endpoint"])
def test_pods_mount_volumes_that_they_have(name: str) -> None:
    for group in groups_of(name):
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_rays_autoscaler_reads_the_pools() -> None:
    """As cluster.yaml's, and nothing stays when a run is done."""
    kinds = {kind.name: kind for kind in read_cluster(ROOT / "kuberay" / "run.yaml").kinds}
    assert kinds["headgroup"].resources["CPU"] == 0
    for pool, gpus, most in (("draw", 1, 16), ("judge", 1, 8), ("train", 4, 2)):
        assert (kinds[pool].resources["GPU"], kinds[pool].resources[pool], kinds[pool].most) == (gpus, gpus, most)
    assert all(group["minReplicas"] == 0 for group in groups_of("run")[1:])
    [serve] = [kind for kind in read_cluster(ROOT / "kuberay" / "endpoint.yaml").kinds if kind.name == "serve"]
    assert (serve.resources["GPU"], serve.most) == (1, 4)


@pytest.mark.parametrize("name", ["visionprefer", "sdxl"])
def test_recipes_at_full_size_find_room(name: str) -> None:
    placed = check_cluster(stages_of(load_recipe(RECIPES / f"{name}.yaml")), ROOT / "kuberay" / "run.yaml")
    assert [re.findall(r"room for \d+ (\w+)", line) for line in placed][:2] == [["draw"], ["judge"]]


def test_serve_accepts_the_endpoint_which_is_the_packages_own() -> None:
    told = yaml.safe_load(resource("endpoint")["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(told)
    assert told == yaml.safe_load((ROOT / "serve" / "visionprefer_serve" / "config.yaml").read_text())


def test_the_job_is_a_command_of_ours() -> None:
    program, *arguments = shlex.split(resource("run")["spec"]["entrypoint"])
    assert program == "visionprefer"
    assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0
    assert CliRunner().invoke(app, [*arguments, "--no-such", "--help"]).exit_code == 2


def test_pods_run_the_ray_of_this_project() -> None:
    [version] = re.findall(r"ray\[[\w,]+]==([\d.]+)", (ROOT / "pyproject.toml").read_text())
    assert f"FROM rayproject/ray:{version}-" in (ROOT / "kuberay" / "Dockerfile").read_text()
    assert {cluster_of(name)["rayVersion"] for name in ("run", "endpoint")} == {version}
