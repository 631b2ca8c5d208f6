"""SQLite: a tenant is a file."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, Engine, NullPool
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from cronrunner.databases.base import (
    Endpoint,
    ErrorFacts,
    ServerParts,
    refuse_unprintable,
    shared_dialect_class,
)

#: Seconds to wait for another writer. Short, since nothing can interrupt this wait.
BUSY_TIMEOUT_SECONDS: Final = 2.0

#: What the module itself says of a text that is none quotes it.
_VALUE: Final = re.compile(r"(Could not decode to UTF-8 column '[^']*') with text '.*", re.DOTALL)


class Session(sqlite3.Connection):
    """A connection that knows who begins its transactions."""

    #: Nobody does, and each statement is one: SQLAlchemy's level AUTOCOMMIT.
    commits_itself = False


class BeginningDialect(SQLiteDialect_pysqlite):
    """Emits BEGIN where SQLAlchemy begins, since the driver's own transactions are off."""

    supports_statement_cache = True

    def do_begin(self, dbapi_connection: Any) -> None:  # noqa: ANN401 - Session
        """Begin a transaction that takes its lock at the first write."""
        if not dbapi_connection.commits_itself:
            dbapi_connection.execute("BEGIN")

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:  # noqa: ANN401 - Session, a level
        """Set the level. The method of the driver's dialect would let the driver begin as well."""
        dbapi_connection.commits_itself = level == "AUTOCOMMIT"
        if level != "AUTOCOMMIT":
            SQLiteDialect.set_isolation_level(self, dbapi_connection, level)


class NoFileError(sqlite3.OperationalError):
    """The tenant's file is not there."""

    sqlite_errorname = "SQLITE_CANTOPEN"


class SQLite:
    """The SQLite kind: one file is one tenant, a folder is a server."""

    name = "sqlite"

    def prepare(self, endpoint: Endpoint) -> ServerParts:
        """Initialise the dialect on a database in memory."""
        dialect = shared_dialect_class(BeginningDialect)(dbapi=sqlite3)  # type: ignore[call-arg]
        session: Any = Session(":memory:", isolation_level=None)
        engine = Engine(NullPool(lambda: session, dialect=dialect), dialect, endpoint.url)
        with engine.connect() as connection:
            dialect.initialize(connection)
        return ServerParts(
            endpoint=endpoint, kind=self, dialect=dialect, arguments={}, tls=None, limit=None
        )

    def connect(
        self, parts: ServerParts, database: str, *, statement_seconds: float | None = None
    ) -> Any:  # noqa: ANN401 - sqlite3.Connection
        """Open an existing file; a missing one is an error and is never created.

        The driver's own transactions are off: it would commit before a SAVEPOINT.
        """
        del statement_seconds
        path = parts.endpoint.folder / database
        if not path.exists():
            msg = f"no file {path.name}"
            raise NoFileError(msg)
        session = Session(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_TIMEOUT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            # The file is first read here: one which is no database is found out at connect.
            session.execute("PRAGMA schema_version")
            on_connect = parts.dialect.on_connect()
            if on_connect is not None:
                on_connect(session)
        except BaseException:
            session.close()
            raise
        return session

    def foresee(self, session: Any, *, more: bool) -> None:  # noqa: ANN401 - sqlite3.Connection
        """Do nothing: no file is opened twice."""

    def retire(self, session: Any, *, proving: bool = False) -> None:  # noqa: ANN401 - sqlite3.Connection
        """Give nothing: opening a file is cheaper than undoing its pragmas."""

    def enter(
        self,
        parts: ServerParts,
        session: Any,  # noqa: ANN401 - sqlite3.Connection
        database: str,
        *,
        statement_seconds: float,
    ) -> None:
        """Do nothing: no session is retired."""

    def residue(self, session: Any, renew: Callable[[], Any]) -> list[str]:  # noqa: ANN401 - sqlite3.Connection
        """Say that there is no reset."""
        del session, renew
        return ["all, since a file has no reset"]

    def number(self, session: Any) -> None:  # noqa: ANN401 - sqlite3.Connection
        """Return nothing: whoever has opened a file is not known to others."""

    def cancel(self, control: Connection | None, session: Any, *, sever: bool) -> bool:  # noqa: ANN401 - sqlite3.Connection
        """Interrupt the session. It ends statements, and not a wait for another's lock."""
        del control, sever
        session.interrupt()
        return True

    def lock(self, session: Any, name: str) -> bool | None:  # noqa: ANN401 - sqlite3.Connection
        """Say that there are no named locks."""
        del session, name
        return None

    def list_databases(self, connection: Connection) -> list[str]:
        """List nothing: a file does not know its neighbours; sources list folders."""
        del connection
        return []

    def refuse(self, database: str) -> str | None:
        """Refuse names that cannot be shown."""
        return refuse_unprintable(database.rpartition("/")[2])

    def facts(self, error: Exception) -> ErrorFacts | None:
        """Classify an error of sqlite3 by its name. One of its messages holds a row value."""
        if not isinstance(error, sqlite3.Error):
            return None
        code = getattr(error, "sqlite_errorname", type(error).__name__)
        said = _VALUE.sub(r"\1", str(error))
        return ErrorFacts(
            code=code,
            text=f"{type(error).__name__} {code}: {' '.join(said.split())}",
            transient=code in {"SQLITE_BUSY", "SQLITE_LOCKED"},
            gone=isinstance(error, NoFileError),
        )
