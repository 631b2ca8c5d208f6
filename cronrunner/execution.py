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
==========================================  =================================================

Between two jobs of a visit the session is renewed: variables, temporary tables, locks and an
open transaction of one job do not reach the next. The caller may stop between attempts by
closing the iterator; the visit's sessions are closed in any case.

All texts of a result are scrubbed here, once: the ledger, metrics and ``--json`` get no
others.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from cronrunner import logs
from cronrunner.context import JobContext
from cronrunner.databases import describe, facts, markers
from cronrunner.engines import Engines, TenantEngine
from cronrunner.errors import Cancel, CountersError, DeadlineError, Retry, Skip
from cronrunner.events import Dispatcher, ExecutionStarted, ExecutionStuck, VisitFinished
from cronrunner.model import (
    EMPTY,
    FLEET,
    Job,
    Outcome,
    Reason,
    Request,
    Result,
    Tenant,
    VisitRequest,
    format_duration,
)
from cronrunner.redaction import Redactor, format_traceback
from cronrunner.watchdog import Deadline, Watchdog

#: Characters of an error that the ledger keeps.
_ERROR_LIMIT: Final = 2000
_CAUSE_LIMIT: Final = 300
_VARIABLE: Final = re.compile(r"\b[0-9a-f]{8}(?:-?[0-9a-f]{4,})+\b|\b\d+(?:\.\d+)?\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a job name stands for on one tenant, overrides applied."""

    job: Job
    #: The job's function, or its ``prepare`` or ``summarize``.
    call: Callable[[JobContext], Any]
    options: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    prepared: Any = None
    delay: timedelta | None = None
    #: For ``summarize``: the slot's executions.
    results: Callable[[], Any] | None = None
    #: The call returns JSON to be kept, not counters.
    keeps_value: bool = False


#: Finds the work of a request; raises ``LookupError`` for one that this process does not know.
Resolve = Callable[[Request, Tenant], Work]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Everything that is known of an attempt so far."""

    request: Request
    tenant: Tenant
    engine: TenantEngine | None
    started_at: datetime
    started: float
    work: Work | None = None
    context: JobContext | None = None
    value: Any = None
    error: BaseException | None = None
    #: The error came before the job was called.
    unreached: bool = False
    #: The slot's marker was there: its transaction had been committed, and not been recorded.
    recovered: bool = False
    #: The deadline that expired, if one did.
    deadline: Deadline | None = None


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
        watchdog: Watchdog,
        grace: timedelta,
        pause: Callable[[timedelta], None],
        on_stuck: Callable[[Result], None],
    ) -> None:
        """``pause`` waits for a debug delay and returns early when the run is draining.

        ``on_stuck`` is given the result of an attempt that nothing could end.
        """
        self._resolve = resolve
        self._engines = engines
        self._events = events
        self._redactor = redactor
        self._clock = clock
        self._watchdog = watchdog
        self._grace = grace
        self._pause = pause
        self._on_stuck = on_stuck

    def __call__(self, visit: VisitRequest) -> Iterator[Result]:
        """Make the attempts of a visit, giving each result as soon as it is there."""
        started = time.monotonic()
        tenant = visit.tenant
        engine, refused = self._open(tenant)
        works = [self._find(request, tenant) for request in visit.requests]
        if engine is not None:
            engine.limit_statements(self._longest(works))
        try:
            for place, request in enumerate(visit.requests):
                if engine is not None and place:
                    engine.renew()
                with logs.bound(request, tenant):
                    ended = self._attempt(request, tenant, engine, works[place], refused)
                    yield self._result(ended)
                if engine is not None and (ended.unreached or ended.deadline is not None):
                    # What was cancelled may still be read from this session: it is not used on.
                    engine.close()
                if ended.unreached:
                    # The rest of the visit does not pay the connect deadline once more.
                    engine, refused = None, ended.error
        finally:
            if engine is not None:
                engine.close()
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

    def _attempt(
        self,
        request: Request,
        tenant: Tenant,
        engine: TenantEngine | None,
        work: Work | Exception,
        refused: BaseException | None,
    ) -> Attempt:
        """Make one attempt."""
        attempt = Attempt(
            request=request,
            tenant=tenant,
            engine=engine,
            started_at=self._clock(),
            started=time.monotonic(),
            error=refused,
            unreached=refused is not None,
        )
        self._events.emit(ExecutionStarted(request=request, tenant=tenant))
        attempt = self._resolved(attempt, work)
        for step in (self._connected, self._called, self._ended):
            attempt = step(attempt)
        return attempt

    # The steps, in order.

    def _resolved(self, attempt: Attempt, work: Work | Exception) -> Attempt:
        """Take the work that was found, or the error of looking for it."""
        if attempt.error is not None:
            return attempt
        if isinstance(work, Exception):
            return replace(attempt, error=work)
        return replace(attempt, work=work, context=self._context(attempt, work))

    def _context(self, attempt: Attempt, work: Work) -> JobContext:
        return JobContext(
            job=work.job,
            request=attempt.request,
            tenant=attempt.tenant,
            engine=None if attempt.engine is None else attempt.engine.engine,
            log=logs.job_logger(),
            clock=self._clock,
            deadline=attempt.started_at + work.job.timeout,
            options=work.options,
            prepared=work.prepared,
            results=work.results,
        )

    def _connected(self, attempt: Attempt) -> Attempt:
        """Open the visit's session, if this is its first job or the last session is gone."""
        if attempt.error is not None or attempt.engine is None:
            return attempt
        try:
            attempt.engine.connect()
        except Exception as error:  # noqa: BLE001 - whatever a driver raises
            return replace(attempt, error=error, unreached=True)
        return attempt

    def _called(self, attempt: Attempt) -> Attempt:
        """Call the job. Nothing that it raises leaves this step."""
        work, context = attempt.work, attempt.context
        if attempt.error is not None or work is None or context is None:
            return attempt
        deadline = self._watch(attempt, work.job.timeout)
        try:
            if work.delay is not None:
                self._pause(min(work.delay, work.job.timeout))
            if work.job.exactly_once and not work.keeps_value:
                attempt = self._call_once(attempt, work, context)
            else:
                value = work.call(context)
                value = json.dumps(value) if work.keeps_value else _counters(value)
                attempt = replace(attempt, value=value)
        except BaseException as error:  # noqa: BLE001 - a job's SystemExit ends the job alone
            attempt = replace(attempt, error=error)
        if deadline.disarm():
            # By its own flag: many a statement returns normally when it is killed.
            timeout = format_duration(work.job.timeout)
            over = DeadlineError(f"the job's timeout of {timeout} is over")
            return replace(attempt, error=over, deadline=deadline)
        return attempt

    def _call_once(self, attempt: Attempt, work: Work, context: JobContext) -> Attempt:
        """Call the job within its slot marker, or take what the marker says of an earlier call."""
        key, run = attempt.request.key, attempt.request.run
        earlier = markers.enter(context.connection, key, run=run, now=self._clock())
        if earlier is not None:
            return replace(attempt, value=earlier, recovered=True)
        value = _counters(work.call(context))
        markers.fill(context.connection, key, value)
        return replace(attempt, value=value)

    def _watch(self, attempt: Attempt, timeout: timedelta) -> Deadline:
        thread = threading.get_ident()
        return self._watchdog.arm(
            attempt.tenant.server, timeout, attempt.engine, lambda: self._stuck(attempt, thread)
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
        result = self._begun(attempt)
        self._on_stuck(replace(result, outcome=Outcome.STUCK, error=text, cause=text))

    def _ended(self, attempt: Attempt) -> Attempt:
        """Commit, or roll back after an error, and give the connection back.

        The deadline is over or disarmed by now; a server that does not answer here either is
        given the grace.
        """
        if attempt.context is None:
            return attempt
        deadline = self._watch(attempt, self._grace)
        try:
            attempt.context.finish(commit=attempt.error is None)
        except BaseException as error:  # noqa: BLE001 - whatever a driver or a listener raises
            # The session may be gone, and a listener of the job may raise anything. What ended
            # the attempt before is the error that counts.
            attempt = replace(attempt, error=attempt.error or error)
        if deadline.disarm() and attempt.deadline is None:
            attempt = replace(attempt, deadline=deadline)
        return attempt

    # The result.

    def _result(self, attempt: Attempt) -> Result:
        result = self._begun(attempt)
        match attempt.error:
            case None if attempt.work is not None and attempt.work.keeps_value:
                result = replace(result, value=attempt.value)
            case None:
                reason = Reason.RECOVERED.value if attempt.recovered else None
                result = replace(result, counters=attempt.value, reason=reason)
            case Skip(reason=reason):
                text = self._redactor.text(reason)
                result = replace(result, outcome=Outcome.SKIPPED, reason=text, by_job=True)
            case Cancel(reason=reason):
                text = self._redactor.text(reason)
                result = replace(result, outcome=Outcome.CANCELLED, reason=text, by_job=True)
            case Retry(after=after) as error:
                failed = self._failed(result, attempt, error)
                result = replace(failed, transient=True, retry_after=after, traceback=None)
            case DeadlineError() as error:
                result = self._expired(result, attempt.deadline, error)
            case error:
                result = self._failed(result, attempt, error)
        return result

    def _begun(self, attempt: Attempt) -> Result:
        return Result(
            request=attempt.request,
            server=attempt.tenant.server,
            outcome=Outcome.SUCCEEDED,
            started_at=attempt.started_at,
            duration_seconds=time.monotonic() - attempt.started,
        )

    def _expired(self, result: Result, deadline: Deadline | None, error: DeadlineError) -> Result:
        """Tell a job that took too long from one that a drain did not wait for."""
        text = f"DeadlineError: {error}"
        if deadline is not None and deadline.drained:
            reason = Reason.GRACE_EXPIRED.value
            return replace(result, outcome=Outcome.INTERRUPTED, reason=reason, cause=reason)
        return replace(result, outcome=Outcome.TIMED_OUT, error=text, cause=text)

    def _failed(self, result: Result, attempt: Attempt, error: BaseException) -> Result:
        what = facts(error)
        text = self._redactor.text(describe(error))[:_ERROR_LIMIT]
        gone = what.gone and attempt.unreached
        return replace(
            result,
            outcome=Outcome.TENANT_GONE if gone else Outcome.FAILED,
            error=text,
            cause=cause_of(self._redactor.text(what.text), attempt.tenant),
            code=what.code,
            transient=what.transient or _worth_repeating(attempt.work, error),
            traceback=format_traceback(error, describe, self._redactor),
        )


def _worth_repeating(work: Work | None, error: BaseException) -> bool:
    return work is not None and isinstance(error, work.job.retry.on)


def _counters(value: Any) -> Mapping[str, int]:  # noqa: ANN401 - whatever a job returns
    if value is None:
        return EMPTY
    if isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(count, int) and not isinstance(count, bool)
        for name, count in value.items()
    ):
        return dict(value)
    # Types and not values: what a job returns by mistake is often rows.
    got = type(value).__name__
    if isinstance(value, Mapping):
        got = " and ".join(
            sorted({f"{type(k).__name__}: {type(v).__name__}" for k, v in value.items()})
        )
    msg = f"expected a job to return None or a mapping of names to whole numbers, got {got}"
    raise CountersError(msg[:_CAUSE_LIMIT])


def cause_of(text: str, tenant: Tenant) -> str:
    """Take out of an error what differs between tenants: names, numbers, ids.

    >>> cause_of("ProgrammingError 1146: Table 'acme.t' doesn't exist", Tenant(
    ...     name="acme", server="main", database="acme"))
    "ProgrammingError 1146: Table '*.t' doesn't exist"
    """
    kind, colon, message = text.partition(": ")
    # The longer first: a name may be a part of the path of its file.
    for name in sorted({tenant.database, tenant.name} - {""}, key=len, reverse=True):
        message = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "*", message)
    return (kind + colon + _VARIABLE.sub("#", message))[:_CAUSE_LIMIT]
