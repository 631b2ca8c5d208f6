"""Cancelling at a server, over a connection of the runner's own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Engine, NullPool
from sqlalchemy.exc import SQLAlchemyError

from cronrunner.databases import ServerParts
from cronrunner.databases.base import TIMEOUTS, FarSession

#: Seconds in which a server that is asked to cancel must answer; then the session is shut here.
_CANCEL_SECONDS: Final = 2.0


class Kill(Protocol):
    """Cancels at a server what the session of this number does."""

    def __call__(self, server: str, number: int, /, *, sever: bool) -> bool | None:
        """Cancel; ``None`` when the server could not be asked."""


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
