"""What Prometheus reads: the measures of this endpoint and of Ray Serve, which Ray gathers on each node."""

import asyncio
from collections.abc import Iterator

import httpx
import ray
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]  # the bounds of histograms
_OURS = ("ray_visionprefer_", "ray_serve_")
_TIMEOUT_S = 3.0


class _Gathered:
    def __init__(self, families: dict[str, Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families.values()


async def exposition() -> str:
    """The measures of all nodes that answer, in Prometheus' text format."""
    nodes = await asyncio.to_thread(ray.nodes)
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as http:
        texts = await asyncio.gather(*(_of_node(http, node) for node in nodes if node["Alive"]))
    return await asyncio.to_thread(_merged, texts)


def _merged(texts: list[str]) -> str:
    families: dict[str, Metric] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            if not family.name.startswith(_OURS):
                continue
            if family.name in families:
                families[family.name].samples += family.samples
            else:
                families[family.name] = family
    registry = CollectorRegistry()
    registry.register(_Gathered(families))
    return generate_latest(registry).decode()


async def _of_node(http: httpx.AsyncClient, node: dict[str, object]) -> str:
    try:
        response = await http.get(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics")
    except httpx.HTTPError:
        return ""
    return response.text if response.is_success else ""
