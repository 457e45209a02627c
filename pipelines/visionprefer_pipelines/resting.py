"""How every stream on Ray Data is set up: no bars of its own, patient, and at rest while there is nothing to do."""

import time
from typing import Any

from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback

SECONDS_OF_REST = 0.02
WAIT_FOR_NODES = 6 * 3600.0  # seconds without progress: an autoscaler may need long to find a GPU


class Rest(ExecutionCallback):
    """The loop that drives a stream does not wait while its output waits to be read: it would take a core from who
    computes, and within a training's process the GIL as well.
    """

    def on_execution_step(self, executor: Any) -> None:  # noqa: ARG002  Ray's signature
        """Wait before the next step."""
        time.sleep(SECONDS_OF_REST)


def stream_context() -> DataContext:
    """The current context, set up."""
    found = DataContext.get_current()
    found.enable_progress_bars = False  # they would be drawn over ours
    found.execution_no_progress_timeout_s = WAIT_FOR_NODES
    if Rest not in found.custom_execution_callback_classes:
        found.custom_execution_callback_classes.append(Rest)
    return found
