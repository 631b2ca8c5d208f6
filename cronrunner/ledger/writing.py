"""The ledger's one writing thread: it owns one connection and commits in groups.

Whoever wants something durable hands it over and waits (``do``); outcomes are handed over
without waiting and are durable at the latest a moment (``_LINGER_SECONDS``) later.

What happens when it fails
    A write that meets a busy or lost database is repeated for up to ``PATIENCE_SECONDS``,
    or as long as the lease lasts; a group whose commit was lost on the way is not recorded
    twice (the executions of the group that are there already are left out). After that the
    ledger is failed for good: every waiting and every later call raises ``LedgerError``. Only
    outcomes are taken on, by the spool: those of the group that failed, those that wait, and
    every later one. Without a spool ``add`` raises as well.

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
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import tenacity
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from cronrunner.databases import describe
from cronrunner.errors import LedgerError
from cronrunner.ledger.engine import loss, writing_engine
from cronrunner.ledger.recording import Recording, unrecordable, unrecorded
from cronrunner.ledger.spool import Spool
from cronrunner.model import Result

#: How long outcomes may wait for others to be committed with.
_LINGER_SECONDS: Final = 0.05
#: How long a write is repeated before the ledger counts as lost; no longer than the lease lasts.
PATIENCE_SECONDS: Final = 30.0
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


class Writer:
    """The thread and what waits for it. Thread-safe."""

    def __init__(
        self, engine: Engine, record: Recording, *, heartbeat: timedelta, lease: timedelta
    ) -> None:
        """``record`` writes a group of outcomes."""
        left_of_lease = (lease - heartbeat).total_seconds()
        self.patience_seconds = min(PATIENCE_SECONDS, left_of_lease)
        self.engine = writing_engine(engine, busy_seconds=self.patience_seconds * _TRY)
        self._record = record
        self._heartbeat = heartbeat
        self._lease = lease
        #: Renews the lease of the run, while there is one.
        self._renewal: Action | None = None
        #: When the lease ends, by the monotonic clock.
        self._held_until = math.inf
        self._on_lost: Callable[[], None] = lambda: None
        #: Takes outcomes when the ledger is failed for good.
        self.spool: Spool | None = None
        self._results: deque[Result] = deque()
        #: What was taken and is not committed yet.
        self._in_flight: list[Result] = []
        self._calls: deque[_Call] = deque()
        #: Taken itself, and not by its condition: that is quicker.
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._closing = False
        #: Why the last try was in vain, while it is repeated.
        self._refusal: Exception | None = None
        self.failure: LedgerError | None = None
        self._thread = threading.Thread(target=self._write, name="ledger-writer", daemon=True)
        self._thread.start()

    def hold(self, renewal: Action, *, since: float, on_lost: Callable[[], None]) -> None:
        """Renew a lease that was taken at ``since`` (monotonic seconds) until ``renew_no_more``.

        ``on_lost`` is called, by whatever thread, when the ledger is failed for good.
        """
        self._held_until = since + self._lease.total_seconds()
        self._on_lost = on_lost
        self._renewal = renewal

    def renew_no_more(self) -> None:
        """Renew nothing any more; for the action that ends the run, which has no lease then."""
        self._renewal = None

    def let_go(self) -> None:
        """Hold no lease any more that could be over."""
        self._held_until = math.inf

    def is_lease_over(self) -> bool:
        """Tell whether others may have taken over what the run holds, by the monotonic clock."""
        return time.monotonic() >= self._held_until

    def add(self, result: Result) -> None:
        """Hand over an outcome."""
        with self._lock:
            if self.failure is not None and self.spool is not None:
                self.spool.add([result])
                return
            self._check()
            self._results.append(result)
            if len(self._results) == 1:
                # From the first one on the writer knows, and waits for company.
                self._wake.notify()

    def lost_spool(self) -> Spool | None:
        """Return the spool if outcomes go there by now."""
        with self._lock:
            return None if self.failure is None else self.spool

    def do(self, action: Callable[[Connection], T]) -> T:
        """Do something in a transaction and return its answer. Raises ``LedgerError``."""
        call = _Call(action, Future())
        with self._lock:
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

    def close(self) -> None:
        """Write what is left and end the thread."""
        with self._lock:
            self._closing = True
            self._wake.notify()
        # A writer that has failed and still waits for an answer has nothing more to write.
        self._thread.join(timeout=PATIENCE_SECONDS if self.failure is None else _LINGER_SECONDS)
        if self._thread.is_alive():
            self._fail(LedgerError("the ledger did not answer until the end"), [])
        with self._lock:
            spool, self.spool = self.spool, None
        if spool is not None:
            spool.close()
        self.engine.dispose()

    # In the thread, but for ``_check`` and ``_fail``.

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self._closing:
            msg = "the ledger is closed"
            raise LedgerError(msg)

    def _write(self) -> None:
        """Commit whatever is there, group by group, until closed."""
        beat = time.monotonic()
        while self.failure is None:
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
        with self._lock:
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
        renewal = self._renewal
        if renewal is not None:
            began = time.monotonic()
            self._transact([], [renewal])
            self._held_until = began + self._lease.total_seconds()

    def _transact(
        self, results: list[Result], actions: Sequence[Action] = (), *, repeated: bool = False
    ) -> list[Any]:
        """Do this in one transaction, again and again while the ledger is away."""
        answers: list[Any] = []
        for attempt in tenacity.Retrying(
            stop=tenacity.stop_after_delay(self.patience_seconds * (1 - _TRY)),
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
            with self.engine.connect().execution_options(write=True) as connection:
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
        with self._lock:
            if self.failure is None and self.spool is not None:
                self.spool.add([*self._in_flight, *self._results])
            self.failure = self.failure or failure
            self._results.clear()
            waiting = [*calls, *self._calls]
            self._calls.clear()
        # Whoever waits then knows already that nothing more begins.
        self._on_lost()
        for call in waiting:
            with suppress(InvalidStateError):  # it was answered after all
                call.future.set_exception(failure)
