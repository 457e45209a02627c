"""Rows are asked about, once more where the first reply is of no use, and end as done or as failed with the reason."""

import contextlib
from typing import Protocol

import pyarrow as pa

from visionprefer.errors import InputError
from visionprefer.judging.engine import Engine, Reply, Request, Row


class Questions(Protocol):
    """What is asked about rows, and what becomes of the answers. Who gives them it does not know."""

    schema: pa.Schema  # of rows that are done or failed

    def rows(self, table: pa.Table) -> list[Row]:
        """A row for each request, not asked yet, with what it is about beside it."""

    def request(self, row: Row, asking: int) -> Request | None:
        """What is asked for a row; None if it cannot be asked, which is written into the row.

        Args:
            row: as from `rows`.
            asking: how many askings of this row went before; each has a seed of its own.
        """

    def problem(self, row: Row, reply: Reply) -> str | None:
        """Why a reply is of no use."""


NOTHING_YET = {"raw": None, "asked": 0, "prompt_tokens": 0, "completion_tokens": 0, "cost": None, "error": None}


def enter(questions: Questions, row: Row, reply: Reply) -> None:
    """Write an answer into a row, and what is wrong with it."""
    row["raw"] = reply.text
    row["asked"] += 1
    row["prompt_tokens"] += reply.prompt_tokens
    row["completion_tokens"] += reply.completion_tokens
    if reply.cost is not None:
        row["cost"] = (row["cost"] or 0.0) + reply.cost
    row["error"] = reply.error or questions.problem(row, reply)


def done_and_failed(rows: list[Row], schema: pa.Schema) -> tuple[pa.Table, pa.Table]:
    """Rows as two tables: those whose reply is of use, and those whose is not."""
    done = [row for row in rows if not row["error"]]
    failed = [row for row in rows if row["error"]]
    return pa.Table.from_pylist(done, schema=schema), pa.Table.from_pylist(failed, schema=schema)


class Asker:
    """A stage: one reply for each row.

    A reply of no use is asked for once more, with another seed; if that fails too the row is a failed one, which keeps
    the raw reply and says what is wrong with it. Each row is done or failed.
    """

    def __init__(self, questions: Questions, engine: Engine) -> None:
        self.questions = questions
        self.engine = engine

    def __call__(self, table: pa.Table, generation: int = 0) -> tuple[pa.Table, pa.Table]:
        """Ask about rows; `generation` counts the runs that took up failed rows again, so that seeds differ."""
        rows = self.questions.rows(table)
        self._ask(rows, asking=2 * generation)
        with contextlib.suppress(InputError):  # what stops the run is told with the next rows: these are paid for
            self._ask([row for row in rows if row["error"]], asking=2 * generation + 1)
        return done_and_failed(rows, self.questions.schema)

    def describe(self) -> str:
        """What was chosen, for the person at the terminal."""
        return self.engine.describe()

    def _ask(self, rows: list[Row], asking: int) -> None:
        """Ask about rows and write the answers into them."""
        asked = [(row, request) for row in rows if (request := self.questions.request(row, asking))]
        for (row, _), reply in zip(asked, self.engine.ask([request for _, request in asked]), strict=True):
            enter(self.questions, row, reply)
