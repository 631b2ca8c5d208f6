"""MySQL and MariaDB by PyMySQL."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import pymysql
from pymysql.constants import CR, ER
from sqlalchemy import Connection, Engine, NullPool, text
from sqlalchemy.exc import DBAPIError

from cronrunner.databases.base import (
    TIMEOUTS,
    Endpoint,
    ErrorFacts,
    ServerParts,
    mask_quoted,
    refuse_unprintable,
    shared_dialect_class,
)
from cronrunner.databases.mysql_proof import residue
from cronrunner.databases.mysql_session import Session

SYSTEM: Final = frozenset({"information_schema", "mysql", "performance_schema", "sys"})

_MANUAL_COMMIT: Final = "autocommit = 0"

_GONE: Final = frozenset({ER.BAD_DB_ERROR})
_LOST: Final = frozenset({
    0,  # the driver's own: the connection is closed already
    CR.CR_SERVER_GONE_ERROR,
    CR.CR_SERVER_LOST,
    CR.CR_CONN_HOST_ERROR,
    CR.CR_CONNECTION_ERROR,
    1927,  # MariaDB: connection was killed
    ER.SERVER_SHUTDOWN,
    ER.NORMAL_SHUTDOWN,
    4031,  # MySQL: disconnected for inactivity
})  # fmt: skip
_REFUSED: Final = _LOST | {
    ER.CON_COUNT_ERROR,
    ER.TOO_MANY_USER_CONNECTIONS,
    ER.USER_LIMIT_REACHED,
    ER.HOST_IS_BLOCKED,
    1047,  # Galera: the node is not ready
}
_TRANSIENT: Final = (_REFUSED - {ER.HOST_IS_BLOCKED}) | {ER.LOCK_DEADLOCK, ER.LOCK_WAIT_TIMEOUT}

#: Errors whose quoted parts are names of tables, columns, users and the like. In every other
#: error what stands in quotes may be a row's value.
_NAMES_ONLY: Final = frozenset({
    ER.DBACCESS_DENIED_ERROR, ER.ACCESS_DENIED_ERROR, ER.BAD_DB_ERROR, ER.BAD_TABLE_ERROR,
    ER.BAD_FIELD_ERROR, ER.NO_SUCH_TABLE, ER.TABLE_EXISTS_ERROR, ER.TABLEACCESS_DENIED_ERROR,
    ER.COLUMNACCESS_DENIED_ERROR, ER.BAD_NULL_ERROR, ER.NO_DEFAULT_FOR_FIELD,
    ER.DATA_TOO_LONG, ER.WARN_DATA_OUT_OF_RANGE, ER.NO_REFERENCED_ROW_2,
    ER.ROW_IS_REFERENCED_2, ER.SP_DOES_NOT_EXIST, ER.UNKNOWN_SYSTEM_VARIABLE,
    CR.CR_CONN_HOST_ERROR, CR.CR_SERVER_LOST, CR.CR_SERVER_GONE_ERROR,
})  # fmt: skip
#: Greedy: a value may itself hold a quote followed by the words that end it.
_DUPLICATE: Final = re.compile(r"^Duplicate entry '.*' for key '([^']*)'$", re.DOTALL)


_FIND_MARIADB: Final = (
    "SELECT command, query_id FROM information_schema.processlist WHERE id = :session"
)
_FIND_MYSQL: Final = (
    "SELECT command, NULL AS query_id FROM information_schema.processlist WHERE id = :session"
)


class MySQL:
    """The MySQL kind: MySQL and MariaDB servers, a tenant is a database."""

    name = "mysql"

    def prepare(self, endpoint: Endpoint) -> ServerParts:
        """Decide TLS, initialise the dialect and read the limits, over one session."""
        base = endpoint.url.get_dialect()
        dialect = shared_dialect_class(base)(dbapi=base.import_dbapi())  # type: ignore[call-arg]
        timeout = endpoint.connect_timeout_seconds
        arguments: dict[str, Any] = {
            **dialect.create_connect_args(endpoint.url)[1],
            **dict.fromkeys(TIMEOUTS, timeout),
            "charset": "utf8mb4",
        }
        # Each session says its own, and this first one needs none.
        arguments.pop("database", None)
        if endpoint.url.password is not None:
            # The driver would encode text as Latin-1, and the servers' own clients do not.
            arguments["password"] = str(endpoint.url.password).encode()
        session, tls = _first_session(arguments, endpoint)
        arguments |= _tls_arguments(tls)
        engine = Engine(NullPool(lambda: session, dialect=dialect), dialect, endpoint.url)
        with engine.connect() as connection:
            dialect.initialize(connection)
            limit = _connection_limit(connection)
            lock_limit = _lock_limit(connection)
            role = _first_role(connection)
        return ServerParts(
            endpoint=endpoint,
            kind=self,
            dialect=dialect,
            arguments=arguments,
            tls=tls is not None,
            limit=limit,
            lock_limit=lock_limit,
            role=role,
        )

    def connect(
        self, parts: ServerParts, database: str, *, statement_seconds: float | None = None
    ) -> Any:  # noqa: ANN401 - pymysql.Connection
        """Open a session on ``database``, or on none if it is empty."""
        begin = _begin_assignments(parts, statement_seconds)
        session = Session(
            begin=begin,
            role=parts.role,
            database=database or None,
            autocommit=None,
            **parts.arguments,
        )
        if statement_seconds is not None:
            _unbound(session)
            session.remember()
        return session

    def foresee(self, session: Any, *, more: bool) -> None:  # noqa: ANN401 - pymysql.Connection
        """Send the reset along with the next commit."""
        session.foresee(more=more)

    def retire(self, session: Any, *, proving: bool = False) -> Any:  # noqa: ANN401 - pymysql.Connection
        """Reset the session at the server, and give another object for it."""
        return session.retire(proving=proving)

    def enter(
        self,
        parts: ServerParts,
        session: Any,  # noqa: ANN401 - pymysql.Connection
        database: str,
        *,
        statement_seconds: float,
    ) -> None:
        """Change the database and set what a session begins with, in one round trip."""
        session.enter(database, _begin_assignments(parts, statement_seconds))

    def residue(self, session: Any, renew: Callable[[], Any]) -> list[str]:  # noqa: ANN401 - pymysql.Connection
        """Plant every kind of state, and say what is still there after ``renew``."""
        return residue(session, renew)

    def number(self, session: Any) -> int:  # noqa: ANN401 - pymysql.Connection
        """Return the connection id that KILL takes."""
        number: int = session.thread_id()
        return number

    def cancel(self, control: Connection | None, session: Any, *, sever: bool) -> bool:  # noqa: ANN401 - pymysql.Connection
        """Kill the session's statement, by its query id where the server has them.

        The session is looked up first: what is idle, or gone, is not killed. With ``sever``
        the socket is shut before the server is asked: it wakes up who reads from it, whatever
        the server does.
        """
        if sever:
            _shut(session)
        if control is None:
            return False
        number = session.thread_id()
        statement = _FIND_MARIADB if _is_mariadb(control) else _FIND_MYSQL
        found = control.execute(text(statement), {"session": number}).one_or_none()
        control.rollback()
        if found is None or (found.command == "Sleep" and not sever):
            return False
        if sever:
            kill = f"KILL {number}"
        elif found.query_id is not None:
            kill = f"KILL QUERY ID {found.query_id}"
        else:
            kill = f"KILL QUERY {number}"
        control.exec_driver_sql(kill)
        return True

    def lock(self, session: Any, name: str) -> bool | None:  # noqa: ANN401 - pymysql.Connection
        """Take a lock by ``GET_LOCK``, which some Galera clusters refuse."""
        try:
            with session.cursor() as cursor:
                cursor.execute("SELECT GET_LOCK(%s, 0)", (name,))
                return bool(cursor.fetchone()[0])
        except pymysql.err.MySQLError as error:
            if error.args and error.args[0] == ER.NOT_SUPPORTED_YET:
                return None
            raise

    def list_databases(self, connection: Connection) -> list[str]:
        """List what the user has a grant on, by ``SHOW DATABASES``."""
        names = connection.execute(text("SHOW DATABASES")).scalars()
        return sorted(name for name in names if name.lower() not in SYSTEM)

    def refuse(self, database: str) -> str | None:
        """Refuse system schemas and names that the server itself could not read."""
        if database.lower() in SYSTEM:
            return f"{database!r} is a system schema"
        if database.startswith("#mysql50#"):
            return f"{database!r} is a folder which is not a database"
        return refuse_unprintable(database)

    def facts(self, error: Exception) -> ErrorFacts | None:
        """Classify an error of PyMySQL by its number."""
        if not isinstance(error, pymysql.Error):
            return None
        number = error.args[0] if error.args and isinstance(error.args[0], int) else None
        message = str(error.args[1]) if len(error.args) > 1 else " ".join(map(str, error.args))
        code = str(number) if number else type(error).__name__
        return ErrorFacts(
            code=code,
            text=f"{type(error).__name__} {code}: {_without_values(number, message)}",
            transient=number in _TRANSIENT,
            gone=number in _GONE,
            refused=number in _REFUSED,
            lost=number in _LOST,
        )


def _first_session(
    arguments: dict[str, Any], endpoint: Endpoint
) -> tuple[Any, ssl.SSLContext | None]:
    """Open the server's first session and find out whether its sessions are encrypted.

    A context makes TLS mandatory. The one way to no TLS under ``auto`` is the server's own
    greeting, which does not offer it: the driver's CR_SSL_CONNECTION_ERROR, raised before
    the password is sent. Any other failure of TLS stays a failure.
    """
    if endpoint.tls == "disabled":
        return Session(begin=_MANUAL_COMMIT, **arguments, ssl_disabled=True), None
    context = _tls_context(endpoint)
    try:
        return Session(begin=_MANUAL_COMMIT, **arguments, ssl=context), context
    except pymysql.OperationalError as error:
        if endpoint.tls != "auto" or error.args[0] != CR.CR_SSL_CONNECTION_ERROR:
            raise
    return Session(begin=_MANUAL_COMMIT, **arguments, ssl_disabled=True), None


def _tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """Build the server's one context: PyMySQL would build one per connection (18 ms each)."""
    if endpoint.tls == "verify":
        return ssl.create_default_context(cafile=endpoint.tls_ca)
    # Nobody looks at the certificate: to read those of the system takes 20 ms.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _tls_arguments(context: ssl.SSLContext | None) -> dict[str, Any]:
    return {"ssl_disabled": True} if context is None else {"ssl": context}


