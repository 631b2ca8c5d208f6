"""Tables of our own in a tenant's database, which are made when they are first needed."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from cronrunner.databases import facts

#: MySQL's number, and what SQLite says of any mistake in a statement.
_NO_SUCH_TABLE: Final = frozenset({"1146", "SQLITE_ERROR"})


def do_without(connection: Connection, error: DBAPIError, table: Table, *, make: bool) -> None:
    """Roll back a statement that has not found ``table``, and ``make`` it, which commits.

    Nothing else may have happened on ``connection``. Raises every other error.
    """
    if facts(error).code not in _NO_SUCH_TABLE:
        raise error
    connection.rollback()
    if make:
        connection.execute(CreateTable(table, if_not_exists=True))
        connection.commit()
