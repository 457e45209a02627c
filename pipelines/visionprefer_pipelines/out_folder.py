"""The folder that a command writes into: one command at a time holds it; what is wrong with it is told plainly."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from visionprefer.errors import InputError, what_to_mend
from visionprefer.store import Store


@contextmanager
def teaching(store: Store) -> Iterator[None]:
    """Tell what a person can mend in a sentence."""
    try:
        yield
    except OSError as error:
        if (sentence := what_to_mend(error)) is None:
            raise
        raise InputError(f"--out {store.root}: {sentence}") from error


@contextmanager
def alone(store: Store, lock: str = ".lock") -> Iterator[None]:
    """Hold the folder, so that no second run writes into it. Buckets have no locks: there it is up to the user.

    Args:
        store: the folder.
        lock: file in it that is held; it may be removed meanwhile, when what it guards is done.

    Raises:
        InputError: if another command holds it, or there can be no folder.
    """
    if "://" in store.root:
        yield
        return
    try:
        (Path(store.root) / lock).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {store.root}: no folder can be made there: {error}. Write another folder") from error
    try:
        with FileLock(Path(store.root) / lock, timeout=0):
            yield
    except Timeout as error:
        raise InputError(
            f"--out {store.root}: another run is writing there. Wait for it, or write another folder"
        ) from error
