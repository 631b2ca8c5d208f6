"""How each database is told to look after a table, and how it says that it could not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Executable, Table, select, text
from sqlalchemy.exc import OperationalError

#: The error number of MySQL and MariaDB for a lock that was not had in time.
_LOCK_WAIT: Final = 1205
#: The beginning of what they say instead of it in the rows of ANALYZE and OPTIMIZE.
_LOCK_WAIT_TEXT: Final = "Lock wait timeout exceeded"
_SQLITE_BUSY: Final = ("SQLITE_BUSY", "SQLITE_LOCKED")


class LockedError(Exception):
    """Somebody else holds the table."""


@contextmanager
def autocommit(connection: Connection, lock_seconds: int) -> Iterator[None]:
    """End the transaction; meanwhile each statement is its own, and waits so long for a lock.

    If an error leaves this, the connection stays as it is: it ends with the job.
    """
    connection.commit()
    connection.execution_options(isolation_level="AUTOCOMMIT")
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {lock_seconds * 1000}")
    else:
        connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {lock_seconds}")
    yield
    connection.commit()
    connection.execution_options(isolation_level=connection.default_isolation_level)


def optimize(connection: Connection, table: Table, *, rebuild: bool) -> None:
    """Gather the statistics of a table and, where a statement for that is known, rebuild it.

    Raises ``LockedError``, and ``ValueError`` with what the server says is wrong with the table.
    """
    # MySQL would have a row say that the table is missing, where every other statement raises.
    _execute(connection, select(table.c.id).limit(0))
    name = connection.dialect.identifier_preparer.format_table(table)
    if connection.dialect.name == "sqlite":
        _execute(connection, text(f"ANALYZE {name}"))
        return
    verb = "OPTIMIZE" if rebuild else "ANALYZE"
    for row in _execute(connection, text(f"{verb} TABLE {name}")):
        kind, said = row[2:]
        if kind.lower() == "error":
            raise LockedError if said.startswith(_LOCK_WAIT_TEXT) else ValueError(said)


def vacuum(connection: Connection) -> None:
    """Write the file of a SQLite database anew, without gaps. Raises ``LockedError``."""
    _execute(connection, text("VACUUM"))


def _execute(connection: Connection, statement: Executable) -> Sequence[Sequence[Any]]:
    try:
        result = connection.execute(statement)
    except OperationalError as error:
        if _is_lock(error.orig):
            raise LockedError from error
        raise
    return result.all() if result.returns_rows else ()


def _is_lock(error: Any) -> bool:  # noqa: ANN401 - an error of a driver
    busy = getattr(error, "sqlite_errorname", None) in _SQLITE_BUSY
    return busy or (bool(error.args) and error.args[0] == _LOCK_WAIT)
