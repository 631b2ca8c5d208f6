"""The ledger's write side: claims, outcomes, runs. The only writer of history.

Whoever wants something durable waits for it (``claim``, ``begin_run``); outcomes are handed
over without waiting and are durable when ``flush`` returns. ``writing`` says when that is, and
what happens when the database is busy, refuses something, or is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, update

from cronrunner.errors import LedgerError
from cronrunner.events import Event
from cronrunner.ledger import keeping, pausing
from cronrunner.ledger.arbitration import Arbiter, of_run
from cronrunner.ledger.importing import Importing
from cronrunner.ledger.pruning import prune_batch
from cronrunner.ledger.quarantine import Quarantine
from cronrunner.ledger.recording import Recording
from cronrunner.ledger.rows import counter_rows, run_end, run_row
from cronrunner.ledger.schema import bring_up_to_date
from cronrunner.ledger.spool import Spool, SpoolContent
from cronrunner.ledger.statements import Statements
from cronrunner.ledger.tables import runs
from cronrunner.ledger.writing import Writer
from cronrunner.model import Claims, Key, Pause, Repeat, Report, Result, Run, Spooled


class Ledger:
    """The write side of the ledger. Thread-safe."""

    def __init__(  # noqa: PLR0913 - what a ledger is told once, each by name
        self,
        engine: Engine,
        *,
        clock: Callable[[], datetime],
        heartbeat: timedelta = timedelta(seconds=5),
        lease: timedelta = timedelta(seconds=20),
        spool_folder: Path | None = None,
        quarantine: Quarantine = Quarantine(),  # noqa: B008 - frozen
    ) -> None:
        """Migrate the ledger's tables and start its writer. Raises ``LedgerError``."""
        #: For readers; the writer has a pool of its own, which they cannot exhaust.
        self._engine = engine
        self._clock = clock
        self._lease = lease
        self._statements = Statements(engine.dialect)
        self._quarantine = quarantine
        self._arbiter = Arbiter(self._statements, clock, lease)
        self._record = Recording(self._statements, clock)
        self._spool_folder = spool_folder
        self._run: Run | None = None
        #: (job, tenant) pairs that their servers made fail.
        self._excused: set[tuple[str, str]] = set()
        #: As it began, for the spool.
        self._row: Mapping[str, Any] = {}
        bring_up_to_date(engine)
        self._writer = Writer(engine, self._record, heartbeat=heartbeat, lease=lease)

    # What the runner asks for, in the order of a run.

    def begin_run(
        self,
        run: Run,
        *,
        fleet: bool,
        selection: Mapping[str, Any],
        on_lost: Callable[[], None] = lambda: None,
    ) -> Mapping[str, int]:
        """Open a run, and record as interrupted what dead runs left: run -> executions.

        A dry run leaves them to the next real one. ``on_lost`` is called, by whatever thread,
        when the ledger is failed for good.
        """
        began = time.monotonic()

        def begin(connection: Connection) -> Mapping[str, int]:
            buried = {} if run.dry_run else self._arbiter.bury_the_dead(connection)
            now = self._clock()
            self._row = run_row(run, now, self._lease, fleet=fleet, selection=selection)
            keeping.open_run(connection, self._row)
            return buried

        buried = self._writer.do(begin)
        self._run = run
        self._writer.hold(
            lambda connection: self._arbiter.renew(connection, run), since=began, on_lost=on_lost
        )
        return buried

    def reserve_spool(self, executions: int) -> None:
        """Make the run's spool, with room for so many outcomes. Raises ``OSError``."""
        if self._spool_folder is not None:
            self._writer.spool = Spool(self._spool_folder, self._row)
            self._writer.spool.expect(executions)

    def is_lease_over(self) -> bool:
        """Tell whether others may have taken over what the run holds, by the monotonic clock."""
        return self._writer.is_lease_over()

    def claim(
        self,
        keys: Sequence[Key],
        *,
        repeat: Repeat = Repeat.NOTHING,
        alone: Container[str] = (),
    ) -> Claims:
        """Take the claims that can be had, durably; of closed ones those that ``repeat`` names.

        Of the jobs in ``alone`` none is taken while another slot of the pair is at work.
        """
        run = self._current_run()
        return self._writer.do(
            lambda connection: self._arbiter.claim(connection, run, keys, repeat, alone)
        )

    def done(self, keys: Sequence[Key], *, repeat: Repeat = Repeat.NOTHING) -> Mapping[Key, str]:
        """Return the run that has done it for each of ``keys`` that is done; claim nothing."""
        return self._writer.do(lambda connection: self._arbiter.done(connection, keys, repeat))

    def record(self, result: Result) -> None:
        """Hand over the outcome of an execution; ``flush`` waits for it."""
        if result.server_fault and result.final:
            self._excused.add((result.request.key.job, result.request.key.tenant))
        self._writer.add(result)

    def flush(self) -> None:
        """Return when everything handed over is durable."""
        self._writer.do(lambda _: None)

    def keep_prepared(self, job: str, slot_key: str, value: str) -> None:
        """Keep what a ``prepare`` returned, for this slot; in a spool its outcome holds it."""
        at = self._clock()
        try:
            self._writer.do(lambda on: keeping.keep_prepared(on, job, slot_key, value, at=at))
        except LedgerError:
            if self._writer.lost_spool() is None:
                raise

    def accept_tenants(self, server: str, names: Iterable[str]) -> None:
        """Make ``names`` the last accepted discovery of a source."""
        at, kept = self._seen_at(), self._statements
        self._writer.do(lambda on: keeping.accept_tenants(on, kept, server, names, at=at))

    def see_jobs(self, names: Iterable[str]) -> None:
        """Remember jobs from now on, or from the time that the run's trigger says."""
        rows = [{"job": name, "first_seen_at": self._seen_at()} for name in names]
        if rows:
            self._writer.do(lambda connection: self._statements.new_jobs(connection, rows))

    def _seen_at(self) -> datetime:
        """Return from when on slots count: a late trigger must not make its own slot too old."""
        now, run = self._clock(), self._run
        scheduled = None if run is None else run.scheduled_at
        return now if scheduled is None else min(now, scheduled)

    def add_counters(
        self,
        deltas: Mapping[tuple[str, str], float],
        states: Mapping[tuple[str, str], float] | None = None,
    ) -> None:
        """Add to counters that only events know, and set gauges: (name, label) -> number."""

        def add(connection: Connection) -> None:
            self._statements.count_events(connection, counter_rows(deltas))
            self._statements.keep_states(connection, counter_rows(states or {}))

        if deltas or states:
            self._writer.do(add)

    def prune(self, before: datetime, *, is_over: Callable[[], bool] = lambda: False) -> int:
        """Remove what is older than ``before`` until ``is_over``; return how many rows."""
        removed = 0
        while not is_over():
            batch = self._writer.do(lambda connection: prune_batch(connection, before))
            if not batch:
                break
            removed += batch
        return removed

    def pause(self, pause: Pause) -> None:
        """Keep a pause, in the place of one of the same job, tenant and server."""
        self._writer.do(lambda connection: pausing.keep(connection, pause, self._clock()))

    def unpause(self, names: tuple[str, str, str]) -> bool:
        """End the pause of a job, tenant and server; return whether it was in force."""
        return self._writer.do(lambda connection: pausing.end(connection, names, self._clock()))

    def finish_run(self, report: Report, *, discovered: Mapping[str, int]) -> Sequence[Event]:
        """Close the run with its report; return what that changed in the quarantine."""
        values = run_end(report, discovered)

        def finish(connection: Connection) -> Sequence[Event]:
            changes = self._quarantine.judge(connection, report, self._excused)
            connection.execute(of_run(update(runs), report.run.id).values(**values))
            self._run = None
            self._writer.renew_no_more()
            return changes

        changed = self._writer.do(finish)
        self._writer.let_go()
        return changed

    def leave(self, report: Report, *, discovered: Mapping[str, int]) -> Spooled | None:
        """Spool the end of a run whose ledger is lost; ``None`` if there is no spool."""
        spool = self._writer.lost_spool()
        return None if spool is None else spool.end(run_end(report, discovered))

    def import_spool(self, content: SpoolContent) -> int:
        """Record what the spool of a dead run holds; return how many outcomes were new."""
        return Importing(self._statements, self._record, self._arbiter)(self._writer.do, content)

    def close(self) -> None:
        """Write what is left and end the writer."""
        self._writer.close()
        self._engine.dispose()

    def _current_run(self) -> Run:
        if self._run is None:
            msg = "no run is open in the ledger"
            raise LedgerError(msg)
        return self._run
