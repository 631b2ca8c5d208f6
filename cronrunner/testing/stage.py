"""Where attempts are made: by the same ``Performer`` as in a run, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Final

import structlog
from sqlalchemy import Engine, NullPool
from structlog.testing import LogCapture

from cronrunner.context import JobContext, Shared
from cronrunner.databases import Endpoint
from cronrunner.databases.base import tenant_dialect
from cronrunner.engines import Engines, TenantEngine
from cronrunner.events import Dispatcher
from cronrunner.execution import Attempt, Performer, Work
from cronrunner.model import Outcome, Request, Result, Tenant, VisitRequest
from cronrunner.redaction import Redactor
from cronrunner.watchdog import Watchdog

#: What a statement gets to end after its deadline, and a commit to be answered.
_GRACE: Final = timedelta(seconds=10)

LogLine = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """How one attempt ended, and what was seen of it."""

    #: What a run would record: with ``transient``, ``retry_after``, ``rows_changed`` and others.
    result: Result
    #: What the job logged: ``event``, ``log_level``, and the fields of each line.
    log: list[LogLine]
    #: What ended the attempt: mostly what the job raised.
    exception: BaseException | None

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        return self.result.outcome

    @property
    def reason(self) -> str | None:
        """What the job gave to ``Skip`` or ``Cancel``."""
        return self.result.reason

    @property
    def error(self) -> str | None:
        """The exception's type and message, without row values."""
        return self.result.error

    @property
    def counters(self) -> Mapping[str, int]:
        """What the job returned."""
        return self.result.counters

    def refuse_unwell(self) -> None:
        """Raise what the job raised, or what else kept the attempt from going well."""
        __tracebackhide__ = True
        if self.exception is not None:
            raise self.exception


class Stage:
    """The engines of one server, and the watch over deadlines there."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.engines = _HeardEngines({endpoint.name: endpoint})
        self._server = endpoint.name
        self._watchdog = Watchdog(grace=_GRACE)

    def close(self) -> None:
        """Close what was opened."""
        self._watchdog.close()
        self.engines.close()

    def engine(self, database: str) -> Engine:
        """Make an engine for the test itself; it keeps no connection.

        Who listens to it hears what jobs do as well, until the next one is made.
        """
        parts = self.engines.server(self._server)
        is_file = parts.kind.name == "sqlite"
        dialect = tenant_dialect(parts.dialect, "main" if is_file else database)
        pool = NullPool(partial(parts.kind.connect, parts, database), dialect=dialect)
        made = Engine(pool, dialect, parts.endpoint.url._replace(database=database))
        self.engines.heard_by = made
        return made

    def perform(  # noqa: PLR0913 - what an attempt takes, and what surrounds it
        self,
        request: Request,
        tenant: Tenant,
        work: Work,
        clock: Callable[[], datetime],
        *,
        shared: Shared,
        app: Any = None,
    ) -> Attempted:
        """Make one attempt; ``app`` is its ``ctx.app``."""
        performer = _RememberingPerformer(
            resolve=lambda *_: work,
            engines=self.engines,
            events=Dispatcher(),
            redactor=Redactor(frozenset()),
            clock=clock,
            watchdog=self._watchdog,
            grace=_GRACE,
            pause=lambda _: None,
            on_stuck=lambda _: None,
            on_reached=lambda _: None,
            shared=shared,
        )
        performer.app = app
        with captured_log() as log:
            (result,) = performer(VisitRequest(tenant=tenant, requests=(request,)))
        exception = performer.error
        if isinstance(exception, KeyboardInterrupt):
            raise exception
        return Attempted(result=result, log=log, exception=exception)


class _RememberingPerformer(Performer):
    """Keeps what ended its last attempt, of which a result has only the text."""

    error: BaseException | None = None
    app: Any = None

    def _context(self, *given: Any) -> JobContext | None:
        ctx = super()._context(*given)
        if ctx is not None:
            ctx.app = self.app
        return ctx

    def _attempt(self, *given: Any, **more: Any) -> Attempt | Result:
        ended = super()._attempt(*given, **more)
        error = ended.error if isinstance(ended, Attempt) else None
        if error is not None:
            self.error = error.with_traceback(_own_frames(error.__traceback__))
        return ended


def _own_frames(frames: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of the runner around the job: they tell its author nothing."""
    while frames is not None and _is_around(frames):
        frames = frames.tb_next
    return frames


def _is_around(frame: TracebackType) -> bool:
    module = str(frame.tb_frame.f_globals.get("__name__"))
    return module.startswith(("cronrunner.execution", "asyncio."))


class _HeardEngines(Engines):
    """Engines of visits whose events reach the listeners of the test's own engine."""

    heard_by: Engine | None = None

    def visit(self, tenant: Tenant) -> TenantEngine:
        """Return the tenant's engine, not yet connected."""
        visit, own = super().visit(tenant), self.heard_by
        if own is not None:
            # As SQLAlchemy joins an engine with one that has other execution options.
            joined = visit.engine.dispatch._join(own.dispatch)  # noqa: SLF001
            visit.engine.dispatch = joined
            visit.engine._has_events = own._has_events  # noqa: SLF001
        return visit


@contextmanager
def captured_log() -> Iterator[list[LogLine]]:
    """Keep what is logged, at every level, instead of writing it."""
    before, capture = structlog.get_config(), LogCapture()
    structlog.configure(
        processors=[capture],
        wrapper_class=structlog.make_filtering_bound_logger("debug"),
        cache_logger_on_first_use=False,
    )
    try:
        yield capture.entries  # type: ignore[misc] # mutable mappings, which are dictionaries
    finally:
        structlog.configure(**before)
