"""Outcomes as the ledger takes them: history, the ends of claims, and what is counted of them.

An outcome is written once: whoever writes a group for the second time leaves out what is there
(``unrecorded``). Of one that cannot be stored, ``unrecordable`` is what is stored in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, select

from cronrunner.ledger.arbitration import chunks
from cronrunner.ledger.rows import (
    attempt_row,
    claim_end,
    execution_row,
    histogram_rows,
    overlaps,
    ran,
    statistics_row,
)
from cronrunner.ledger.statements import Rows, Statements
from cronrunner.ledger.tables import attempts, executions
from cronrunner.model import EMPTY, Outcome, Result

#: Run, job and tenant: what an execution is known by.
Name = tuple[str, str, str]


class Recording:
    """Writes outcomes within the transaction that it is given."""

    def __init__(self, statements: Statements, clock: Callable[[], datetime]) -> None:
        self._statements = statements
        self._clock = clock

    def __call__(self, connection: Connection, results: Sequence[Result]) -> None:
        """Write a group of outcomes of which none is there."""
        self.write(connection, results, end_claims=self._statements.end_claims)

    def write(
        self,
        connection: Connection,
        results: Sequence[Result],
        *,
        end_claims: Rows,
        overtaken: Container[Name] = (),
    ) -> None:
        """Write a group; of ``overtaken`` pairs a later run has said the last word."""
        now = self._clock()
        self._statements.new_attempts(connection, [attempt_row(e) for e in results if e.attempted])
        results = [each for each in results if each.final]
        if not results:
            return
        rows = [execution_row(each) for each in results]
        self._statements.new_executions(connection, rows)
        # What was never claimed has no fence and no claim to end.
        ends = [claim_end(each, now) for each in results if each.request.fence]
        if ends:
            end_claims(connection, ends)
        self._count(connection, rows, results, overtaken)

    def _count(
        self,
        connection: Connection,
        rows: Sequence[dict[str, Any]],
        results: Sequence[Result],
        overtaken: Container[Name],
    ) -> None:
        of_jobs: list[dict[str, Any]] = []
        only_counted: list[dict[str, Any]] = []
        overlapped: list[dict[str, Any]] = []
        for execution, each in zip(rows, results, strict=True):
            if ran(each) and name_of(each) not in overtaken:
                of_jobs.append(statistics_row(execution, each))
            elif overlaps(each):
                overlapped.append(statistics_row(execution, None) | {"overlaps_in_a_row": 1})
            else:
                only_counted.append(statistics_row(execution, None))
        if of_jobs:
            self._statements.count_run(connection, of_jobs)
        if only_counted:
            self._statements.count_only(connection, only_counted)
        if overlapped:
            self._statements.count_overlap(connection, overlapped)
        if histogram := histogram_rows(results):
            self._statements.count_durations(connection, histogram)


def unrecordable(result: Result, error: Exception) -> Result:
    """Return what is recorded of an outcome that the ledger cannot take."""
    inner = getattr(error, "orig", None) or error
    return replace(
        result,
        outcome=Outcome.FAILED,
        error=f"its outcome could not be recorded: {type(inner).__name__}",
        reason=None,
        counters=EMPTY,
        note=None,
        cause=None,
        code=None,
    )


def unrecorded(connection: Connection, results: Sequence[Result]) -> list[Result]:
    """Leave out what is there: committed by an earlier try, or by a run that found ours dead."""
    names: dict[str, set[str]] = {}
    for each in results:
        names.setdefault(each.request.run, set()).add(each.request.key.tenant)
    ended: set[tuple[Any, ...]] = set()
    tried: set[tuple[Any, ...]] = set()
    for run, of_run_ in names.items():
        for chunk in chunks(sorted(of_run_)):
            ended |= _there(connection, executions, run, chunk)
            tried |= _there(connection, attempts, run, chunk, "attempt")
    return [
        each
        for each, key in ((each, name_of(each)) for each in results)
        if key not in ended and (*key, each.request.attempt) not in tried
    ]


def name_of(result: Result) -> Name:
    return result.request.run, result.request.key.job, result.request.key.tenant


def _there(
    connection: Connection, table: Table, run: str, names: Sequence[str], *more: str
) -> set[tuple[Any, ...]]:
    columns = [table.c[name] for name in ("run", "job", "tenant", *more)]
    found = select(*columns).where(table.c.run == run, table.c.tenant.in_(names))
    return {tuple(row) for row in connection.execute(found)}
