"""Engines: one for each tenant, made over what its server's engines share, gone after its visit.

A visit has one session with the server, handed to jobs by an ordinary SQLAlchemy engine whose
pool holds that one connection. Between two jobs of a visit the session is made as good as new,
or replaced by a new one if that cannot be done, so that no state of one job reaches another;
between two visits it is passed on in the same way, if the server's sessions are used again
(``sessions``). Each job has an engine object of its own, since listeners and execution options
stay with it; one that a job has kept opens nothing more, and a session that it has kept is
closed: nothing of a tenant outlives its turn.

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
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, Engine, NullPool

from cronrunner.databases import Endpoint, ServerParts, kind_of
from cronrunner.engines.cancelling import Canceller, FarSessions, Kill
from cronrunner.engines.sessions import Sessions
from cronrunner.engines.visiting import TenantEngine
from cronrunner.model import Tenant

__all__ = ["Engines", "FarSessions", "TenantEngine"]


class Engines:
    """Makes engines; keeps what the engines of one server share."""

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        *,
        on_open: Callable[[int], None] | None = None,
        on_fallback: Callable[[str, str], None] = lambda *_: None,
        kill: Kill | None = None,
    ) -> None:
        """``on_open`` is told the server's number of each session of a tenant before its use.

        ``on_fallback`` is told, once for a server, why each of its visits connects after all.
        In a process of a run ``kill`` has the run cancel, so that the control connection of a
        server is one, however many processes there are.
        """
        self._kill = kill
        self._endpoints = endpoints
        self._on_open = on_open
        self._on_fallback = on_fallback
        self._locks = {name: threading.Lock() for name in endpoints}
        self._parts: dict[str, ServerParts | _Refusal] = {}
        self._cancellers: dict[str, Canceller] = {}
        self._sessions: dict[str, Sessions] = {}

    def load_drivers(self) -> None:
        """Import the drivers of all servers, so that no visit and no question waits for it."""
        for endpoint in self._endpoints.values():
            kind_of(endpoint.url.drivername)

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
        sessions = self._sessions_of(parts)
        return TenantEngine(sessions, tenant, self._canceller(parts), self._on_open)

    def far(self, server: str) -> FarSessions:
        """Return what cancels sessions that another process opens on a server.

        Fleet-scope work has no server, and a file knows no sessions.
        """
        if server not in self._endpoints:
            return FarSessions(None, self._on_open)
        return FarSessions(self._canceller(self.server(server)), self._on_open)

    def close(self) -> None:
        """Close the connections that were kept: for cancelling, and for the next visit."""
        for canceller in self._cancellers.values():
            canceller.close()
        for sessions in self._sessions.values():
            sessions.close()

    def _sessions_of(self, parts: ServerParts) -> Sessions:
        name = parts.endpoint.name
        with self._locks[name]:
            found = self._sessions.get(name)
            if found is None:
                tell = partial(self._on_fallback, name)
                found = self._sessions[name] = Sessions(parts, on_fallback=tell)
            return found

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
