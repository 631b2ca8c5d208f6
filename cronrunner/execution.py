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
any other exception, ``SystemExit`` and     ``failed``; rolled back
every ``BaseException`` included
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
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from cronrunner import logs
from cronrunner.context import JobContext
from cronrunner.databases import describe, facts
from cronrunner.engines import Engines, TenantEngine
from cronrunner.errors import Cancel, CountersError, Skip
from cronrunner.events import Dispatcher, ExecutionStarted, VisitFinished
from cronrunner.model import (
    EMPTY,
    FLEET,
    Job,
    Outcome,
    Request,
    Result,
    Tenant,
    VisitRequest,
)
from cronrunner.redaction import Redactor, format_traceback

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
        pause: Callable[[timedelta], None],
    ) -> None:
        """``pause`` waits for a debug delay and returns early when the run is draining."""
        self._resolve = resolve
        self._engines = engines
        self._events = events
        self._redactor = redactor
        self._clock = clock
        self._pause = pause

    def __call__(self, visit: VisitRequest) -> Iterator[Result]:
        """Make the attempts of a visit, giving each result as soon as it is there."""
        started = time.monotonic()
        tenant = visit.tenant
        engine, refused = self._open(tenant)
        try:
            for place, request in enumerate(visit.requests):
                if engine is not None and place:
                    engine.renew()
                with logs.bound(request, tenant):
                    result, lost = self._attempt(request, tenant, engine, refused)
                    yield result
                if lost is not None and engine is not None:
                    # The rest of the visit does not pay the connect deadline once more.
                    engine.close()
                    engine, refused = None, lost
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

    def _attempt(
        self,
        request: Request,
        tenant: Tenant,
        engine: TenantEngine | None,
        refused: BaseException | None,
    ) -> tuple[Result, BaseException | None]:
        """Make one attempt; also return the error if the tenant could not be reached."""
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
        for step in (self._resolved, self._connected, self._called, self._ended):
            attempt = step(attempt)
        return self._result(attempt), attempt.error if attempt.unreached else None

    # The steps, in order.

    def _resolved(self, attempt: Attempt) -> Attempt:
        """Find the job, its options and what was prepared for it."""
        if attempt.error is not None:
            return attempt
        try:
            work = self._resolve(attempt.request, attempt.tenant)
        except Exception as error:  # noqa: BLE001 - an unknown job, or a prepared value not to be read
            return replace(attempt, error=error)
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
        if work.delay is not None:
            self._pause(work.delay)
        try:
            value = work.call(context)
            value = json.dumps(value) if work.keeps_value else _counters(value)
        except BaseException as error:  # noqa: BLE001 - a job's SystemExit ends the job alone
            return replace(attempt, error=error)
        return replace(attempt, value=value)

    def _ended(self, attempt: Attempt) -> Attempt:
        """Commit, or roll back after an error, and give the connection back."""
        if attempt.context is None:
            return attempt
        if attempt.error is not None:
            # The session may be gone, and a listener of the job may raise anything. What ended the
            # attempt is the error that counts.
            with suppress(BaseException):
                attempt.context.finish(commit=False)
            return attempt
        try:
            attempt.context.finish(commit=True)
        except BaseException as error:  # noqa: BLE001 - whatever a driver or a listener raises
            return replace(attempt, error=error)
        return attempt

    # The result.

    def _result(self, attempt: Attempt) -> Result:
        result = Result(
            request=attempt.request,
            server=attempt.tenant.server,
            outcome=Outcome.SUCCEEDED,
            started_at=attempt.started_at,
            duration_seconds=time.monotonic() - attempt.started,
        )
        match attempt.error:
            case None:
                if attempt.work is not None and attempt.work.keeps_value:
                    return replace(result, value=attempt.value)
                return replace(result, counters=attempt.value)
            case Skip(reason=reason):
                reason = self._redactor.text(reason)
                return replace(result, outcome=Outcome.SKIPPED, reason=reason, by_job=True)
            case Cancel(reason=reason):
                reason = self._redactor.text(reason)
                return replace(result, outcome=Outcome.CANCELLED, reason=reason, by_job=True)
            case error:
                return self._failed(result, attempt, error)

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
            traceback=format_traceback(error, describe, self._redactor),
        )


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
    for name in {tenant.database, tenant.name} - {""}:
        message = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "*", message)
    return (kind + colon + _VARIABLE.sub("#", message))[:_CAUSE_LIMIT]
