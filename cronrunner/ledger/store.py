"""The ledger's writer: claims, outcomes, runs. The only writer of history.

One thread owns one connection and commits in groups. Whoever wants something durable hands
it over and waits (``claim``, ``begin_run``); outcomes are handed over without waiting and
are durable when ``flush`` returns, at the latest a moment (``_LINGER_SECONDS``) later.

What happens when it fails
    A write that meets a busy or lost database is repeated for up to ``_PATIENCE_SECONDS``,
    or as long as the lease lasts; a group whose commit was lost on the way is not recorded
    twice (the executions of the group that are there already are left out). After that the
    ledger is failed for good: every waiting and every later call raises ``LedgerError``. Only
    outcomes are taken on, by the spool: those of the group that failed, those that wait, and
    every later one. Without a spool ``record`` raises as well.

What happens when it refuses
    A group with an outcome that cannot be stored is parted until that outcome is alone; it is
    then recorded as failed, and all others as they are. Of an outcome that is there already,
    since another run has found this one dead, the one that is there wins. A run that was
    found dead has lost its claims: that fails its ledger for good.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import tenacity
from sqlalchemy import Connection, Engine, update
from sqlalchemy.exc import OperationalError

from cronrunner.databases import describe
from cronrunner.errors import LedgerError
from cronrunner.events import Event
from cronrunner.ledger import keeping, pausing
from cronrunner.ledger.arbitration import Arbiter, of_run
from cronrunner.ledger.engine import loss, writing_engine
from cronrunner.ledger.importing import Importing
from cronrunner.ledger.quarantine import Quarantine
from cronrunner.ledger.recording import Recording, unrecordable, unrecorded
from cronrunner.ledger.rows import counter_rows, run_end, run_row
from cronrunner.ledger.schema import migrate
from cronrunner.ledger.spool import Spool, SpoolContent
from cronrunner.ledger.statements import Statements
from cronrunner.ledger.tables import runs
from cronrunner.model import Claims, Key, Pause, Repeat, Report, Result, Run, Spooled

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
        self._record = Recording(self._statements, clock)
        self._spool_folder = spool_folder
        self._spool: Spool | None = None
        self._run: Run | None = None
        #: As it began, for the spool.
        self._row: Mapping[str, Any] = {}
        #: When the lease ends, by the monotonic clock.
        self._held_until = math.inf
        self._on_lost: Callable[[], None] = lambda: None
        self._results: deque[Result] = deque()
        #: What the writer has taken and not committed yet.
        self._in_flight: list[Result] = []
        self._calls: deque[_Call] = deque()
        self._wake = threading.Condition()
        self._closing = False
        #: Why the writer's last try was in vain, while it tries again.
        self._refusal: Exception | None = None
        self._failure: LedgerError | None = None
        try:
            migrate(engine)
        except OperationalError as error:
            raise LedgerError(f"the ledger cannot be used: {describe(error)}") from error
        self._thread = threading.Thread(target=self._write, name="ledger-writer", daemon=True)
        self._thread.start()

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

        buried = self._do(begin)
        self._held_until = began + self._lease.total_seconds()
        self._on_lost = on_lost
        self._run = run
        return buried

    def reserve_spool(self, executions: int) -> None:
        """Make the run's spool, with room for so many outcomes. Raises ``OSError``."""
        if self._spool_folder is not None:
            self._spool = Spool(self._spool_folder, self._row)
            self._spool.expect(executions)

    def is_lease_over(self) -> bool:
        """Tell whether others may have taken over what the run holds, by the monotonic clock."""
        return time.monotonic() >= self._held_until

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
        return self._do(
            lambda connection: self._arbiter.claim(connection, run, keys, repeat, alone)
        )

    def record(self, result: Result) -> None:
        """Hand over the outcome of an execution; ``flush`` waits for it."""
        with self._wake:
            if self._failure is not None and self._spool is not None:
                self._spool.add([result])
                return
            self._check()
            self._results.append(result)
            if len(self._results) == 1:
                # From the first one on the writer knows, and waits for company.
                self._wake.notify()

    def flush(self) -> None:
        """Return when everything handed over is durable."""
        self._do(lambda _: None)

    def keep_prepared(self, job: str, slot_key: str, value: str) -> None:
        """Keep what a ``prepare`` returned, for this slot; in a spool its outcome holds it."""
        at = self._clock()
        try:
            self._do(lambda on: keeping.keep_prepared(on, job, slot_key, value, at=at))
        except LedgerError:
            if self._failure is None or self._spool is None:
                raise

    def accept_tenants(self, server: str, names: Iterable[str]) -> None:
        """Make ``names`` the last accepted discovery of a source."""
        at, kept = self._seen_at(), self._statements
        self._do(lambda on: keeping.accept_tenants(on, kept, server, names, at=at))

    def see_jobs(self, names: Iterable[str]) -> None:
        """Remember jobs from now on, or from the time that the run's trigger says."""
        rows = [{"job": name, "first_seen_at": self._seen_at()} for name in names]
        if rows:
            self._do(lambda connection: self._statements.new_jobs(connection, rows))

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
            self._do(add)

    def pause(self, pause: Pause) -> None:
        """Keep a pause, in the place of one of the same job, tenant and server."""
        self._do(lambda connection: pausing.keep(connection, pause, self._clock()))

    def unpause(self, names: tuple[str, str, str]) -> bool:
        """End the pause of a job, tenant and server; return whether it was in force."""
        return self._do(lambda connection: pausing.end(connection, names, self._clock()))

    def finish_run(self, report: Report, *, discovered: Mapping[str, int]) -> Sequence[Event]:
        """Close the run with its report; return what that changed in the quarantine."""
        values = run_end(report, discovered)

        def finish(connection: Connection) -> Sequence[Event]:
            changes = self._quarantine.judge(connection, report)
            connection.execute(of_run(update(runs), report.run.id).values(**values))
            # By the writer itself, which must not renew the lease of a run that has ended.
            self._run = None
            return changes

        changed = self._do(finish)
        self._held_until = math.inf
        return changed

    def leave(self, report: Report, *, discovered: Mapping[str, int]) -> Spooled | None:
        """Spool the end of a run whose ledger is lost; ``None`` if there is no spool."""
        with self._wake:
            if self._failure is None or self._spool is None:
                return None
            return self._spool.end(run_end(report, discovered))

    def import_spool(self, content: SpoolContent) -> int:
        """Record what the spool of a dead run holds; return how many outcomes were new."""
        return Importing(self._statements, self._record, self._arbiter)(self._do, content)

    def close(self) -> None:
        """Write what is left and end the writer."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        # A writer that has failed and still waits for an answer has nothing more to write.
        self._thread.join(timeout=_PATIENCE_SECONDS if self._failure is None else _LINGER_SECONDS)
        if self._thread.is_alive():
            self._fail(LedgerError("the ledger did not answer until the end"), [])
        with self._wake:
            spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()
        self._writer.dispose()
        self._engine.dispose()

    # The writer's thread.

    def _do(self, action: Callable[[Connection], T]) -> T:
        call = _Call(action, Future())
        with self._wake:
            self._check()
            self._calls.append(call)
            self._wake.notify()
        while not call.future.done() and not self.is_lease_over():
            left = self._held_until - time.monotonic()
            wait([call.future], timeout=None if left == math.inf else left)
        if not call.future.done():
            refused = "" if self._refusal is None else f": {describe(self._refusal)}"
            text = f"the ledger has not answered while the lease lasted{refused}"
            self._fail(LedgerError(text), [call])
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
        while self._failure is None:
            results, calls = self._take(until=beat)
            try:
                if results or calls:
                    self._commit(results, calls)
                    self._in_flight = []
                elif self._closing:
                    return
                if time.monotonic() >= beat:
                    beat = time.monotonic() + self._heartbeat.total_seconds()
                    self._renew()
            except Exception as error:  # noqa: BLE001 - who waits is told, whatever it is
                if isinstance(error, LedgerError):
                    self._held_until = time.monotonic()
                self._fail(loss(error), calls)
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
            self._in_flight = results
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
                self._transact([unrecordable(results[0], error)], repeated=True)
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
            began = time.monotonic()
            self._transact([], [lambda connection: self._arbiter.renew(connection, run)])
            self._held_until = began + self._lease.total_seconds()

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
        try:
            with self._writer.connect().execution_options(write=True) as connection:
                if results and repeated:
                    results = unrecorded(connection, results)
                    connection.rollback()
                with connection.begin():
                    if results:
                        self._record(connection, results)
                    answers = [action(connection) for action in actions]
        except OperationalError as error:
            self._refusal = error
            raise
        self._refusal = None
        return answers

    def _fail(self, failure: LedgerError, calls: list[_Call]) -> None:
        with self._wake:
            if self._failure is None and self._spool is not None:
                self._spool.add([*self._in_flight, *self._results])
            self._failure = self._failure or failure
            self._results.clear()
            waiting = [*calls, *self._calls]
            self._calls.clear()
        # Whoever waits then knows already that nothing more begins.
        self._on_lost()
        for call in waiting:
            with suppress(InvalidStateError):  # it was answered after all
                call.future.set_exception(failure)
