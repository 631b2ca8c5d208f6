"""What the spool of a dead run holds, brought into the ledger.

An outcome that is there already is left out, so that a spool may be imported any number of
times. Who wins otherwise:

* The spool was there when it happened. If another run has found this one dead and recorded an
  execution as ``interrupted (the runner died)``, the spooled outcome takes its place.
* A claim is ended under its own fence only. If another run has taken it over meanwhile, it
  keeps it, also if it has done the work once more: then both outcomes are in history, and the
  statistics keep the later one as the last.
* What the run held and the spool does not know was interrupted, if the run has told its end.
  Otherwise that is left to whoever finds it dead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, delete, select, update

from cronrunner.errors import LedgerError
from cronrunner.ledger.arbitration import Arbiter, chunks, of_run
from cronrunner.ledger.keeping import is_prepared, keep_prepared, open_run
from cronrunner.ledger.recording import Name, Recording, name_of, unrecordable, unrecorded
from cronrunner.ledger.rows import taken_back
from cronrunner.ledger.spool import SpoolContent
from cronrunner.ledger.statements import Statements
from cronrunner.ledger.tables import executions, runs, statistics
from cronrunner.model import SPOOL_IMPORTED, Outcome, Reason, Result

#: Does something in a transaction, and returns what it returns.
Do = Callable[[Callable[[Connection], Any]], Any]

#: Outcomes in one transaction.
_GROUP: Final = 1000


class Importing:
    """Imports one spool."""

    def __init__(self, statements: Statements, recording: Recording, arbiter: Arbiter) -> None:
        self._statements = statements
        self._recording = recording
        self._arbiter = arbiter

    def __call__(self, do: Do, content: SpoolContent) -> int:
        """Import ``content``; return how many outcomes were new. Raises ``LedgerError``."""
        run = content.run or {}
        # The ledger may be another one than the run began in.
        do(lambda connection: open_run(connection, run))
        results = content.results
        groups = (results[start : start + _GROUP] for start in range(0, len(results), _GROUP))
        count = sum(self._take_apart(do, group) for group in groups)
        if (end := content.end) is not None:
            do(lambda connection: self._end(connection, run["run"], end))
        return count

    def _take_apart(self, do: Do, group: Sequence[Result]) -> int:
        """Import a group; if it is refused in parts, until the offender is alone."""
        try:
            return int(do(lambda connection: self._take(connection, group)))
        except LedgerError as error:
            if len(group) == 1:
                stored = [unrecordable(group[0], error)]
                return int(do(lambda connection: self._take(connection, stored)))
            middle = len(group) // 2
            return self._take_apart(do, group[:middle]) + self._take_apart(do, group[middle:])

    def _take(self, connection: Connection, group: Sequence[Result]) -> int:
        self._take_back(connection, {name_of(each) for each in group if each.final})
        new = unrecorded(connection, group)
        if not new:
            return 0
        self._recording.write(
            connection,
            new,
            end_claims=self._statements.end_freed_claims,
            overtaken=_overtaken(connection, new),
        )
        for each in new:
            _keep_prepared(connection, each)
        count = sum(each.final for each in new)
        if count:
            row = {"name": SPOOL_IMPORTED, "label": "", "value": count}
            self._statements.count_events(connection, [row])
        return count

    def _take_back(self, connection: Connection, names: set[Name]) -> None:
        """Remove what was only concluded from the run's death."""
        concluded = (
            executions.c.outcome == Outcome.INTERRUPTED.value,
            executions.c.reason == Reason.RUNNER_DIED.value,
        )
        columns = (executions.c.id, executions.c.run, executions.c.job, executions.c.tenant)
        for run in {name[0] for name in names}:
            tenants = sorted({name[2] for name in names})
            for chunk in chunks(tenants):
                mine = (executions.c.run == run, executions.c.tenant.in_(chunk))
                found = connection.execute(select(*columns).where(*mine, *concluded)).all()
                wrong = [row for row in found if (row.run, row.job, row.tenant) in names]
                if not wrong:
                    continue
                ids = [row.id for row in wrong]
                connection.execute(delete(executions).where(executions.c.id.in_(ids)))
                backs = [taken_back(row.job, row.tenant) for row in wrong]
                self._statements.count_only(connection, backs)

    def _end(self, connection: Connection, run: str, end: Mapping[str, Any]) -> None:
        """Give the run its end, in place of the one that it got when it was found dead."""
        unended = of_run(update(runs), run).where(runs.c.exit_code.is_(None))
        connection.execute(unended.values(**end))
        row = connection.execute(of_run(select(runs), run)).one()
        self._arbiter.interrupt_left(connection, row)


def _overtaken(connection: Connection, results: Sequence[Result]) -> set[Name]:
    """Return the executions after which another run of their pair has ended."""
    last: dict[tuple[str, str], Any] = {}
    for chunk in chunks(sorted({each.request.key.tenant for each in results})):
        columns = (statistics.c.job, statistics.c.tenant, statistics.c.last_run_at)
        known = select(*columns).where(
            statistics.c.tenant.in_(chunk), statistics.c.last_run_at.isnot(None)
        )
        last |= {(row.job, row.tenant): row.last_run_at for row in connection.execute(known)}
    return {
        name_of(each)
        for each in results
        if (at := last.get((each.request.key.job, each.request.key.tenant))) is not None
        and at > _ended_at(each)
    }


def _keep_prepared(connection: Connection, result: Result) -> None:
    """Keep what a ``prepare`` returned, unless its slot has a value."""
    job, slot_key = result.request.key.job.partition(":")[0], result.request.key.slot_key
    if result.value is not None and not is_prepared(connection, job, slot_key):
        keep_prepared(connection, job, slot_key, result.value, at=_ended_at(result))


def _ended_at(result: Result) -> datetime:
    return result.started_at + timedelta(seconds=result.duration_seconds)
