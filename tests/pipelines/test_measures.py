"""What Prometheus reads of a run on a real node, and whether the dashboard asks for just that."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from chat_server import Answer, ChatServer, said
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

import visionprefer_pipelines
from visionprefer.recipe import Recipe
from visionprefer_pipelines.measures import training_numbers
from visionprefer_pipelines.progress import Progress
from visionprefer_pipelines.run import run

pytestmark = pytest.mark.slow
Samples = dict[str, list[tuple[dict[str, str], float]]]  # by name: labels and value of each
DASHBOARD = Path(visionprefer_pipelines.__path__[0]) / "grafana.json"


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    """One whose processes tell what they measure every half second, not every ten."""
    ray.shutdown()  # that of other tests
    soon = {"metrics_report_interval_ms": 500}
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, _system_config=soon)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """What the node exports after a run of four images, one of them broken, and a training's numbers."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(4):
        Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a picture")
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:40])
    answer: Callable[[int, dict[str, Any]], Answer] = lambda *_: said()  # noqa: E731  100 tokens asked, 50 answered
    server = ChatServer(answer)
    judge = {"engine": "openai", "model": "owner/judge", "api": {"base_url": server.url}}
    judge["api"]["price"] = {"prompt": 1e4, "completion": 2e4}  # a reply costs 2
    recipe = {"name": "measured", "images": {"existing": str(folder), "block_size": 2}, "judge": judge}
    with Progress(Console(quiet=True)) as progress:
        run(Recipe.model_validate(recipe), str(folder / "out"), progress)
    server.close()
    training_numbers().set(0.5, {"training": "ppo", "number": "reward"})
    until, found = time.monotonic() + 40, samples()
    while not {"ray_visionprefer_training", "ray_visionprefer_cost_total"} <= found.keys():
        assert time.monotonic() < until, found.keys()
        time.sleep(0.5)
        found = samples()
    return found


def samples() -> Samples:
    [node] = ray.nodes()
    text = httpx.get(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=20).text
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def total(samples: Samples, name: str, **labels: str) -> float:
    return sum(value for has, value in samples[name] if labels.items() <= has.items())


def test_rows_seconds_tokens_and_money_are_counted(exported: Samples) -> None:
    rows = "ray_visionprefer_rows_total"
    assert total(exported, rows, stage="images", status="done") == 3
    assert total(exported, rows, stage="images", status="failed") == 1
    assert total(exported, rows, stage="replies", status="done") == 3
    assert total(exported, "ray_visionprefer_row_seconds_count", stage="images") == 2  # units
    assert total(exported, "ray_visionprefer_row_seconds_count", stage="replies") == 2
    assert total(exported, "ray_visionprefer_tokens_total", kind="prompt") == 300
    assert total(exported, "ray_visionprefer_tokens_total", kind="completion") == 150
    assert total(exported, "ray_visionprefer_cost_total", stage="replies") == pytest.approx(6)
    assert total(exported, "ray_visionprefer_pending_rows") == 0
    assert total(exported, "ray_visionprefer_training", training="ppo", number="reward") == 0.5


def test_the_dashboard_asks_for_what_is_exported_and_for_all_of_it(exported: Samples) -> None:
    panels = [one for one in json.loads(DASHBOARD.read_text())["panels"] if not one["title"].startswith("Endpoint")]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    ours = {re.sub("_(bucket|count|sum)$", "", name) for name in exported if name.startswith("ray_visionprefer_")}
    names = {re.sub("_bucket$", "", name) for query in asked for name in re.findall(r"ray_\w+", query)}
    assert names == ours
    for query in asked:
        [name] = re.findall(r"ray_\w+", query)
        grouped = [label for by in re.findall(r"by \((.*?)\)", query) for label in by.split(", ")]
        for label in grouped + re.findall(r"(\w+)=~?\"", query):
            assert all(label in labels for labels, _ in exported[name]), (label, query)
    told = [target["legendFormat"] for panel in panels for target in panel["targets"]]
    for query, legend in zip(asked, told, strict=True):
        assert set(re.findall(r"{{(\w+)}}", legend)) <= set(re.findall(r"\w+", query)), legend
