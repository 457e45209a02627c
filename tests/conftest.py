"""Fixtures for all tests: small models of the true classes, a finished run built by hand, endpoints, and a bucket."""

import os
import tempfile
from pathlib import Path

if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # each worker's clusters of Ray are found by its own tests alone
    os.environ["RAY_TMPDIR"] = str(Path(tempfile.gettempdir(), worker))
    Path(os.environ["RAY_TMPDIR"]).mkdir(exist_ok=True)

pytest_plugins = ["small_models", "run_by_hand", "chat_server", "endpoints", "bucket"]
