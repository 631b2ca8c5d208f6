"""One visit, one attempt after another, as a pipeline over one value.

An attempt goes through ``_STEPS``. Each step takes the attempt and returns it, with what it
has learned: a session, a value, or the error that ended it; steps after an error that only
make sense without one let the attempt pass. Whatever happens there is a result at the end:

==========================================  =================================================
what happens                                outcome
==========================================  =================================================
the job returns, the commit succeeds        ``succeeded``
the database does not exist at connect      ``tenant_gone``
the session cannot be opened                ``failed``, for every job of the visit at the
                                            cost of one connect
``Skip``, ``Cancel``                        ``skipped``, ``cancelled`` by the job; rolled back
``Retry``                                   ``failed``, and worth repeating
any other exception, ``SystemExit`` and     ``failed``; rolled back
every ``BaseException`` included
the deadline expires                        ``timed_out``; cancelled at the server, rolled
                                            back, and the session is not used on
the thread does not come back after that    ``stuck``, by the watchdog
the commit fails                            ``failed``; the server has rolled back
the job is isolated                         as ``isolated`` says; its process makes the attempt
                                            with a ``Performer`` of its own
a dry run does what cannot be rolled back   ``failed``, before it is done; rolled back
==========================================  =================================================

Between two jobs of a visit the session is renewed: variables, temporary tables, locks and an
open transaction of one job do not reach the next. The caller may stop between attempts by
closing the iterator; the visit's sessions are closed in any case.

All texts of a result are scrubbed here, once: the ledger, metrics and ``--json`` get no
others.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

from cronrunner import logs
from cronrunner.context import JobContext, Shared
from cronrunner.databases import markers
from cronrunner.engines import Engines, TenantEngine
from cronrunner.errors import DeadlineError, DryRunError, OverlapError
from cronrunner.events import (
    Dispatcher,
    ExecutionStarted,
    ExecutionStuck,
    VisitFinished,
    Warned,
)
from cronrunner.execution.attempt import Attempt, Resolve, Work
from cronrunner.execution.classifying import Classifier, begun, kept_value, read_counters
from cronrunner.execution.coroutines import CoroutineCall, is_coroutine
from cronrunner.execution.isolated import Isolated
from cronrunner.model import (
    FLEET,
    Isolation,
    Outcome,
    Request,
    Result,
    Tenant,
    VisitRequest,
    format_duration,
)
from cronrunner.redaction import Redactor
from cronrunner.watchdog import Deadline, Session, Watch

_NO_LOCKS: Final = "has no named locks: server_lock has no effect there"


class Performer:
    """Performs visits: the function that every executor receives."""

    def __init__(  # noqa: PLR0913 - what it takes to perform
        self,
        *,
        resolve: Resolve,
        engines: Engines,
        events: Dispatcher,
        redactor: Redactor,
        clock: Callable[[], datetime],
        watchdog: Watch,
        grace: timedelta,
        pause: Callable[[timedelta], None],
        on_stuck: Callable[[Result], None],
        on_reached: Callable[[Tenant], None],
        isolated: Isolated | None = None,
        shared: Shared | None = None,
    ) -> None:
        """``pause`` waits for a debug delay and returns early when the run is draining.

        ``on_reached`` is told when a visit has its session, before its job begins. ``on_stuck``
        is given the result of an attempt that nothing could end. ``isolated`` makes the attempts
        of isolated jobs; without it, as in their processes, all are made here. ``shared`` is what
        the contexts have in common.
        """
        self._resolve = resolve
        self._engines = engines
        self._events = events
        self._redactor = redactor
        self._classifier = Classifier(redactor)
        self._clock = clock
        self._watchdog = watchdog
        self._grace = grace
        self._pause = pause
        self._on_stuck = on_stuck
        #: Servers that were found to have no named locks, or such as do not do all.
        self._lockless: set[str] = set()
        self._isolated = isolated
        self._shared = shared
        self._on_reached = on_reached

    def __call__(self, visit: VisitRequest) -> Iterator[Result]:
        """Make the attempts of a visit, giving each result as soon as it is there."""
        started = time.monotonic()
        tenant = visit.tenant
        engine, refused = self._open(tenant)
        unreached: Result | None = None
        clean = False
        works = [self._find(request, tenant) for request in visit.requests]
        if engine is not None:
            engine.limit_statements(self._longest(works))
        try:
            for place, request in enumerate(visit.requests):
                if engine is not None:
                    self._make_ready(engine, tenant, works[place], first=place == 0)
                with logs.bound(request, tenant):
                    if unreached is not None:
                        yield self._same(unreached, request, tenant, works[place])
                        continue
                    more = len(works) > place + 1 and not self._is_apart(works[place + 1])
                    ended = self._attempt(request, tenant, engine, works[place], refused, more=more)
                    clean = isinstance(ended, Attempt) and ended.is_clean
                    yield ended if isinstance(ended, Result) else self._classifier.result(ended)
                if isinstance(ended, Result):
                    # Its process could not connect: neither could the next one.
                    unreached = ended if ended.unreached else None
                    continue
                if engine is not None and not clean:
                    # What was cancelled may still be read from this session, and who knows what an
                    # error has left in it: it is not used on.
                    engine.close()
                if ended.unreached:
                    # The rest of the visit does not pay the connect deadline once more.
                    engine, refused = None, ended.error
        finally:
            if engine is not None:
                engine.close(clean=clean)
            if tenant.name != FLEET:
                elapsed = time.monotonic() - started
                self._events.emit(VisitFinished(tenant=tenant.name, seconds=elapsed))

    def _open(self, tenant: Tenant) -> tuple[TenantEngine | None, BaseException | None]:
        """Make the visit's engine; a server that cannot be asked refuses all its jobs."""
        if tenant.name == FLEET:
            return None, None
        try:
            return self._engines.visit(tenant), None
        except Exception as error:  # noqa: BLE001 - becomes the outcome of each of its jobs
            return None, error

    def _make_ready(
        self, engine: TenantEngine, tenant: Tenant, work: Work | Exception, *, first: bool
    ) -> None:
        """Make the session as good as new; a server that falls silent here gets the grace."""
        if self._is_apart(work):
            # Its process opens a session under this visit's permit.
            engine.spare()
            return
        if first:
            return
        deadline = self._watchdog.arm(tenant.server, self._grace, engine, lambda: None)
        engine.renew()
        deadline.disarm()

    def _find(self, request: Request, tenant: Tenant) -> Work | Exception:
        """Find the job, its options and what was prepared for it."""
        try:
            return self._resolve(request, tenant)
        except Exception as error:  # noqa: BLE001 - an unknown job, or a prepared value not to be read
            return error

    def _longest(self, works: Iterable[Work | Exception]) -> float:
        """Return how long a statement of this visit may take: its watchdog comes first."""
        timeouts = [work.job.timeout for work in works if isinstance(work, Work)]
        return (max(timeouts, default=timedelta()) + self._grace).total_seconds()

    def _is_apart(self, work: Work | Exception) -> bool:
        """Tell whether an attempt is to be made in another process."""
        wanted = isinstance(work, Work) and work.job.isolation is Isolation.PROCESS
        return wanted and self._isolated is not None

    def _attempt(  # noqa: PLR0913 - all that is known before it
        self,
        request: Request,
        tenant: Tenant,
        engine: TenantEngine | None,
        work: Work | Exception,
        refused: BaseException | None,
        *,
        more: bool,
    ) -> Attempt | Result:
        """Make one attempt; it may come back with a result from where it was made."""
        started_at = self._clock()
        found = work if refused is None and isinstance(work, Work) else None
        attempt = Attempt(
            request=request,
            tenant=tenant,
            engine=engine,
            started_at=started_at,
            started=time.monotonic(),
            work=found,
            context=self._context(request, tenant, engine, found, started_at),
            error=refused or (work if isinstance(work, Exception) else None),
            unreached=refused is not None,
            more=more,
        )
        self._events.emit(ExecutionStarted(request=request, tenant=tenant))
        if found is not None and self._isolated is not None and self._is_apart(found):
            thread = threading.get_ident()
            return self._isolated(attempt, found, lambda: self._stuck(attempt, thread))
        for step in (self._connected, self._called, self._ended):
            attempt = step(attempt)
        return attempt

    def _same(
        self, unreached: Result, request: Request, tenant: Tenant, work: Work | Exception
    ) -> Result:
        """Give the answer of a server for one job of a visit as that for the next one."""
        self._events.emit(ExecutionStarted(request=request, tenant=tenant))
        policy = work.job.retry if isinstance(work, Work) else None
        now = self._clock()
        return replace(
            unreached, request=request, started_at=now, duration_seconds=0.0, policy=policy
        )

    def _context(
        self,
        request: Request,
        tenant: Tenant,
        engine: TenantEngine | None,
        work: Work | None,
        started_at: datetime,
    ) -> JobContext | None:
        if work is None:
            return None
        return JobContext(
            job=work.job,
            request=request,
            tenant=tenant,
            engine=None if engine is None else engine.engine,
            log=logs.job_logger,
            clock=self._clock,
            deadline=started_at + work.job.timeout,
            options=work.options,
            prepared=work.prepared,
            results=work.results,
            shared=self._shared,
        )

    # The steps, in order.

    def _connected(self, attempt: Attempt) -> Attempt:
        """Open the visit's session, if this is its first job or the last session is gone."""
        if attempt.error is not None or attempt.engine is None:
            return attempt
        timeout, deadline = attempt.engine.entry_timeout, None
        if timeout is not None:
            server = attempt.tenant.server
            deadline = self._watchdog.arm(server, timeout, attempt.engine, lambda: None)
        try:
            attempt.engine.connect()
        except Exception as error:  # noqa: BLE001 - whatever a driver raises
            return replace(attempt, error=error, unreached=True)
        finally:
            if deadline is not None:
                deadline.disarm()
        self._on_reached(attempt.tenant)
        return attempt

    def _called(self, attempt: Attempt) -> Attempt:
        """Call the job. Nothing that it raises leaves this step."""
        work, context = attempt.work, attempt.context
        if attempt.error is not None or work is None or context is None:
            return attempt
        if attempt.engine is not None:
            attempt.engine.on_cancel = context.ending.set
        call: Callable[[JobContext], Any] = work.call
        session: Session | None = attempt.engine
        if is_coroutine(call):
            call = session = CoroutineCall(call, attempt.engine)
        deadline = self._watch(attempt, work.job.timeout, session)
        try:
            if work.delay is not None:
                self._pause(min(work.delay, work.job.timeout))
            if work.job.server_lock and attempt.engine is not None:
                self._lock(attempt, attempt.engine)
            if work.job.exactly_once and attempt.request.key.job == work.job.name:
                attempt = self._call_once(attempt, call, context)
            else:
                value = call(context)
                value = kept_value(value) if work.keeps_value else read_counters(value)
                attempt = replace(attempt, value=value)
        except BaseException as error:  # noqa: BLE001 - a job's SystemExit ends the job alone
            attempt = replace(attempt, error=error)
        if deadline.disarm():
            # By its own flag: many a statement returns normally when it is killed.
            timeout = format_duration(work.job.timeout)
            over = DeadlineError(f"the job's timeout of {timeout} is over")
            return replace(attempt, error=over, deadline=deadline)
        return attempt

    def _lock(self, attempt: Attempt, engine: TenantEngine) -> None:
        """Hold the server's lock on the pair as long as the session lasts."""
        key, server = attempt.request.key, attempt.tenant.server
        # Locks belong to the server, their names to nobody: 64 characters, case folded.
        name = f"{attempt.tenant.database}\0{key.job}".encode()
        taken = engine.lock(f"cronrunner:{blake2b(name, digest_size=16).hexdigest()}")
        if taken is False:
            raise OverlapError
        limit = engine.lock_limit or (_NO_LOCKS if taken is None else "")
        if limit and server not in self._lockless:
            self._lockless.add(server)
            self._events.emit(Warned(subject="server_lock", text=f"server {server} {limit}"))

    def _call_once(
        self, attempt: Attempt, call: Callable[[JobContext], Any], context: JobContext
    ) -> Attempt:
        """Call the job within its slot marker, or take what the marker says of an earlier call."""
        key, run = attempt.request.key, attempt.request.run
        if context.dry_run:
            # To make the markers' table would commit.
            earlier = markers.find(context.connection, key)
        else:
            earlier = markers.enter(context.connection, key, run=run, now=self._clock())
        if earlier is not None:
            return replace(attempt, value=earlier, recovered=True)
        value = read_counters(call(context))
        if not context.dry_run:
            markers.fill(context.connection, key, value)
        return replace(attempt, value=value)

    def _watch(self, attempt: Attempt, timeout: timedelta, session: Session | None) -> Deadline:
        thread = threading.get_ident()
        return self._watchdog.arm(
            attempt.tenant.server, timeout, session, lambda: self._stuck(attempt, thread)
        )

    def _stuck(self, attempt: Attempt, thread: int) -> None:
        """Report an attempt that goes on and cannot be ended. Called by the watchdog."""
        frame = sys._current_frames().get(thread)  # noqa: SLF001 - the documented way to a thread's frame
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        request, server = attempt.request, attempt.tenant.server
        self._events.emit(
            ExecutionStuck(request=request, server=server, stack=self._redactor.text(stack))
        )
        text = "DeadlineError: the deadline is over and the work could not be cancelled"
        result = begun(attempt)
        self._on_stuck(replace(result, outcome=Outcome.STUCK, error=text, cause=text))

    def _ended(self, attempt: Attempt) -> Attempt:
        """Commit, or roll back after an error, and give the connection back.

        The deadline is over or disarmed by now; a server that does not answer here either is
        given the grace.
        """
        if attempt.context is None:
            return attempt
        deadline = self._watch(attempt, self._grace, attempt.engine)
        if attempt.engine is not None and attempt.error is None and not attempt.request.dry_run:
            attempt.engine.foresee(more=attempt.more)
        try:
            rows = attempt.context.finish(commit=attempt.error is None)
            if rows:
                attempt = replace(attempt, rows_changed=rows)
        except BaseException as error:  # noqa: BLE001 - whatever a driver or a listener raises
            # The session may be gone, and a listener of the job may raise anything. What ended
            # the attempt before is the error that counts, unless a dry run was refused something:
            # what the job made of that is not its error.
            first = None if isinstance(error, DryRunError) else attempt.error
            attempt = replace(attempt, error=first or error)
        if deadline.disarm() and attempt.deadline is None:
            attempt = replace(attempt, deadline=deadline)
        return attempt