def _connection_limit(connection: Connection) -> int | None:
    limits = connection.execute(text("SELECT @@max_connections, @@max_user_connections")).one()
    return min((int(limit) for limit in limits if limit), default=None)


def _lock_limit(connection: Connection) -> str:
    """Tell a node of a Galera cluster: MySQL does not have the variable, MariaDB has it off."""
    found = connection.execute(text("SHOW GLOBAL VARIABLES LIKE 'wsrep_on'")).one_or_none()
    if found is None or found[1] != "ON":
        return ""
    return "is a node of a Galera cluster: a server_lock there keeps out nobody on another node"


def _first_role(connection: Connection) -> str:
    """Return the statement that takes the role of a new session, if the user has any.

    A reset leaves the role as it is. MariaDB knows no ``SET ROLE DEFAULT``.
    """
    try:
        known = connection.execute(text("SELECT COUNT(*) FROM information_schema.applicable_roles"))
        if not known.scalar_one():
            return ""
        if not _is_mariadb(connection):
            return "SET ROLE DEFAULT"
        role = connection.execute(text("SELECT CURRENT_ROLE()")).scalar_one()
    except DBAPIError:
        # Before MySQL 8.0.19 there is no such list; before MySQL 8 there are no roles.
        connection.rollback()
        return "SET ROLE DEFAULT" if (connection.dialect.server_version_info or ()) >= (8,) else ""
    return "SET ROLE NONE" if role is None else f"SET ROLE `{str(role).replace('`', '``')}`"


