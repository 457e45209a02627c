"""A run as its readers see it: tables by name, whatever they are made of on disk."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from visionprefer.errors import InputError
from visionprefer.plan import read_plan
from visionprefer.recipe import Recipe
from visionprefer.schema import IMAGES, REPLIES
from visionprefer.shards import Commit, Counts, Shards
from visionprefer.store import Store


class RunFolder:
    """One run: its recipe, and its tables as far as they are there.

    Raises:
        InputError: if there is no run at this place.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.manifest: dict[str, Any] = store.manifest()
        if not self.manifest:
            raise InputError(f"no run at {store.root}: it has no manifest.json. Write the folder given to run --out")
        try:
            self.recipe = Recipe.model_validate(self.manifest["recipe"])
        except ValidationError as error:
            raise InputError(f"{store.root}/manifest.json holds a recipe of another version: {error}") from error
        self.images = self._listed(Shards(store, "images", IMAGES))
        self.replies = self.replies_of(self.manifest["judge"])

    def replies_of(self, judge: str) -> Shards:
        """The replies of a judge, by its id in the manifest."""
        return self._listed(Shards(self.store, f"replies/{judge}", REPLIES))

    def judges(self) -> dict[str, str]:
        """The names of all judges that replied, by their ids; two of one name are told apart by their ids."""
        models = {judge: about["model"] for judge, about in self.manifest["judges"].items()}
        replied = [judge for judge in models if self.replies_of(judge).commits]
        names = [models[judge] for judge in replied]
        return {
            judge: models[judge] if names.count(models[judge]) == 1 else f"{models[judge]} ({judge})"
            for judge in replied
        }

    def counted_judges(self) -> dict[str, str]:
        """The names of the judges whose scores count, by their ids; see `PreferenceSettings.judges`."""
        judges = self.judges()
        if self.recipe.preferences.judges == "current":
            current = self.manifest["judge"]
            return {current: judges.get(current, self.manifest["judges"][current]["model"])}
        return judges

    def _listed(self, shards: Shards) -> Shards:
        for row in self.manifest["shards"].get(shards.folder, []):
            shards.add(Commit(*row))
        return shards

    @property
    def is_finished(self) -> bool:
        """Whether the derived tables are there, and made of everything that is done."""
        derived = self.manifest.get("derived")
        return derived is not None and all(map(self.store.exists, [*derived["files"], *derived["training"]]))

    def check_finished(self) -> None:
        """Raises InputError if the derived tables are not there, or belong to an earlier state of the run."""
        if not self.is_finished:
            root = self.store.root
            raise InputError(f"{root}: the run is not finished. To go on: visionprefer run RECIPE --out {root}")

    def counts(self) -> dict[str, Counts]:
        """Rows done, failed and pending of the images and of the replies."""
        images = self.images.counts(self.manifest["plan"]["rows"])
        planned = self.manifest.get("requests", images.done * self.recipe.judge.repeats)
        return {"images": images, "replies": self.replies.counts(planned)}

    def prompts(self) -> pa.Table:
        """PROMPTS."""
        return self.store.read_table("prompts.parquet")

    def rejected_prompts(self) -> pa.Table:
        """REJECTED_PROMPTS."""
        return self.store.read_table("rejected_prompts.parquet")

    def plan(self, columns: list[str] | None = None) -> pa.Table:
        """PLAN."""
        return read_plan(self.store, columns)

    def judgements(self, columns: list[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """JUDGEMENTS of a finished run, or those of which something holds."""
        self.check_finished()
        return self.store.read_table("judgements.parquet", columns, where)

    def preferences(self, columns: list[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """PREFERENCES of a finished run, or those of which something holds."""
        self.check_finished()
        return self.store.read_table("preferences.parquet", columns, where)

    def oracle(self) -> pa.Table | None:
        """ORACLE of a finished run; None if it used no built-in model."""
        self.check_finished()
        name = "oracle.parquet"
        return self.store.read_table(name) if name in self.manifest["derived"]["files"] else None

    def training_files(self) -> list[str]:
        """Names of the files of TRAINING of a finished run, a few prompts each."""
        self.check_finished()
        return list(self.manifest["derived"]["training"])
