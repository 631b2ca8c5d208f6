"""The ledger's writer: claims, outcomes, runs. The only writer of history.

One thread owns one connection and commits in groups. Whoever wants something durable hands
it over and waits (``claim``, ``begin_run``); outcomes are handed over without waiting and
are durable when ``flush`` returns, at the latest a moment (``_LINGER_SECONDS``) later.

What happens when it fails
    A write that meets a busy or lost database is repeated for up to ``_PATIENCE_SECONDS``;
    a group whose commit was lost on the way is not recorded twice (the executions of the
    group that are there already are left out). After that the ledger is failed for good:
    every waiting and every later call raises ``LedgerError``.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import tenacity
from sqlalchemy import Connection, Engine, insert, select, update
from sqlalchemy.exc import OperationalError

from cronrunner.databases import describe
from cronrunner.errors import LedgerError
from cronrunner.ledger.arbitration import Arbiter, chunks, of_run
from cronrunner.ledger.rows import (
    attempt_row,
    claim_end,
    execution_row,
    histogram_rows,
    ran,
    statistics_row,
)
from cronrunner.ledger.schema import migrate
from cronrunner.ledger.statements import Statements
from cronrunner.ledger.tables import (
    attempts,
    prepared,
    runs,
    tenants,
)
from cronrunner.model import (
    Claims,
    Key,
    Repeat,
    Report,
    Result,
    Run,
)

#: How long outcomes may wait for others to be committed with.
_LINGER_SECONDS: Final = 0.01
#: How long a write is repeated before the ledger counts as lost.
_PATIENCE_SECONDS: Final = 30.0


T = TypeVar("T")
Action = Callable[[Connection], Any]


@dataclass(frozen=True, slots=True)
class _Call:
    """Something to do in a transaction, and who waits for it."""

    action: Action
    future: Future[Any]


class Ledger:
    """The write side of the ledger. Thread-safe."""

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Callable[[], datetime],
        heartbeat: timedelta = timedelta(seconds=5),
        lease: timedelta = timedelta(seconds=20),
    ) -> None:
        """Migrate the ledger's tables and start its writer. Raises ``LedgerError``."""
        self._engine = engine
        self._clock = clock
        self._heartbeat = heartbeat
        self._lease = lease
        self._statements = Statements(engine.dialect)
        self._arbiter = Arbiter(self._statements, clock)
        self._run: Run | None = None
        self._results: deque[Result] = deque()
        self._calls: deque[_Call] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._failure: LedgerError | None = None
        try:
            migrate(engine)
        except OperationalError as error:
            raise LedgerError(f"the ledger cannot be used: {describe(error)}") from error
        self._thread = threading.Thread(target=self._write, name="ledger-writer", daemon=True)
        self._thread.start()

    # What the runner asks for, in the order of a run.

    def begin_run(
        self, run: Run, *, fleet: bool, selection: Mapping[str, Any]
    ) -> Mapping[str, int]:
        """Open a run, and record as interrupted what dead runs left: run -> executions."""

        def begin(connection: Connection) -> Mapping[str, int]:
            buried = self._arbiter.bury_the_dead(connection)
            now = self._clock()
            row = {
                "run": run.id,
                "command": run.command,
                "started_at": run.started_at,
                "scheduled_at": run.scheduled_at,
                "slot": run.slot.at,
                "slot_key": run.slot.key,
                "host": run.host,
                "boot": run.boot,
                "pid": run.pid,
                "pid_started": run.pid_started,
                "heartbeat_at": now,
                "lease_until": now + self._lease,
                "fleet": fleet,
                "selection": json.dumps(selection, sort_keys=True),
            }
            if connection.execute(of_run(select(runs.c.run), run.id)).first() is None:
                connection.execute(insert(runs), row)
            return buried

        buried = self._do(begin)
        self._run = run
        return buried

    def claim(self, keys: Sequence[Key], *, repeat: Repeat = Repeat.NOTHING) -> Claims:
        """Take the claims that can be had, durably; of closed ones those that ``repeat`` names."""
        run = self._current_run()
        return self._do(lambda connection: self._arbiter.claim(connection, run, keys, repeat))

    def record(self, result: Result) -> None:
        """Hand over the outcome of an execution; ``flush`` waits for it."""
        with self._wake:
            self._check()
            self._results.append(result)
            if len(self._results) == 1:
                # From the first one on the writer knows, and waits for company.
                self._wake.notify()

    def flush(self) -> None:
        """Return when everything handed over is durable."""
        self._do(lambda _: None)

    def keep_prepared(self, job: str, slot_key: str, value: str) -> None:
        """Keep what a ``prepare`` returned, for this slot."""
        key = {"job": job, "slot_key": slot_key}
        row = key | {"value": value, "prepared_at": self._clock()}

        def keep(connection: Connection) -> None:
            mine = (prepared.c.job == job) & (prepared.c.slot_key == slot_key)
            connection.execute(prepared.delete().where(mine))
            connection.execute(insert(prepared), row)

        self._do(keep)

    def accept_tenants(self, server: str, names: Iterable[str]) -> None:
        """Make ``names`` the last accepted discovery of a source."""

        def accept(connection: Connection) -> None:
            of_server = tenants.c.server == server
            known = set(connection.execute(select(tenants.c.tenant).where(of_server)).scalars())
            wanted = set(names)
            for chunk in chunks(sorted(known - wanted)):
                connection.execute(tenants.delete().where(of_server, tenants.c.tenant.in_(chunk)))
            rows = [
                {"server": server, "tenant": name, "first_seen_at": self._clock()}
                for name in sorted(wanted - known)
            ]
            if rows:
                connection.execute(self._statements.new_tenants, rows)

        self._do(accept)

    def forget_servers(self, configured: Iterable[str]) -> None:
        """Forget the accepted discoveries of servers that are no longer configured."""
        known = sorted(configured)
        self._do(lambda each: each.execute(tenants.delete().where(tenants.c.server.not_in(known))))

    def add_counters(self, deltas: Mapping[tuple[str, str], float]) -> None:
        """Add to counters that only events know."""
        rows = [{"name": n, "label": label, "value": v} for (n, label), v in deltas.items()]
        if rows:
            self._do(lambda connection: connection.execute(self._statements.count_events, rows))

    def finish_run(self, report: Report, *, discovered: Mapping[str, int]) -> None:
        """Close the run with its report."""
        values = {
            "finished_at": report.finished_at,
            "planned": report.planned,
            "duplicates": report.duplicates,
            "exit_code": report.exit_code,
            "discovered": json.dumps(discovered, sort_keys=True),
            "errors": json.dumps(report.errors),
            "outcomes": json.dumps({str(k): n for k, n in report.outcomes.items() if n}),
        }
        self._do(lambda each: each.execute(of_run(update(runs), report.run.id).values(**values)))
        self._run = None

    def close(self) -> None:
        """Write what is left and end the writer."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout=_PATIENCE_SECONDS)
        self._engine.dispose()

    # The writer's thread.

    def _do(self, action: Callable[[Connection], T]) -> T:
        call = _Call(action, Future())
        with self._wake:
            self._check()
            self._calls.append(call)
            self._wake.notify()
        done: T = call.future.result()
        return done

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closing:
            msg = "the ledger is closed"
            raise LedgerError(msg)

    def _current_run(self) -> Run:
        if self._run is None:
            msg = "no run is open in the ledger"
            raise LedgerError(msg)
        return self._run

    def _write(self) -> None:
        """Commit whatever is there, group by group, until closed."""
        beat = time.monotonic()
        while True:
            results, calls = self._take(until=beat)
            due = time.monotonic() >= beat
            if due:
                beat = time.monotonic() + self._heartbeat.total_seconds()
            renews = due and self._run is not None
            if results or calls or renews:
                try:
                    self._commit(results, calls, renews=renews)
                except LedgerError as failure:
                    self._fail(failure, calls)
                    return
            elif self._closing:
                return

    def _take(self, *, until: float) -> tuple[list[Result], list[_Call]]:
        """Wait for work or for the heartbeat; outcomes alone wait a little for company."""
        with self._wake:
            while not (self._results or self._calls or self._closing):
                if not self._wake.wait(max(until - time.monotonic(), 0)):
                    break
            if self._results and not self._calls and not self._closing:
                self._wake.wait_for(lambda: self._calls or self._closing, _LINGER_SECONDS)
            results, calls = list(self._results), list(self._calls)
            self._results.clear()
            self._calls.clear()
            return results, calls

    def _commit(self, results: list[Result], calls: list[_Call], *, renews: bool) -> None:
        """Write one group in one transaction, repeating it while the ledger is away."""
        answers: list[Any] = []
        try:
            for attempt in tenacity.Retrying(
                stop=tenacity.stop_after_delay(_PATIENCE_SECONDS),
                wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
                retry=tenacity.retry_if_exception_type(OperationalError),
                reraise=True,
            ):
                with attempt:
                    repeated = attempt.retry_state.attempt_number > 1
                    answers = self._transact(results, calls, renews=renews, repeated=repeated)
        except Exception as error:
            raise LedgerError(f"the ledger was lost: {describe(error)}") from error
        for call, answer in zip(calls, answers, strict=True):
            call.future.set_result(answer)

    def _transact(
        self, results: list[Result], calls: list[_Call], *, renews: bool, repeated: bool
    ) -> list[Any]:
        with self._engine.connect().execution_options(write=True) as connection:
            if results and repeated:
                results = self._unrecorded(connection, results)
                connection.rollback()
            with connection.begin():
                if results:
                    self._record(connection, results)
                answers = [call.action(connection) for call in calls]
                if renews and self._run is not None:
                    now = self._clock()
                    beat = {"heartbeat_at": now, "lease_until": now + self._lease}
                    connection.execute(of_run(update(runs), self._run.id).values(**beat))
            return answers

    def _fail(self, failure: LedgerError, calls: list[_Call]) -> None:
        with self._wake:
            self._failure = failure
            waiting = [*calls, *self._calls]
            self._calls.clear()
        for call in waiting:
            call.future.set_exception(failure)

    # Outcomes.

    def _record(self, connection: Connection, results: Sequence[Result]) -> None:
        now = self._clock()
        connection.execute(self._statements.new_attempts, [attempt_row(e) for e in results])
        results = [each for each in results if each.final]
        if not results:
            return
        rows = [execution_row(each) for each in results]
        connection.execute(self._statements.new_executions, rows)
        # What was never claimed has no fence and no claim to end.
        ends = [claim_end(each, now) for each in results if each.request.fence]
        if ends:
            connection.execute(self._statements.end_claims, ends)
        of_jobs: list[dict[str, Any]] = []
        only_counted: list[dict[str, Any]] = []
        for execution, each in zip(rows, results, strict=True):
            if ran(each):
                of_jobs.append(statistics_row(execution, each))
            else:
                only_counted.append(statistics_row(execution, None))
        if of_jobs:
            connection.execute(self._statements.count_run, of_jobs)
        if only_counted:
            connection.execute(self._statements.count_only, only_counted)
        if histogram := histogram_rows(results):
            connection.execute(self._statements.count_durations, histogram)

    def _unrecorded(self, connection: Connection, results: Sequence[Result]) -> list[Result]:
        """Leave out what an earlier try of the group has committed."""
        run = results[0].request.run
        columns = (attempts.c.job, attempts.c.tenant, attempts.c.attempt)
        there = connection.execute(select(*columns).where(attempts.c.run == run))
        recorded = {(row.job, row.tenant, row.attempt) for row in there}
        return [
            each
            for each in results
            if (each.request.key.job, each.request.key.tenant, each.request.attempt) not in recorded
        ]