def _begin_assignments(parts: ServerParts, statement_seconds: float | None) -> str:
    """Return what each session is told first, and again after a reset."""
    if statement_seconds is None:
        return _MANUAL_COMMIT
    if getattr(parts.dialect, "is_mariadb", False):
        return f"{_MANUAL_COMMIT}, max_statement_time = {statement_seconds:.3f}"
    # MySQL's limit covers SELECT only.
    return f"{_MANUAL_COMMIT}, max_execution_time = {round(statement_seconds * 1000)}"


def _unbound(session: Any) -> None:  # noqa: ANN401 - pymysql.Connection
    """Leave the length of a read to the watchdog, which shuts the socket when it is over.

    A socket with a timeout is polled before each read and write. The driver has no public way
    to change it; if the attributes move, the timeouts of the handshake stay, which
    test_a_statement_may_outlast_the_connect_timeout notices.
    """
    session._read_timeout = session._write_timeout = None  # noqa: SLF001 - see above


def _is_mariadb(connection: Connection) -> bool:
    return bool(getattr(connection.dialect, "is_mariadb", False))


def _shut(session: Any) -> None:  # noqa: ANN401 - pymysql.Connection
    """Shut the session's socket from another thread; the driver has no public way to do so."""
    with suppress(OSError, AttributeError):
        session._sock.shutdown(socket.SHUT_RDWR)  # noqa: SLF001 - see above


def _without_values(number: int | None, message: str) -> str:
    """Drop what may be a row's value from the server's message."""
    message = " ".join(message.split())
    if number in _NAMES_ONLY:
        return message
    if number == ER.DUP_ENTRY and (duplicate := _DUPLICATE.match(message)):
        return f"Duplicate entry for key '{duplicate.group(1)}'"
    return mask_quoted(message)
