"""One run, from a recipe to a preference dataset: prepare, stream, derive. Running again goes on where it stopped."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa

from visionprefer.blocksworld.boundary import is_about_blocks
from visionprefer.blocksworld.oracle_table import oracle_table
from visionprefer.derived import write_derived
from visionprefer.errors import InputError
from visionprefer.recipe import Recipe
from visionprefer.report import write_report
from visionprefer.run_folder import RunFolder
from visionprefer.schema import content_id
from visionprefer.settings import Workers
from visionprefer.shards import Commit
from visionprefer.statistics import write_statistics
from visionprefer.store import Store
from visionprefer_pipelines.demand import stages_of
from visionprefer_pipelines.extras import versions
from visionprefer_pipelines.out_folder import alone, teaching
from visionprefer_pipelines.preparation import Prepared, prepare
from visionprefer_pipelines.progress import SECONDS_BETWEEN_LINES, Progress
from visionprefer_pipelines.tables import Tables

MANIFEST_SECONDS = 15.0  # between two writings of the manifest during a run
PACKAGES = ("visionprefer", "torch", "diffusers", "transformers", "ray", "pyarrow")


def run(
    recipe: Recipe, out: str, progress: Progress, retry_failed: bool = False, address: str | None = None
) -> RunFolder:
    """Make a preference dataset, or go on making it.

    Args:
        recipe: what to make.
        out: folder of the run, local or s3://, gs://.
        progress: told what happens.
        retry_failed: take up again the rows that failed before.
        address: of a Ray cluster; None: see `cluster.connected`.

    Returns:
        The finished run: derived tables, statistics and report are written.

    Raises:
        InputError: if something that was given cannot be used. What was committed stays.
    """
    store = Store(out)
    with teaching(store), alone(store):
        store.remove_unfinished()
        prepared = prepare(recipe, store)
        for note in prepared.notes:
            progress.say(note)
        _stream(recipe, store, prepared, progress, retry_failed, address)
        return _derive(store, prepared.manifest, progress)


def _stream(
    recipe: Recipe, store: Store, prepared: Prepared, progress: Progress, retry_failed: bool, address: str | None
) -> None:
    """Do what is left of the paid-for tables, and write down what was done even if it is interrupted."""
    manifest = prepared.manifest
    tables = Tables(recipe, store, manifest)
    for name in tables.recover(manifest["shards"]):
        progress.say(f"{name} is damaged, or follows one that is: what it held is made again")

    images, replies = tables.counts()
    work = tables.work_to_do(retry_failed, retry_failed)
    if work:
        manifest.pop("derived", None)  # it will not be made of all that is there
    tables.enter()
    progress.start(images, replies, images.failed + replies.failed if retry_failed else 0)
    if not work:
        return

    from visionprefer_pipelines.cluster import connected
    from visionprefer_pipelines.dataset import stream
    from visionprefer_pipelines.units import commit_log
    from visionprefer_pipelines.vllm_stream import telling_why_no_engine_starts

    stages = stages_of(recipe)
    with connected(address, stages):
        log = commit_log()
        for _ in range(2 + tables.is_joint + tables.asks_once):  # once more about images that were made again
            dataset = stream(recipe, tables.replies, prepared.models, prepared.judge, work, log)
            with _watching(log, tables, stages, progress), telling_why_no_engine_starts():
                for _ in dataset.iter_batches(batch_size=None):
                    pass
            tables.recover(tables.commits())  # what the log says is for the eye; what is in the folder counts
            tables.enter()
            work = tables.work_to_do(False, retry_failed and tables.is_joint and not work.replies)
            if not work:
                break
    pending = sum(counts.pending for counts in tables.counts())
    if pending:
        raise InputError(
            f"--out {store.root}: {pending} rows are not there though the stream ended. Run again to go on"
        )


@contextmanager
def _watching(log: Any, tables: Tables, stages: dict[str, Workers], progress: Progress) -> Iterator[None]:
    """While the block lasts, enter in the manifest what the stream commits, and show it and who waits for a place."""
    import ray

    from visionprefer_pipelines.machines import Waits
    from visionprefer_pipelines.measures import pending_rows

    pending, waits = pending_rows(), Waits(stages)
    ended = threading.Event()
    said: set[str] = set()
    to_mend: list[str] = []
    by_folder = {table.folder: table for table in (tables.images, tables.replies)}
    manifest = tables.manifest
    began = time.monotonic() - manifest.get("seconds", 0.0)

    def take() -> None:
        # A cluster that does not answer hides nothing: shards are found in the folder.
        with suppress(ray.exceptions.RayError):
            for kind, entry in ray.get(log.take.remote(), timeout=30):
                if kind == "mend":
                    to_mend.append(entry)
                elif kind != "say":
                    by_folder[kind].add(Commit(*entry))
                elif entry not in said:  # once, however many actors say it
                    said.add(entry)
                    progress.say(entry)
        images, replies = tables.counts()
        for stage, counts in (("images", images), ("replies", replies)):
            pending.set(counts.pending, {"stage": stage})
        progress.update(images, replies, waits.now())

    def watch() -> None:
        written = time.monotonic()
        while not ended.wait(0.5):
            take()
            if time.monotonic() - written > MANIFEST_SECONDS:
                manifest["seconds"] = time.monotonic() - began
                with suppress(OSError):  # the workers meet a full disk too, and stop the run
                    tables.enter()
                written = time.monotonic()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        take()
        manifest["seconds"] = time.monotonic() - began
        if to_mend:
            raise InputError(to_mend[0])
        tables.enter()


def _derive(store: Store, manifest: dict[str, Any], progress: Progress) -> RunFolder:
    """Rebuild the derived tables, unless they are made of just what is there."""
    folder = RunFolder(store)
    replies = [folder.replies_of(judge) for judge in folder.counted_judges()]
    paid = sorted(list(commit) for shards in (folder.images, *replies) for commit in shards.commits.values())
    digest = content_id("derived", manifest["judge"], folder.recipe.preferences.model_dump(mode="json"), paid)
    if folder.is_finished and manifest["derived"]["digest"] == digest:
        return folder
    _check_bytes(folder)
    progress.say("comparing the scores, and writing the training table")
    manifest.pop("derived", None)
    store.write_manifest(manifest)
    files, training = write_derived(folder, digest)
    files |= _ask_oracle(folder, progress)
    derived = {"digest": digest, "files": files, "training": training, "packages": versions(PACKAGES)}
    folder.manifest["derived"] = derived
    write_statistics(folder)
    write_report(folder)
    store.write_manifest(manifest | {"derived": derived})
    return folder


def _check_bytes(folder: RunFolder) -> None:
    """Raises InputError if a shard that counts is not what was committed; who runs again has it made again."""
    root = folder.store.root
    if damaged := folder.images.damaged() + folder.replies.damaged():
        for name in filter(folder.store.exists, damaged):
            folder.store.set_aside(name)
        raise InputError(
            f"--out {root}: {', '.join(damaged)} changed after it was written. Run again: it is made again"
        )
    for judge, name in folder.counted_judges().items():
        if judge != folder.manifest["judge"] and (damaged := folder.replies_of(judge).damaged()):
            raise InputError(
                f"--out {root}: {', '.join(damaged)} changed after it was written. Run with {name} as the judge, who "
                "answers again, and then with this recipe"
            )


def _ask_oracle(folder: RunFolder, progress: Progress) -> dict[str, str]:
    """Write the oracle's table where a model is built in. Returns the SHA-256 of each file."""
    if not is_about_blocks(folder.recipe):
        if folder.store.exists("oracle.parquet"):  # of another judge
            folder.store.delete("oracle.parquet")
        return {}
    progress.say(f"asking the oracle about {folder.counts()['images'].done} images")
    assessed = oracle_table(_counted(folder.images.tables(["image_id", "prompt_id", "prompt", "image"]), progress))
    return {"oracle.parquet": folder.store.write_table("oracle.parquet", assessed)[0]}


def _counted(images: Iterator[pa.Table], progress: Progress) -> Iterator[pa.Table]:
    """The same tables; now and then, how many images went by is told."""
    asked, told = 0, time.monotonic()
    for table in images:
        yield table
        asked += table.num_rows
        if time.monotonic() - told > SECONDS_BETWEEN_LINES:
            progress.say(f"the oracle has seen {asked}")
            told = time.monotonic()
