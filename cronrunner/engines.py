"""Engines: one for each tenant, made over what its server's engines share, gone after its visit.

A visit has one session with the server, handed to jobs by an ordinary SQLAlchemy engine whose
pool holds that one connection. Between two jobs of a visit the session is made as good as new,
or replaced by a new one if that cannot be done, so that no state of one job reaches another.
Each job has an engine object of its own, since listeners and execution options stay with it; one
that a job has kept opens nothing more. Sessions that a job has kept are closed with the visit:
nothing of a tenant outlives its turn.

The number of sessions is limited by who may visit (the executor holds a permit of the server
for each visit), not here. Each server is asked once what its sessions share; who asks first
does it and the others wait, and a server that failed is not asked again for this run.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Never, Protocol

from sqlalchemy import Connection, Engine, NullPool, QueuePool
from sqlalchemy.exc import SQLAlchemyError

from cronrunner.databases import Endpoint, ServerParts, kind_of
from cronrunner.databases.base import TIMEOUTS, FarSession, tenant_dialect
from cronrunner.errors import VisitOverError
from cronrunner.model import Killed, Tenant

#: Seconds until a second checkout of a visit's one connection is an error. A job's own
#: threads may take turns on it; who waits for himself should not wait long.
_CHECKOUT_SECONDS: Final = 2.0

#: Seconds in which a server that is asked to cancel must answer; then the session is shut here.
_CANCEL_SECONDS: Final = 2.0


class Kill(Protocol):
    """Cancels at a server what the session of this number does."""

    def __call__(self, server: str, number: int, /, *, sever: bool) -> bool | None:
        """Cancel; ``None`` when the server could not be asked."""


class Engines:
    """Makes engines; keeps what the engines of one server share."""

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        *,
        on_open: Callable[[int], None] | None = None,
        kill: Kill | None = None,
    ) -> None:
        """``on_open`` is told the server's number of each session of a tenant before its use.

        In a process of a run ``kill`` has the run cancel, so that the control connection of a
        server is one, however many processes there are.
        """
        self._kill = kill
        self._endpoints = endpoints
        self._on_open = on_open
        self._locks = {name: threading.Lock() for name in endpoints}
        self._parts: dict[str, ServerParts | _Refusal] = {}
        self._cancellers: dict[str, Canceller] = {}

    def server(self, name: str) -> ServerParts:
        """Return what the server's sessions share. Raises the driver's error.

        Whoever asks within the connect timeout after a failure gets the same error at once:
        a dead server costs its visits one connect deadline at a time, and not one each.
        """
        with self._locks[name]:
            known = self._parts.get(name)
            if known is None or (isinstance(known, _Refusal) and known.is_over()):
                known = self._parts[name] = self._prepare(self._endpoints[name])
        if isinstance(known, _Refusal):
            # A copy: one exception that is raised again and again gathers all its tracebacks.
            raise copy.copy(known.error).with_traceback(None)
        return known

    def _prepare(self, endpoint: Endpoint) -> ServerParts | _Refusal:
        kind = kind_of(endpoint.url.drivername)
        try:
            return kind.prepare(endpoint)
        except Exception as error:  # noqa: BLE001 - kept and raised for everybody who asks
            until = time.monotonic() + endpoint.connect_timeout_seconds
            return _Refusal(error=error.with_traceback(None), until=until)

    @contextlib.contextmanager
    def control(self, name: str) -> Iterator[Connection]:
        """Open a connection for the runner itself, on the server's own database if it has one.

        Every read is bounded by the connect timeout.
        """
        parts = self.server(name)
        database = parts.endpoint.url.database or ""
        session = parts.kind.connect(parts, database)
        engine = Engine(
            NullPool(lambda: session, dialect=parts.dialect), parts.dialect, parts.endpoint.url
        )
        with engine.connect() as connection:
            yield connection

    def visit(self, tenant: Tenant) -> TenantEngine:
        """Return the tenant's engine, not yet connected."""
        parts = self.server(tenant.server)
        return TenantEngine(parts, tenant, self._canceller(parts), self._on_open)

    def far(self, server: str) -> FarSessions:
        """Return what cancels sessions that another process opens on a server.

        Fleet-scope work has no server, and a file knows no sessions.
        """
        if server not in self._endpoints:
            return FarSessions(None, self._on_open)
        return FarSessions(self._canceller(self.server(server)), self._on_open)

    def close(self) -> None:
        """Close the connections that were kept for cancelling."""
        for canceller in self._cancellers.values():
            canceller.close()

    def _canceller(self, parts: ServerParts) -> Canceller:
        with self._locks[parts.endpoint.name]:
            found = self._cancellers.get(parts.endpoint.name)
            if found is None:
                found = self._cancellers[parts.endpoint.name] = Canceller(parts, self._kill)
            return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    """Why a server could not be asked, and until when it is not asked again."""

    error: Exception
    #: Monotonic seconds.
    until: float

    def is_over(self) -> bool:
        """Tell whether the server may be asked again."""
        return time.monotonic() >= self.until


