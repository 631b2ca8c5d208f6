"""Which pairs fail apart from all others: judged once for each run, when it ends.

A failure counts when the same job succeeded on another tenant in the same run: what fails
everywhere is the job's fault, and what a server's outage makes fail is the server's. So many of
them in a row, and the pair is quarantined: it is left out but for a probe now and then. A success
ends that, and so does a change of the job's code.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, select, update

from cronrunner.events import Event, PairQuarantined, PairReleased
from cronrunner.ledger.arbitration import of_run
from cronrunner.ledger.tables import executions, runs, statistics
from cronrunner.model import EMPTY, FLEET, Outcome, Report

#: A tenant that is gone, and what was cut off or left out, says nothing of the pair.
_FAILED: Final = (Outcome.FAILED.value, Outcome.TIMED_OUT.value, Outcome.STUCK.value)
_SUCCEEDED: Final = Outcome.SUCCEEDED.value
_COLUMNS: Final = ("failures_apart", "quarantined_at", "probed_at", "code_digest")
_FREE: Final[Mapping[str, Any]] = {"failures_apart": 0} | dict.fromkeys(_COLUMNS[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """When a pair is quarantined. Acts within the transaction that it is given."""

    #: Failures in a row; 0 counts none.
    after: int = 0
    #: Job -> what its code is now.
    digests: Mapping[str, str] = field(default_factory=lambda: EMPTY)

    def judge(
        self, connection: Connection, report: Report, excused: Container[tuple[str, str]] = ()
    ) -> list[Event]:
        """Judge the pairs of a run that ends; of one that has ended already nothing is counted.

        Failures of ``excused`` pairs are not theirs.
        """
        run = report.run
        open_ = of_run(select(runs.c.run), run.id).where(runs.c.finished_at.is_(None))
        if connection.execute(open_).first() is None:
            return []
        of_tenants = (executions.c.run == run.id, executions.c.tenant != FLEET)
        well = select(executions.c.job).where(*of_tenants, executions.c.outcome == _SUCCEEDED)
        well_elsewhere = set(connection.execute(well.distinct()).scalars())
        rows = [
            (row, values)
            for row in _concerned(connection, run.id)
            if row.outcome == _SUCCEEDED or (row.job, row.tenant) not in excused
            if (values := self._judged(row, report, apart=row.job in well_elsewhere)) is not None
        ]
        if rows:
            connection.execute(_UPDATE, [_parameters(row, values) for row, values in rows])
        return [event for row, values in rows for event in _events(row, values)]

    def _judged(self, row: Row[Any], report: Report, *, apart: bool) -> Mapping[str, Any] | None:
        """Return what is to be written of a pair, ``None`` for nothing."""
        if row.outcome == _SUCCEEDED:
            return _FREE
        digest = self.digests.get(row.job, "")
        is_kept = row.quarantined_at is not None and row.code_digest == digest
        if is_kept:
            return _values(row.failures_apart, row.quarantined_at, report.run.slot.at, digest)
        if not apart or not self.after:
            return None
        # What was counted against code that is gone does not count.
        failures = 1 if row.quarantined_at is not None else row.failures_apart + 1
        if failures < self.after:
            return {**_FREE, "failures_apart": failures}
        return _values(failures, report.finished_at, report.run.slot.at, digest)


_UPDATE: Final = (
    update(statistics)
    .where(statistics.c.job == bindparam("of_job"), statistics.c.tenant == bindparam("of_tenant"))
    .values({name: bindparam(f"new_{name}") for name in _COLUMNS})
)


def _parameters(row: Row[Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    new = {f"new_{name}": value for name, value in values.items()}
    return {"of_job": row.job, "of_tenant": row.tenant, **new}


def _values(failures: int, since: datetime, probed_at: datetime, digest: str) -> Mapping[str, Any]:
    return dict(zip(_COLUMNS, (failures, since, probed_at, digest), strict=True))


def _concerned(connection: Connection, run: str) -> list[Row[Any]]:
    """Return the pairs of a run that failed, and those that succeeded after failures."""
    same = (statistics.c.job == executions.c.job) & (statistics.c.tenant == executions.c.tenant)
    counted = (statistics.c.failures_apart > 0) | statistics.c.quarantined_at.isnot(None)
    outcome = executions.c.outcome
    query = (
        select(statistics, outcome.label("outcome"))
        .join_from(executions, statistics, same)
        .where(executions.c.run == run, executions.c.tenant != FLEET)
        .where(outcome.in_(_FAILED) | ((outcome == _SUCCEEDED) & counted))
    )
    return list(connection.execute(query))


def _events(row: Row[Any], values: Mapping[str, Any]) -> Iterator[Event]:
    was, is_ = row.quarantined_at, values["quarantined_at"]
    if is_ is not None and was != is_:
        failures = values["failures_apart"]
        yield PairQuarantined(job=row.job, tenant=row.tenant, failures=failures)
    elif was is not None and is_ is None:
        yield PairReleased(job=row.job, tenant=row.tenant)
