"""On a real cluster of several nodes: the doctor tells what they have, and a run tells what its stages wait for."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from chat_server import Answer, ChatServer, said
from PIL import Image
from ray.cluster_utils import Cluster
from ray.util import placement_group, remove_placement_group
from rich.console import Console
from typer.testing import CliRunner

from visionprefer.recipe import Recipe
from visionprefer.run_folder import RunFolder
from visionprefer.settings import Workers
from visionprefer_pipelines import machines, progress, run
from visionprefer_pipelines.cli import app
from visionprefer_pipelines.demand import wanted
from visionprefer_pipelines.machines import waiting

pytestmark = pytest.mark.slow
STORE = 80 * 2**20  # bytes; as few as Ray takes


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head, and a machine that has died."""
    ray.shutdown()  # that of other tests
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "object_store_memory": STORE})
    ray.init(address=started.address, log_to_driver=False)
    started.remove_node(started.add_node(num_cpus=1, object_store_memory=STORE))
    yield started
    ray.shutdown()
    started.shutdown()


@pytest.fixture
def recipe(tmp_path: Path, chat_server: Callable[..., ChatServer]) -> Recipe:
    """Pictures that are there, judged by a server that an actor asks, which wants a resource called `spot`."""
    for number in range(4):
        Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("a picture")
    answer: Callable[..., Answer] = lambda *_: said()  # noqa: E731
    judge = {"engine": "openai", "model": "owner/judge", "api": {"base_url": chat_server(answer).url}}
    return Recipe.model_validate(
        {
            "name": "waits",
            "images": {"existing": str(tmp_path), "block_size": 2},
            "judge": judge | {"workers": {"resources": {"spot": 1}}},
        }
    )


def doctor(recipe: Recipe, folder: Path) -> tuple[int, str]:
    (folder / "recipe.yaml").write_text(recipe.model_dump_json())
    answer = CliRunner().invoke(app, ["doctor", str(folder / "recipe.yaml")])
    return answer.exit_code, answer.output


def test_a_stage_says_what_it_waits_for_until_a_machine_brings_it(
    cluster: Cluster, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor says so before; while the run waits; and when the resource is there, and all of it reserved."""
    lacks = "1 spot (0 of 0 free)"
    code, told = doctor(recipe, tmp_path)
    assert code == 1
    assert (
        f"judge.workers: 1 actors of 1 CPU and 1 spot, and the cluster has room for 0; the next would wait for {lacks}"
        in told
    )
    assert "dead" in told
    assert "4 of 4" in told
    assert max(map(len, told.split("·")[0].splitlines())) <= 80

    for module in (progress, machines):
        monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.5)
    console = Console(file=(written := io.StringIO()), width=200)
    finished: list[RunFolder] = []

    def work() -> None:
        with progress.Progress(console) as shown:
            finished.append(run.run(recipe, str(tmp_path / "out"), shown))

    running = threading.Thread(target=work)
    running.start()
    until = time.monotonic() + 60
    while f"rows/s; judge.workers wait for {lacks}" not in written.getvalue():
        assert time.monotonic() < until, written.getvalue()
        time.sleep(0.1)
    assert "images.workers wait" not in written.getvalue().splitlines()[-1]
    cluster.add_node(num_cpus=1, resources={"spot": 1}, object_store_memory=STORE)
    running.join(timeout=60)
    assert tuple(finished[0].counts()["replies"]) == (4, 0, 0)

    until = time.monotonic() + 30  # Ray takes a moment to give back what an actor had
    code, told = doctor(recipe, tmp_path)
    while "spot 1 of 1" not in told:
        assert time.monotonic() < until, told
        code, told = doctor(recipe, tmp_path)
    assert code == 0, told

    holder = ray.remote(resources={"spot": 1})(threading.Event).remote()
    ray.get(holder.is_set.remote())
    while "1 spot (0 of 1" not in told:
        assert time.monotonic() < until, told
        code, told = doctor(recipe, tmp_path)
    assert code == 0  # it would wait, and not for ever
    ray.kill(holder)


def test_the_doctor_looks_for_room_for_trainings_too(cluster: Cluster) -> None:
    asked = ["doctor", "blocks-ppo", "--set", "rollout_workers={resources: {tpu: 1}}"]
    answer = CliRunner().invoke(app, asked)
    assert answer.exit_code == 1
    assert "rollout_workers: 1 actors of 1 CPU and 1 tpu, and the cluster has room for 0" in answer.output
    answer = CliRunner().invoke(app, ["doctor", "blocks-ablations"])
    assert answer.exit_code == 0 and "workers" in answer.output, answer.output


def test_workers_that_are_placed_together_wait_too(cluster: Cluster) -> None:
    """As those of Ray Train are; and who asks for the same is told beside them."""
    workers = Workers(num_cpus=0.5, resources={"tpu": 2})
    asked = placement_group([wanted(workers)])
    others = {"rollout_workers": workers, "readers": Workers(resources={"tpu": 1})}
    until = time.monotonic() + 20
    while not (told := waiting({"workers": workers, **others})):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert told == "workers or rollout_workers wait for 2 tpu (0 of 0 free)"
    remove_placement_group(asked)