class Canceller:
    """Cancels at one server, over one connection of the runner's own, opened when it is needed."""

    def __init__(self, parts: ServerParts, kill: Kill | None = None) -> None:
        self._kill = kill
        timeout = min(parts.endpoint.connect_timeout_seconds, _CANCEL_SECONDS)
        limits = {name: timeout for name in TIMEOUTS if name in parts.arguments}
        self._parts = replace(parts, arguments={**parts.arguments, **limits})
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        #: Monotonic seconds until which the server is not asked: it did not answer.
        self._silent_until = 0.0

    def __call__(self, session: Any, *, sever: bool) -> bool | None:  # noqa: ANN401 - a DBAPI connection
        """Cancel what a session does; ``None`` when the server could not be asked."""
        kind = self._parts.kind
        driver_error = self._parts.dialect.loaded_dbapi.Error
        if sever:
            # Here first: it wakes up who reads from the session, whatever the server does. A
            # session that its job has closed cannot be cancelled, and need not be.
            with contextlib.suppress(driver_error):
                kind.cancel(None, session, sever=True)
        number = None if self._kill is None else kind.number(session)
        if self._kill is not None and number is not None:
            return self._kill(self._parts.endpoint.name, number, sever=sever)
        with self._lock:
            if time.monotonic() < self._silent_until:
                return None
            try:
                return kind.cancel(self._control(), session, sever=sever)
            except (SQLAlchemyError, driver_error):
                # Many deadlines may wait behind this one: they do not pay the same again.
                self._connection = None
                timeout = self._parts.endpoint.connect_timeout_seconds
                self._silent_until = time.monotonic() + timeout
        return None

    def close(self) -> None:
        """Close the connection, if one was needed."""
        with self._lock, contextlib.suppress(SQLAlchemyError):
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _control(self) -> Connection | None:
        if self._parts.kind.name == "sqlite":
            return None
        if self._connection is None or self._connection.closed:
            parts = self._parts
            session = parts.kind.connect(parts, "")
            pool = NullPool(lambda: session, dialect=parts.dialect)
            self._connection = Engine(pool, parts.dialect, parts.endpoint.url).connect()
        return self._connection


class FarSessions:
    """The sessions of an attempt in another process, as far as they can be cancelled from here."""

    def __init__(
        self, canceller: Canceller | None, on_open: Callable[[int], None] | None = None
    ) -> None:
        self._canceller = canceller
        self._on_open = on_open
        self._known: list[FarSession] = []

    def add(self, number: int) -> None:
        """Take note of a session by the server's number of it."""
        self._known.append(FarSession(number))
        if self._on_open is not None:
            self._on_open(number)

    def cancel(self) -> bool | None:
        """Cancel what the sessions do; ``None`` if the server could not be asked."""
        return self._each(sever=False)

    def sever(self) -> bool | None:
        """End the sessions at the server; ``None`` if it could not be asked."""
        return self._each(sever=True)

    def _each(self, *, sever: bool) -> bool | None:
        if self._canceller is None:
            return False
        answers = [self._canceller(session, sever=sever) for session in list(self._known)]
        return None if None in answers else any(answers)


