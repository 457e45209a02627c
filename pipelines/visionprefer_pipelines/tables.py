"""The tables of a run that cost something, images and replies: what is in them, and what is still to do."""

from collections.abc import Callable
from typing import Any, NamedTuple

from visionprefer.judging import joint_requests
from visionprefer.plan import read_plan, unit_of_block
from visionprefer.recipe import Recipe
from visionprefer.schema import IMAGES, REPLIES
from visionprefer.shards import Commit, Counts, Shards
from visionprefer.store import Store


class Unit(NamedTuple):
    """A unit of work still to do."""

    unit: str
    generation: int


class Work(NamedTuple):
    """What a run has still to do."""

    images: list[Unit]
    replies: list[Unit]  # about images that are there already

    def __bool__(self) -> bool:
        return bool(self.images or self.replies)


class Tables:
    """Images and replies of a run that goes on.

    Units of images are blocks of the plan. Units of replies are image shards or, in joint mode, some requests each,
    which are planned once all images are there.
    """

    def __init__(self, recipe: Recipe, store: Store, manifest: dict[str, Any]) -> None:
        self.recipe = recipe
        self.store = store
        self.manifest = manifest
        self.images = Shards(store, "images", IMAGES)
        self.replies = Shards(store, f"replies/{manifest['judge']}", REPLIES)
        self.is_joint = recipe.judge.mode == "joint"
        # vLLM's stream leaves asking a second time to the next generation.
        self.asks_once = recipe.judge.engine == "vllm"
        self.requests: dict[str, int] = {}  # of each unit of replies, in joint mode

    def recover(self, listed: dict[str, list[list[Any]]]) -> list[str]:
        """Count what is in the folder; replies only if they are about images that are there.

        Args:
            listed: commits by the table's folder, as the manifest lists them.

        Returns:
            The names of the files that were damaged, and set aside.
        """
        aside = self.images.recover(listed.get(self.images.folder, []))
        if self.is_joint and self._images_are_there():
            plan = read_plan(self.store, ["image_id", "prompt_id"])
            requests = joint_requests.plan_requests(plan, self.images, self.recipe.judge.swapped)
            joint_requests.write_requests(self.store, requests)
            self.requests = joint_requests.sizes(requests)
        rows = self._asked_about()
        aside += self.replies.recover(listed.get(self.replies.folder, []), units=rows)
        # Images that were made again may be fewer than before: then there are replies about some that are no longer.
        too_many = [unit for unit, held in self.replies.rows().items() if held > rows[unit]]
        return aside + [name for unit in too_many for name in self.replies.set_aside(unit)]

    def commits(self) -> dict[str, list[list[Any]]]:
        """All commits by the table's folder, as the manifest lists them."""
        return {
            table.folder: [list(table.commits[name]) for name in sorted(table.commits)]
            for table in (self.images, self.replies)
        }

    def enter(self) -> None:
        """Write into the manifest what is there."""
        self.manifest["shards"] |= self.commits()
        self.manifest.pop("requests", None)
        if self.is_joint:
            self.manifest["requests"] = self.counts()[1].planned
        self.store.write_manifest(self.manifest)

    def counts(self) -> tuple[Counts, Counts]:
        """Where images and replies stand."""
        images = self.images.counts(self.manifest["plan"]["rows"])
        planned = (images.planned - images.failed) * self.recipe.judge.repeats
        if self.is_joint:
            planned = sum(self.requests.values()) if not images.pending else self.manifest["prompts"]["kept"]
        return images, self.replies.counts(planned)

    def work_to_do(self, retry_images: bool, retry_replies: bool) -> Work:
        """What is planned and not committed and, if asked for, what failed, in a new generation."""
        blocks = [unit_of_block(block) for block in range(self.manifest["plan"]["blocks"])]
        images = _left(self.images, blocks, lambda commit: retry_images and bool(commit.failed))
        if self.is_joint and images:  # which requests there will be follows from them
            return Work(images, [])
        rows, held = self._asked_about(), self.replies.rows()

        def again(commit: Commit) -> bool:
            if held[commit.unit] < rows[commit.unit]:  # more images than before: they were made again
                return True
            return bool(commit.failed) and (retry_replies or (self.asks_once and self._asked_once(commit)))

        return Work(images, _left(self.replies, sorted(rows), again))

    def _asked_about(self) -> dict[str, int]:
        """How many requests each unit of replies is of."""
        if self.is_joint:
            return self.requests
        return {shard: commit.done * self.recipe.judge.repeats for shard, commit in self.images.commits.items()}

    def _images_are_there(self) -> bool:
        return not self.images.counts(self.manifest["plan"]["rows"]).pending

    def _asked_once(self, commit: Commit) -> bool:
        return 1 in self.replies.failed_rows(commit.shard)["asked"].to_pylist()


def _left(shards: Shards, planned: list[str], again: Callable[[Commit], bool]) -> list[Unit]:
    latest = shards.latest()
    units = [Unit(unit, 0) for unit in planned if unit not in latest]
    return units + [Unit(commit.unit, commit.generation + 1) for commit in latest.values() if again(commit)]
