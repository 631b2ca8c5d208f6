"""What a kind of database must do for cronrunner. One file per kind, one conformance suite.

A kind lists and names tenant databases, opens sessions that are bounded in time, makes a used
session as good as new, and says what a driver's error means. It holds no state: what is worth
keeping for a server is in ``ServerParts``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import URL, Connection, Dialect
from sqlalchemy.util import LRUCache

#: Statements kept compiled for each server; SQLAlchemy's own default for an engine.
_COMPILED_STATEMENTS = 500
#: Driver arguments that bound a session, in seconds. All are set, and alike: while reads and
#: writes differ, PyMySQL sets the socket's mode before each of them and gives up the GIL for it.
TIMEOUTS: Final = ("connect_timeout", "read_timeout", "write_timeout")
#: From the first quote that opens to the last that closes: nobody escapes a quote within a value.
#: An apostrophe within a word is none.
_QUOTED: Final = re.compile(r"(?<!\w)['\"](?:.*['\"](?!\w)|.*)", re.DOTALL)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server as it is configured, secrets revealed. Never logged, never pickled."""

    name: str
    url: URL = field(repr=False)
    tls: str = "auto"
    tls_ca: Path | None = None
    connect_timeout_seconds: float = 10.0
    #: Whether a visit may use a session that another visit has had.
    reuse: bool = False
    folder: Path = Path()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerParts:
    """What all engines of one server share: made once, read by all threads."""

    endpoint: Endpoint
    kind: DatabaseKind
    #: Initialised; each tenant gets a copy that counts as the same one for caching.
    dialect: Dialect
    #: Driver arguments: credentials, TLS, timeouts; without the database.
    arguments: Mapping[str, Any] = field(repr=False)
    #: Whether sessions are encrypted; ``None`` where there is nothing to encrypt.
    tls: bool | None
    #: How many connections the server allows this user; ``None`` when it sets no limit.
    limit: int | None
    #: What a named lock does not do there, after the server's name; empty where it does all.
    lock_limit: str = ""
    #: The statement that gives a used session the role of a new one; empty where none is needed.
    role: str = ""
    compiled: LRUCache[Any, Any] = field(
        default_factory=lambda: LRUCache(_COMPILED_STATEMENTS), repr=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFacts:
    """What an exception means."""

    #: The driver's code; ``None`` for an error that no driver raised.
    code: str | None
    #: Type and message in one line, without row values.
    text: str
    #: Worth repeating: a deadlock, a lock wait, a lost connection, a full server.
    transient: bool = False
    #: The database does not exist.
    gone: bool = False
    #: Met at connect: the server cannot be reached or takes nobody, whichever the database.
    refused: bool = False
    #: The connection cannot be used any more.
    lost: bool = False


@dataclass(frozen=True, slots=True)
class FarSession:
    """A session that another process has opened: the server's number of it, and nothing here."""

    number: int

    def thread_id(self) -> int:
        """Return the number, as a driver's session does."""
        return self.number


class DatabaseKind(Protocol):
    """A kind of database."""

    name: str

    def prepare(self, endpoint: Endpoint) -> ServerParts:
        """Ask the server once what all its sessions need to know. Raises driver errors."""

    def connect(
        self, parts: ServerParts, database: str, *, statement_seconds: float | None = None
    ) -> Any:  # noqa: ANN401 - a DBAPI connection of the kind's driver
        """Open a session, within the connect timeout for the handshake as well.

        ``statement_seconds`` is the longest that a statement may take: the server is told to
        end it then, where it can, and a read ends at the latest when ``cancel`` severs the
        session. Without it every read is bounded by the connect timeout, for connections of
        the runner's own.
        """

    def foresee(self, session: Any, *, more: bool) -> None:  # noqa: ANN401 - a DBAPI connection
        """Take note that the next commit ends a job; with ``more`` the visit has another one.

        What makes the session new may be sent along with that commit.
        """

    def retire(self, session: Any, *, proving: bool = False) -> Any:  # noqa: ANN401 - a DBAPI connection
        """Take a used session from whoever has it: return another object for it.

        The old one is dead: what a job has kept reads nothing of others. ``None`` when the session
        has to be closed, since it cannot be made new, or anything about it is odd; an open
        transaction is not odd when the reset is ``proving`` itself on it. What it returns must be
        entered, or closed.
        """

    def enter(
        self,
        parts: ServerParts,
        session: Any,  # noqa: ANN401 - a DBAPI connection
        database: str,
        *,
        statement_seconds: float,
    ) -> None:
        """Make a retired session as good as a new one on ``database``, as by ``connect``.

        Raises the driver's error; the session is then to be closed.
        """

    def residue(self, session: Any, renew: Callable[[], Any]) -> list[str]:  # noqa: ANN401 - a DBAPI connection
        """Say what a reset does not clear, in words; nothing where it clears all.

        ``session`` is new. Every kind of state is planted in it; ``renew`` retires and enters it,
        and returns what is to be as new.
        """

    def number(self, session: Any) -> int | None:  # noqa: ANN401 - a DBAPI connection
        """Return the server's number of a session; ``None`` where there is no server."""

    def cancel(self, control: Connection | None, session: Any, *, sever: bool) -> bool:  # noqa: ANN401 - a DBAPI connection
        """Cancel what a session is doing, from another thread; tell whether it was doing anything.

        With ``sever`` the session is ended as well, at the server and here. ``control`` is a
        connection of the same user; ``None`` when the server does not answer. A ``FarSession``
        is cancelled at the server only.
        """

    def lock(self, session: Any, name: str) -> bool | None:  # noqa: ANN401 - a DBAPI connection
        """Take a named lock for the rest of the session, without waiting.

        False when another session holds it; ``None`` where the server has no such locks.
        ``name`` has at most 64 characters.
        """

    def list_databases(self, connection: Connection) -> list[str]:
        """List the databases of the server that can be tenants, sorted, system ones left out."""

    def refuse(self, database: str) -> str | None:
        """Say why ``database`` cannot be a tenant, or ``None``."""

    def facts(self, error: Exception) -> ErrorFacts | None:
        """Say what an error of this kind's driver means; ``None`` for any other error."""


def mask_quoted(message: str) -> str:
    """Mask what stands in quotes, since it may be a row's value.

    >>> mask_quoted("Can't use 'O'Brien' here, it doesn't fit")
    "Can't use '?' here, it doesn't fit"
    """
    return _QUOTED.sub("'?'", message)


def refuse_unprintable(name: str) -> str | None:
    """Refuse what could not be shown, logged or typed: such a name is a mistake or an attack."""
    if not name:
        return "is empty"
    if not name.isprintable():
        return f"{name!r} holds characters that cannot be printed"
    if name != name.strip():
        return f"{name!r} begins or ends with a blank"
    return None


def copied(made: T) -> T:
    """Return an object with the attributes of another, without what its constructor costs."""
    copy = object.__new__(type(made))
    copy.__dict__.update(made.__dict__)
    return copy


def tenant_dialect(dialect: Dialect, default_schema: str | None) -> Dialect:
    """Copy an initialised dialect for one tenant, cheaply (some microseconds).

    Reflection asks the dialect for the default schema, which differs from tenant to tenant,
    while compiled statements are cached under the dialect: copies of one dialect therefore
    compare equal, and a statement is compiled once for a server and not once for a tenant.
    """
    copy = copied(dialect)
    copy.default_schema_name = default_schema
    return copy


def shared_dialect_class(base: type[Dialect]) -> type[Dialect]:
    """Derive a dialect class whose copies by ``tenant_dialect`` are equal to each other."""

    def family(dialect: Any) -> int:  # noqa: ANN401 - an instance of the class made here
        return id(dialect.identifier_preparer)

    def equal(one: object, other: object) -> bool:
        return type(one) is type(other) and family(one) == family(other)

    members: dict[str, Any] = {
        "supports_statement_cache": True,
        "__hash__": family,
        "__eq__": equal,
        "__module__": __name__,
    }
    return type(f"Shared{base.__name__}", (base,), members)
