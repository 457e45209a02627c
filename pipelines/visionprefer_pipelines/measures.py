"""What Prometheus reads of runs and trainings beside Ray's own measures: Ray's agent on each node serves it.

Ray puts `ray_` before the names and `_total` behind those of counters. `grafana.json` shows them.
"""

import pyarrow as pa
import pyarrow.compute as pc
from ray.util.metrics import Counter, Gauge, Histogram

SECONDS = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300]  # of a row: the bounds of a histogram


class RowMeasures:
    """What an actor did.

    Args:
        stage: of the actor: images, replies or rollouts.
    """

    def __init__(self, stage: str) -> None:
        self._stage = {"stage": stage}
        self._rows = Counter("visionprefer_rows", "Rows by how they ended: done or failed.", ("stage", "status"))
        self._seconds = Histogram(
            "visionprefer_row_seconds",
            "Of a row: its share of its unit, or in vLLM of the time since others.",
            SECONDS,
            ("stage",),
        )
        self._tokens = Counter(
            "visionprefer_tokens", "Tokens read (prompt) and written (completion).", ("stage", "kind")
        )
        self._cost = Counter("visionprefer_cost", "Money, in the currency of the recipe's price.", ("stage",))

    def count(self, done: int, failed: int, seconds: float | None = None) -> None:
        """Count rows, which took so many seconds together; None: nobody can say."""
        for status, rows in (("done", done), ("failed", failed)):
            if rows:
                self._rows.inc(rows, self._stage | {"status": status})
        if seconds is not None and done + failed:
            self._seconds.observe(seconds / (done + failed), self._stage)

    def add(self, done: pa.Table, failed: pa.Table, seconds: float | None = None) -> None:
        """Count the rows of a unit and, where they are replies, what they cost."""
        self.count(done.num_rows, failed.num_rows, seconds)
        for rows in (done, failed):
            for kind in ("prompt", "completion"):
                if tokens := _sum(rows, f"{kind}_tokens"):
                    self._tokens.inc(tokens, self._stage | {"kind": kind})
            if cost := _sum(rows, "cost"):
                self._cost.inc(cost, self._stage)


def pending_rows() -> Gauge:
    """Rows of a run that are planned and neither done nor failed, by stage."""
    return Gauge("visionprefer_pending_rows", "Planned rows that are neither done nor failed.", ("stage",))


def training_numbers() -> Gauge:
    """What a training measured last: losses, rewards, shares."""
    return Gauge("visionprefer_training", "What a training measured last.", ("training", "number"))


def _sum(rows: pa.Table, column: str) -> float:
    return float(pc.sum(rows[column]).as_py() or 0) if column in rows.column_names else 0.0
