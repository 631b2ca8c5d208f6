"""The engine of a tenant, for the length of its visit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy import Engine

from cronrunner.engines.cancelling import Canceller
from cronrunner.engines.leasing import retire
from cronrunner.engines.sessions import Sessions
from cronrunner.errors import VisitOverError
from cronrunner.model import Killed, Tenant


class TenantEngine:
    """A tenant's engine for the length of a visit."""

    #: What ``sever`` ends.
    severed = Killed.SESSION

    def __init__(
        self,
        sessions: Sessions,
        tenant: Tenant,
        canceller: Canceller,
        on_open: Callable[[int], None] | None = None,
    ) -> None:
        self._sessions = sessions
        self._parts = sessions.parts
        self._on_open = on_open
        self._canceller = canceller
        self._database = tenant.database
        self._statement_seconds = 0.0
        #: Told before what goes on is cancelled: not all that a job does is a statement.
        self.on_cancel: Callable[[], None] = lambda: None
        self._ready: Any = None
        #: All that the visit has had and not given up. The watchdog's thread reads it.
        self._open: list[Any] = []
        #: All that it had was cut off, since it took too long.
        self.is_severed = False
        #: An ordinary SQLAlchemy engine on the tenant's database, for one job.
        self.engine = self._make_engine()

    def _make_engine(self) -> Engine:
        # No event is emitted for an engine that is left behind: a listener of its job may raise.
        self._turn = object()
        return self._sessions.mould.engine(self._database, partial(self._session, self._turn))

    @property
    def entry_timeout(self) -> timedelta | None:
        """How long ``connect`` may take, where it has work to do and nothing else bounds it."""
        endpoint = self._parts.endpoint
        if self._open or not endpoint.reuse:
            return None
        return timedelta(seconds=endpoint.connect_timeout_seconds)

    def connect(self) -> None:
        """Have the visit's session ready now. Raises the driver's error."""
        if not self._open:
            self._ready = self._new()

    def limit_statements(self, seconds: float) -> None:
        """Set the longest that a statement of the sessions to be opened may take."""
        self._statement_seconds = seconds

    def foresee(self, *, more: bool) -> None:
        """Take note that the next commit ends a job; with ``more`` the visit has another one."""
        if len(self._open) == 1:
            self._sessions.foresee(self._open[0], more=more)

    def lock(self, name: str) -> bool | None:
        """Take a named lock of the server until the session ends; see ``DatabaseKind.lock``."""
        return self._parts.kind.lock(self._open[0], name)

    @property
    def lock_limit(self) -> str:
        """What such a lock does not do on this server; see ``ServerParts``."""
        return self._parts.lock_limit

    def cancel(self) -> bool | None:
        """Cancel the running statement, from another thread; ``None`` if nobody could be asked."""
        self.on_cancel()
        return self._each_session(sever=False)

    def sever(self) -> None:
        """End the visit's sessions, from another thread: whoever waits for them wakes up."""
        self.is_severed = True
        self._each_session(sever=True)

    def _each_session(self, *, sever: bool) -> bool | None:
        answers = [self._canceller(session, sever=sever) for session in list(self._open)]
        return None if None in answers else any(answers)

    def renew(self) -> None:
        """Give the next job an engine, and a session that is as good as new, if there is one."""
        left, self.engine = self.engine, self._make_engine()
        used = self._free(left)
        retire(left)
        if used is None:
            return
        try:
            self._ready = self._sessions.renew(used, self._database, self._statement_seconds, self)
        except self._parts.dialect.loaded_dbapi.Error:
            # `connect` meets it again.
            self._drop()

    def spare(self) -> None:
        """Have no session, and leave room at the server for one that another process opens."""
        self.close()
        self._sessions.spare()

    def close(self, *, clean: bool = False) -> None:
        """End every session of the visit, also those that a job has kept.

        Nothing has gone wrong on it if it is ``clean``: it may go to another visit.
        """
        self._turn = object()
        used = self._free(self.engine) if clean else None
        self._drop()
        retire(self.engine)
        if used is not None:
            self._sessions.give(used)

    def _session(self, turn: object) -> Any:  # noqa: ANN401 - a DBAPI connection
        if self._turn is not turn:
            raise VisitOverError
        ready, self._ready = self._ready, None
        return ready if ready is not None else self._new()

    def _new(self) -> Any:  # noqa: ANN401 - a DBAPI connection
        return self._sessions.take(self._database, self._statement_seconds, self)

    def hold(self, session: Any) -> None:  # noqa: ANN401 - a DBAPI connection
        """Take note of a session, for whoever may have to cancel what it does."""
        self._open.append(session)
        if self._on_open is not None and (number := self._parts.kind.number(session)) is not None:
            self._on_open(number)

    def let_go(self, session: Any) -> None:  # noqa: ANN401 - a DBAPI connection
        """Forget a session."""
        self._open.remove(session)

    def _free(self, engine: Engine) -> Any | None:  # noqa: ANN401 - a DBAPI connection
        """Take the one session from an engine to which it was given back; otherwise end all."""
        is_returned = not engine.pool.checkedout()  # type: ignore[attr-defined] # a VisitPool
        if len(self._open) == 1 and is_returned and not self.is_severed:
            self._ready = None
            return self._open.pop()
        self._drop()
        return None

    def _drop(self) -> None:
        sessions, self._open, self._ready = self._open, [], None
        for session in sessions:
            self._sessions.close_one(session)
