"""The ledger's writer: claims, outcomes, runs. The only writer of history.

One thread owns one connection and commits in groups. Whoever wants something durable hands
it over and waits (``claim``, ``begin_run``); outcomes are handed over without waiting and
are durable when ``flush`` returns, at the latest a moment (``_LINGER_SECONDS``) later.

What happens when it fails
    A write that meets a busy or lost database is repeated for up to ``_PATIENCE_SECONDS``,
    or as long as the lease lasts; a group whose commit was lost on the way is not recorded
    twice (the executions of the group that are there already are left out). After that the
    ledger is failed for good: every waiting and every later call raises ``LedgerError``.

What happens when it refuses
    A group with an outcome that cannot be stored is parted until that outcome is alone; it is
    then recorded as failed, and all others as they are. Of an outcome that is there already,
    since another run has found this one dead, the one that is there wins. A run that was
    found dead has lost its claims: that fails its ledger for good.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import tenacity
from sqlalchemy import Connection, Engine, Table, insert, select, update
from sqlalchemy.exc import OperationalError

from cronrunner.databases import describe
from cronrunner.errors import LedgerError
from cronrunner.events import Event
from cronrunner.ledger.arbitration import Arbiter, chunks, of_run
from cronrunner.ledger.engine import writing_engine
from cronrunner.ledger.quarantine import Quarantine
from cronrunner.ledger.rows import (
    attempt_row,
    claim_end,
    execution_row,
    histogram_rows,
    ran,
    selection_text,
    statistics_row,
)
from cronrunner.ledger.schema import migrate
from cronrunner.ledger.statements import Statements
from cronrunner.ledger.tables import (
    attempts,
    executions,
    prepared,
    runs,
    tenants,
)
from cronrunner.model import (
    EMPTY,
    Claims,
    Key,
    Outcome,
    Repeat,
    Report,
    Result,
    Run,
)

#: How long outcomes may wait for others to be committed with.
_LINGER_SECONDS: Final = 0.05
#: How long a write is repeated before the ledger counts as lost; no longer than the lease lasts.
_PATIENCE_SECONDS: Final = 30.0
#: The part of the patience that one try may wait for a lock: none begins in the last such part.
_TRY: Final = 0.25
#: Outcomes in one transaction: a drain of a whole fleet must not hold up the heartbeat.
_GROUP: Final = 2000

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
        quarantine: Quarantine = Quarantine(),  # noqa: B008 - frozen
    ) -> None:
        """Migrate the ledger's tables and start its writer. Raises ``LedgerError``."""
        left_of_lease = (lease - heartbeat).total_seconds()
        self._patience_seconds = min(_PATIENCE_SECONDS, left_of_lease)
        #: For readers; the writer has a pool of its own, which they cannot exhaust.
        self._engine = engine
        self._writer = writing_engine(engine, busy_seconds=self._patience_seconds * _TRY)
        self._clock = clock
        self._heartbeat = heartbeat
        self._lease = lease
        self._statements = Statements(engine.dialect)
        self._quarantine = quarantine
        self._arbiter = Arbiter(self._statements, clock, lease)
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
                "selection": selection_text(selection),
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
                self._statements.new_tenants(connection, rows)

        self._do(accept)

    def add_counters(self, deltas: Mapping[tuple[str, str], float]) -> None:
        """Add to counters that only events know."""
        rows = [{"name": n, "label": label, "value": v} for (n, label), v in deltas.items()]
        if rows:
            self._do(lambda connection: self._statements.count_events(connection, rows))

    def finish_run(self, report: Report, *, discovered: Mapping[str, int]) -> Sequence[Event]:
        """Close the run with its report; return what that changed in the quarantine."""
        values = {
            "finished_at": report.finished_at,
            "planned": report.planned,
            "duplicates": report.duplicates,
            "exit_code": report.exit_code,
            "discovered": json.dumps(discovered, sort_keys=True),
            "errors": json.dumps(report.errors),
            "outcomes": json.dumps({str(k): n for k, n in report.outcomes.items() if n}),
        }

        def finish(connection: Connection) -> Sequence[Event]:
            changes = self._quarantine.judge(connection, report)
            connection.execute(of_run(update(runs), report.run.id).values(**values))
            # By the writer itself, which must not renew the lease of a run that has ended.
            self._run = None
            return changes

        return self._do(finish)

    def close(self) -> None:
        """Write what is left and end the writer."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout=_PATIENCE_SECONDS)
        self._writer.dispose()
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
            try:
                if results or calls:
                    self._commit(results, calls)
                elif self._closing:
                    return
                if time.monotonic() >= beat:
                    beat = time.monotonic() + self._heartbeat.total_seconds()
                    self._renew()
            except Exception as error:  # noqa: BLE001 - who waits is told, whatever it is
                self._fail(_failure(error), calls)
                return

    def _take(self, *, until: float) -> tuple[list[Result], list[_Call]]:
        """Wait for work or for the heartbeat; outcomes alone wait a little for company.

        A call is taken with the last of the outcomes that were handed over before it.
        """
        with self._wake:
            while not (self._results or self._calls or self._closing):
                if not self._wake.wait(max(until - time.monotonic(), 0)):
                    break
            if 0 < len(self._results) < _GROUP and not self._calls and not self._closing:
                self._wake.wait_for(lambda: self._calls or self._closing, _LINGER_SECONDS)
            results = [self._results.popleft() for _ in range(min(len(self._results), _GROUP))]
            if self._results:
                return results, []
            calls = list(self._calls)
            self._calls.clear()
            return results, calls

    def _commit(self, results: list[Result], calls: list[_Call]) -> None:
        """Write one group in one transaction, or apart if something in it is refused."""
        actions = [call.action for call in calls]
        try:
            answers = self._transact(results, actions)
        except OperationalError:
            raise
        except Exception:  # noqa: BLE001 - it is met again, alone
            self._store(results, repeated=True)
            self._answer(calls)
        else:
            for call, answer in zip(calls, answers, strict=True):
                call.future.set_result(answer)

    def _store(self, results: list[Result], *, repeated: bool = False) -> None:
        """Write outcomes, and part them when they are refused, until the offender is alone."""
        if not results:
            return
        try:
            self._transact(results, repeated=repeated)
        except OperationalError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the driver makes of a value
            if len(results) == 1:
                self._transact([_unrecordable(results[0], error)], repeated=True)
                return
            middle = len(results) // 2
            self._store(results[:middle], repeated=True)
            self._store(results[middle:], repeated=True)

    def _answer(self, calls: list[_Call]) -> None:
        """Do each call in a transaction of its own; what is refused concerns who asked."""
        for call in calls:
            try:
                (answer,) = self._transact([], [call.action])
            except (LedgerError, OperationalError):
                raise
            except Exception as error:  # noqa: BLE001 - as above
                refusal = LedgerError(f"the ledger refused this: {describe(error)}")
                call.future.set_exception(refusal)
            else:
                call.future.set_result(answer)

    def _renew(self) -> None:
        run = self._run
        if run is not None:
            self._transact([], [lambda connection: self._arbiter.renew(connection, run)])

    def _transact(
        self, results: list[Result], actions: Sequence[Action] = (), *, repeated: bool = False
    ) -> list[Any]:
        """Do this in one transaction, again and again while the ledger is away."""
        answers: list[Any] = []
        for attempt in tenacity.Retrying(
            stop=tenacity.stop_after_delay(self._patience_seconds * (1 - _TRY)),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
            retry=tenacity.retry_if_exception_type(OperationalError),
            reraise=True,
        ):
            with attempt:
                again = repeated or attempt.retry_state.attempt_number > 1
                answers = self._try(results, actions, repeated=again)
        return answers

    def _try(
        self, results: list[Result], actions: Sequence[Action], *, repeated: bool
    ) -> list[Any]:
        with self._writer.connect().execution_options(write=True) as connection:
            if results and repeated:
                results = _unrecorded(connection, results)
                connection.rollback()
            with connection.begin():
                if results:
                    self._record(connection, results)
                return [action(connection) for action in actions]

    def _fail(self, failure: LedgerError, calls: list[_Call]) -> None:
        with self._wake:
            self._failure = failure
            waiting = [*calls, *self._calls]
            self._calls.clear()
        for call in waiting:
            if not call.future.done():
                call.future.set_exception(failure)

    # Outcomes.

    def _record(self, connection: Connection, results: Sequence[Result]) -> None:
        now = self._clock()
        self._statements.new_attempts(connection, [attempt_row(e) for e in results])
        results = [each for each in results if each.final]
        if not results:
            return
        rows = [execution_row(each) for each in results]
        self._statements.new_executions(connection, rows)
        # What was never claimed has no fence and no claim to end.
        ends = [claim_end(each, now) for each in results if each.request.fence]
        if ends:
            self._statements.end_claims(connection, ends)
        of_jobs: list[dict[str, Any]] = []
        only_counted: list[dict[str, Any]] = []
        for execution, each in zip(rows, results, strict=True):
            if ran(each):
                of_jobs.append(statistics_row(execution, each))
            else:
                only_counted.append(statistics_row(execution, None))
        if of_jobs:
            self._statements.count_run(connection, of_jobs)
        if only_counted:
            self._statements.count_only(connection, only_counted)
        if histogram := histogram_rows(results):
            self._statements.count_durations(connection, histogram)


def _failure(error: Exception) -> LedgerError:
    if isinstance(error, LedgerError):
        return error
    failure = LedgerError(f"the ledger was lost: {describe(error)}")
    failure.__cause__ = error
    return failure


def _unrecordable(result: Result, error: Exception) -> Result:
    """Return what is recorded of an outcome that the ledger cannot take."""
    inner = getattr(error, "orig", None) or error
    return replace(
        result,
        outcome=Outcome.FAILED,
        error=f"its outcome could not be recorded: {type(inner).__name__}",
        reason=None,
        counters=EMPTY,
        cause=None,
        code=None,
    )


def _unrecorded(connection: Connection, results: Sequence[Result]) -> list[Result]:
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
        for each, key in ((each, _key(each)) for each in results)
        if key not in ended and (*key, each.request.attempt) not in tried
    ]


def _key(result: Result) -> tuple[str, str, str]:
    return result.request.run, result.request.key.job, result.request.key.tenant


def _there(
    connection: Connection, table: Table, run: str, names: Sequence[str], *more: str
) -> set[tuple[Any, ...]]:
    columns = [table.c[name] for name in ("run", "job", "tenant", *more)]
    found = select(*columns).where(table.c.run == run, table.c.tenant.in_(names))
    return {tuple(row) for row in connection.execute(found)}