class TenantEngine:
    """A tenant's engine for the length of a visit."""

    #: What ``sever`` ends.
    severed = Killed.SESSION

    def __init__(
        self,
        parts: ServerParts,
        tenant: Tenant,
        canceller: Canceller,
        on_open: Callable[[int], None] | None = None,
    ) -> None:
        self._on_open = on_open
        self._parts = parts
        self._canceller = canceller
        self._database = tenant.database
        self._statement_seconds = 0.0
        self._ready: Any = None
        self._sessions: list[Any] = []
        #: An ordinary SQLAlchemy engine on the tenant's database, for one job.
        self.engine = self._make_engine()

    def _make_engine(self) -> Engine:
        # No event is emitted for an engine that is left behind: a listener of its job may raise.
        self._turn = object()
        dialect = tenant_dialect(self._parts.dialect, self._default_schema())
        pool = _VisitPool(
            partial(self._session, self._turn),
            pool_size=1,
            max_overflow=0,
            timeout=_CHECKOUT_SECONDS,
            reset_on_return=None,
            dialect=dialect,
        )
        return Engine(
            pool,
            dialect,
            self._parts.endpoint.url._replace(database=self._database),
            hide_parameters=True,
            execution_options={"compiled_cache": self._parts.compiled},
        )

    def _default_schema(self) -> str | None:
        return "main" if self._parts.kind.name == "sqlite" else self._database

    def connect(self) -> None:
        """Open the visit's session now. Raises the driver's error."""
        if not self._sessions:
            self._ready = self._open()

    def limit_statements(self, seconds: float) -> None:
        """Set the longest that a statement of the sessions to be opened may take."""
        self._statement_seconds = seconds

    def lock(self, name: str) -> bool | None:
        """Take a named lock of the server until the session ends; see ``DatabaseKind.lock``."""
        return self._parts.kind.lock(self._sessions[0], name)

    @property
    def lock_limit(self) -> str:
        """What such a lock does not do on this server; see ``ServerParts``."""
        return self._parts.lock_limit

    def cancel(self) -> bool | None:
        """Cancel the running statement, from another thread; ``None`` if nobody could be asked."""
        return self._each_session(sever=False)

    def sever(self) -> None:
        """End the visit's sessions, from another thread: whoever waits for them wakes up."""
        self._each_session(sever=True)

    def _each_session(self, *, sever: bool) -> bool | None:
        answers = [self._canceller(session, sever=sever) for session in list(self._sessions)]
        return None if None in answers else any(answers)

    def renew(self) -> None:
        """Give the next job an engine, and a session that is as good as new."""
        left, self.engine = self.engine, self._make_engine()
        if self._is_returned(left) and self._reset():
            self._ready = self._sessions[0]
        else:
            self._drop()
        _empty(left)

    def close(self) -> None:
        """End every session of the visit, also those that a job has kept."""
        self._turn = object()
        self._drop()
        _empty(self.engine)

    def _session(self, turn: object) -> Any:  # noqa: ANN401 - a DBAPI connection
        if self._turn is not turn:
            raise VisitOverError
        ready, self._ready = self._ready, None
        return ready if ready is not None else self._open()

    def _open(self) -> Any:  # noqa: ANN401 - a DBAPI connection
        session = self._parts.kind.connect(
            self._parts, self._database, statement_seconds=self._statement_seconds
        )
        self._sessions.append(session)
        if self._on_open is not None and (number := self._parts.kind.number(session)) is not None:
            self._on_open(number)
        return session

    def _is_returned(self, engine: Engine) -> bool:
        return not engine.pool.checkedout()  # type: ignore[attr-defined] # a QueuePool

    def _reset(self) -> bool:
        return len(self._sessions) == 1 and self._parts.kind.reset(self._sessions[0])

    def _drop(self) -> None:
        sessions, self._sessions, self._ready = self._sessions, [], None
        for session in sessions:
            # A session that the pool has closed, or the server, cannot be closed again.
            with contextlib.suppress(self._parts.dialect.loaded_dbapi.Error):
                session.close()


class _VisitPool(QueuePool):
    """A pool of one connection that is made for each job of each tenant."""

    def _should_wrap_creator(self, creator: Any) -> Any:  # noqa: ANN401 - as the base has it
        """Take the creator as it is; otherwise it is inspected for its arguments each time."""
        return lambda record: creator()  # noqa: ARG005 - the pool's record


def _empty(engine: Engine) -> None:
    """Take its sessions from an engine that a job may have kept, without ending them."""
    engine.pool = _OVER


def _refuse() -> Never:
    raise VisitOverError


#: The pool of every engine whose turn is over: to make each an empty one costs as much as a new
#: engine.
_OVER: Final = QueuePool(_refuse, pool_size=1, max_overflow=-1)
