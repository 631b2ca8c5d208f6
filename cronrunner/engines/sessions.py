"""The sessions of one server: opened, made as good as new, and passed from visit to visit.

A session that comes back is kept for the next visit if the server is configured so
(``connections: reset``), if nothing about it is odd, and if the server has proved that its reset
clears everything. The proof is made once in a run, on a new session, when a used one is first
wanted: a run that visits one tenant for one job never pays for it. Until then, and for good when
it fails, every visit connects.

There are never more sessions than visits and isolated attempts at the same time: whoever begins
takes one that is kept before he opens another, or has one closed (``spare``).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

from cronrunner.databases import ServerParts, describe, facts
from cronrunner.engines.leasing import Mould

#: How many leftovers of a reset are named.
_NAMED: Final = 5


class Holder(Protocol):
    """Whoever has sessions, and may have to cancel what they do."""

    def hold(self, session: Any) -> None:  # noqa: ANN401 - a DBAPI connection
        """Take note of a session before anything is sent on it."""

    @property
    def is_severed(self) -> bool:
        """Whether all that it holds was cut off, since it took too long."""

    def let_go(self, session: Any) -> None:  # noqa: ANN401 - a DBAPI connection
        """Forget a session that is closed, or has become another one."""


class Sessions:
    """The sessions of one server. Thread-safe."""

    def __init__(self, parts: ServerParts, *, on_fallback: Callable[[str], None]) -> None:
        """``on_fallback`` is told, once, why sessions are not used again after all."""
        self.parts = parts
        self.mould = Mould(parts)
        #: Whether sessions are kept from one visit to the next.
        self._reuse = parts.endpoint.reuse
        self._on_fallback = on_fallback
        self._kept: list[Any] = []
        self._lock = threading.Lock()
        #: Whether a reset clears everything; ``None`` until it was tried.
        self._proved: bool | None = None
        #: No session was opened yet.
        self._is_first = True

    def take(self, database: str, statement_seconds: float, holder: Holder) -> Any:  # noqa: ANN401 - a DBAPI connection
        """Return a session that is new, or as good as new, on a database.

        ``holder`` gets it before it is used. Raises the driver's error.
        """
        kept = self._pop()
        if kept is not None and self._proved is None:
            # Somebody may be about to prove that it can be used.
            with self._lock:
                pass
        if kept is not None and self._proved:
            return self._enter(kept, database, statement_seconds, holder)
        if kept is not None:
            self.close_one(kept)
        session = self._open(database, statement_seconds, holder)
        # A run of a single visit has no use for a proof.
        is_first, self._is_first = self._is_first, False
        if is_first or not self._reuse or self._proved is not None:
            return session
        return self._prove(session, database, statement_seconds, holder)

    def renew(self, session: Any, database: str, statement_seconds: float, holder: Holder) -> Any:  # noqa: ANN401 - as above
        """Return a session for the next job of a visit, as ``take`` does.

        Until there is a proof, jobs of one tenant rely on the server's word.
        """
        retired = self.parts.kind.retire(session) if self._proved is not False else None
        if retired is None:
            self.close_one(session)
            return self._open(database, statement_seconds, holder)
        return self._enter(retired, database, statement_seconds, holder)

    def give(self, session: Any) -> None:  # noqa: ANN401 - as above
        """Take a session back at the end of its visit."""
        retired = None
        if self._reuse and self._proved is not False:
            retired = self.parts.kind.retire(session)
        if retired is None:
            self.close_one(session)
        else:
            self._kept.append(retired)

    def foresee(self, session: Any, *, more: bool) -> None:  # noqa: ANN401 - as above
        """Let the next commit, the last one of a job, take along what makes the session new."""
        if self._proved is not False and (more or self._reuse):
            self.parts.kind.foresee(session, more=more)

    def spare(self) -> None:
        """Close a session that is kept, since another process opens one in its place."""
        kept = self._pop()
        if kept is not None:
            self.close_one(kept)

    def close(self) -> None:
        """Close all that are kept."""
        while (kept := self._pop()) is not None:
            self.close_one(kept)

    def close_one(self, session: Any) -> None:  # noqa: ANN401 - as above
        """Close a session, whatever has become of it."""
        # One that its pool has closed, or the server, cannot be closed again.
        with contextlib.suppress(self.parts.dialect.loaded_dbapi.Error):
            session.close()

    def _pop(self) -> Any | None:  # noqa: ANN401 - as above
        try:
            return self._kept.pop()
        except IndexError:
            return None

    def _open(self, database: str, statement_seconds: float, holder: Holder) -> Any:  # noqa: ANN401 - as above
        session = self.parts.kind.connect(self.parts, database, statement_seconds=statement_seconds)
        holder.hold(session)
        return session

    def _enter(self, session: Any, database: str, statement_seconds: float, holder: Holder) -> Any:  # noqa: ANN401 - as above
        """Enter a retired session; one that cannot be entered is replaced by a new one."""
        holder.hold(session)
        try:
            self.parts.kind.enter(
                self.parts, session, database, statement_seconds=statement_seconds
            )
        except self.parts.dialect.loaded_dbapi.Error as error:
            holder.let_go(session)
            self.close_one(session)
            if not facts(error).lost or holder.is_severed:
                raise
            # The server, or something on the way to it, had closed it meanwhile.
            return self._open(database, statement_seconds, holder)
        return session

    def _prove(self, session: Any, database: str, statement_seconds: float, holder: Holder) -> Any:  # noqa: ANN401 - as above
        """Prove the server's reset on a new session, unless somebody else is at it."""
        if not self._lock.acquire(blocking=False):
            return session
        try:
            if self._proved is not None:
                return session
            trial = _Trial(self.parts, session, database, statement_seconds, holder)
            why = trial.fails()
            self._proved = not why
        finally:
            self._lock.release()
        if not why:
            return trial.session
        self._on_fallback(why)
        holder.let_go(trial.session)
        self.close_one(trial.session)
        return self._open(database, statement_seconds, holder)


class _Trial:
    """The proof of a server's reset."""

    def __init__(
        self,
        parts: ServerParts,
        session: Any,  # noqa: ANN401 - a DBAPI connection
        database: str,
        statement_seconds: float,
        holder: Holder,
    ) -> None:
        self.session = session
        self._parts = parts
        self._database = database
        self._statement_seconds = statement_seconds
        self._holder = holder

    def fails(self) -> str:
        """Say why sessions are not to be used again; nothing if they may be."""
        try:
            left = self._parts.kind.residue(self.session, self._renew)
        except (self._parts.dialect.loaded_dbapi.Error, _NoResetError) as error:
            return f"they could not be reset: {describe(error)}"
        if not left:
            return ""
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        return f"a reset leaves {', '.join(left[:_NAMED])}{more}"

    def _renew(self) -> Any:  # noqa: ANN401 - a DBAPI connection
        kind, used = self._parts.kind, self.session
        retired = kind.retire(used, proving=True)
        if retired is None:
            raise _NoResetError
        self.session = retired
        self._holder.hold(retired)
        self._holder.let_go(used)
        kind.enter(self._parts, retired, self._database, statement_seconds=self._statement_seconds)
        return retired


class _NoResetError(Exception):
    """The driver does not allow it."""

    def __str__(self) -> str:
        return "the driver does not allow it"
