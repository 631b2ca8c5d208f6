"""What keeps a dry run from changing anything: a guard on the engine of one attempt.

It counts the rows that statements change, and refuses what no rollback would undo: a commit by
the job, an end of the transaction in SQL, autocommit, and on MySQL whatever commits by itself.
There the statements that do not are named, and every other one is refused, since the servers'
lists of the others differ and grow.

What it cannot see is done by the driver alone, without SQLAlchemy, or by the server in another
session. Tables that know no transactions (MyISAM, Aria) keep what is written to them: the server
says so when it rolls back, and the guard says it on.
"""

from __future__ import annotations

import re
from typing import Any, Final, Never

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import ExecuteStyle

from cronrunner.errors import DryRunError

#: The error of the one change that a dry run can find out about only when it is too late.
LEFT: Final = (
    "dry run: a table without transactions was changed and could not be rolled back; use InnoDB,"
    ' or declare effects="external", which keeps the job out of dry runs'
)
#: What MySQL and MariaDB run without a commit, by the statement's beginning.
_HARMLESS: Final = re.compile(
    r"""\(*\s*(?: (?:SELECT|WITH|VALUES|TABLE|INSERT|UPDATE|DELETE|REPLACE|DO|SHOW|DESC|DESCRIBE
      |EXPLAIN|USE|SAVEPOINT|RELEASE|HANDLER|LOAD\s+DATA|ROLLBACK\s+(?:WORK\s+)?TO
      |(?:CREATE|DROP)\s+TEMPORARY|CREATE\s+OR\s+REPLACE\s+TEMPORARY)\b
      |SET\b(?!.*\b(?:AUTOCOMMIT|GLOBAL|PERSIST|PERSIST_ONLY|PASSWORD|DEFAULT\s+ROLE)\b)
           (?!\s+STATEMENT\b) )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
#: What ends a transaction, or takes it away from here, on other databases; their DDL is part of it.
_ENDING: Final = re.compile(
    r"(?:BEGIN|START|COMMIT|END|ABORT|PREPARE\s+TRANSACTION|VACUUM"
    r"|ROLLBACK(?!\s+(?:TRANSACTION\s+|WORK\s+)?TO\b))\b",
    re.IGNORECASE,
)
#: A comment before a statement; what MySQL executes, `/*! ... */`, is none.
_COMMENT: Final = re.compile(
    r"\s*(?:--[^\n]*(?:\n|$)|\#[^\n]*(?:\n|$)|/\*(?!M?!).*?\*/)\s*", re.DOTALL
)
_CHANGE: Final = re.compile(r"(?:INSERT|UPDATE|DELETE|REPLACE|LOAD)\b", re.IGNORECASE)
_WITH: Final = re.compile(r"WITH\b", re.IGNORECASE)
_SAVEPOINT: Final = re.compile(r"SAVEPOINT\s+(\S+)", re.IGNORECASE)
_ROLLBACK_TO: Final = re.compile(
    r"ROLLBACK\s+(?:TRANSACTION\s+|WORK\s+)?TO\s+(?:SAVEPOINT\s+)?(\S+)", re.IGNORECASE
)
#: What a refused statement is called by: no more, since what follows may be a password, a row's
#: value, or a name that differs from tenant to tenant.
_CALLED: Final = re.compile(
    r"""(?:ALTER|ANALYZE|BEGIN|CACHE|CALL|CHANGE|CHECK|CHECKSUM|COMMIT|CREATE|DROP|END|EXECUTE|FLUSH
      |GRANT|INSTALL|KILL|LOAD|LOCK|OPTIMIZE|PREPARE|PURGE|RENAME|REPAIR|RESET|REVOKE|ROLLBACK|SET
      |START|STOP|TRUNCATE|UNINSTALL|UNLOCK|VACUUM|XA)\b
      (?:\s+(?:DATABASE|EVENT|FUNCTION|GLOBAL|IMMEDIATE|INDEX|PASSWORD|PERSIST|PROCEDURE|ROLE|SCHEMA
      |SEQUENCE|SESSION|STATEMENT|TABLES?|TRANSACTION|TRIGGER|UNIQUE|USER|VIEW)\b)?""",
    re.IGNORECASE | re.VERBOSE,
)
_MYSQL: Final = frozenset({"mysql", "mariadb"})
#: MySQL: some non-transactional changed tables couldn't be rolled back.
_NOT_ROLLED_BACK: Final = 1196


class DryGuard:
    """Watches one attempt of a dry run: counts the rows it changes, refuses what would stay."""

    def __init__(self, engine: Engine) -> None:
        self._is_mysql = engine.dialect.name in _MYSQL
        #: Row counts, and cursors whose count is complete once they are read.
        self._changes: list[Any] = []
        #: Savepoint -> how many changes came before it.
        self._savepoints: dict[str, int] = {}
        #: The statement in batches that was counted last.
        self._batched: object = None
        self._refused: DryRunError | None = None
        for name in (
            "before_cursor_execute",
            "after_cursor_execute",
            "set_connection_execution_options",
            "begin_twophase",
            "commit",
            "rollback",
        ):
            event.listen(engine, name, getattr(self, f"_{name}"))

    def rows_changed(self) -> int:
        """Return how many rows the statements have changed that were not rolled back."""
        counts = (each if isinstance(each, int) else each.rowcount for each in self._changes)
        return sum(max(count, 0) for count in counts)

    def refuse(self, text: str) -> Never:
        """Raise ``DryRunError``, and keep it: a job that catches it does not go well either."""
        self._refused = self._refused or DryRunError(f"dry run: {text}")
        raise self._refused

    def check(self) -> None:
        """Raise the ``DryRunError`` of what was refused, if something was."""
        if self._refused is not None:
            raise self._refused

    def undo(self, connection: Connection) -> None:
        """Roll back at the database, whatever SQLAlchemy thinks of the transaction.

        A commit that was refused has ended it for SQLAlchemy, and not for the database.
        """
        if connection.closed or connection.invalidated:
            return
        session = connection.connection
        connection.dialect.do_rollback(session)
        if self._is_mysql and self._is_left(session.cursor()):
            self._refused = DryRunError(LEFT)

    def _is_left(self, cursor: Any) -> bool:  # noqa: ANN401 - a DBAPI cursor
        cursor.execute("SHOW WARNINGS")
        return any(code == _NOT_ROLLED_BACK for _, code, *_ in cursor.fetchall())

    # Events of SQLAlchemy, with the arguments that it gives.

    def _before_cursor_execute(
        self,
        connection: Connection,
        __: Any,  # noqa: ANN401 - a DBAPI cursor
        statement: str,
        *___: object,
    ) -> None:
        if not connection.in_transaction():
            # SQLAlchemy begins one with it: the ledger's engine on SQLite.
            return
        text = _without_comments(statement)
        if self._is_mysql and not _HARMLESS.match(text):
            self.refuse(f"{_called(text)} may commit what precedes it, and cannot be rolled back")
        if not self._is_mysql and _ENDING.match(text):
            self.refuse(f"{_called(text)} ends the transaction; leave that to the runner")

    def _after_cursor_execute(
        self,
        _: Connection,
        cursor: Any,  # noqa: ANN401 - a DBAPI cursor
        statement: str,
        __: object,
        context: Any,  # noqa: ANN401 - an ExecutionContext, or None
        ___: bool,  # noqa: FBT001 - executemany
    ) -> None:
        text = _without_comments(statement)
        if _is_in_batches(context):
            self._count_batched(context)
        elif _is_change(text, cursor, context):
            # SQLite knows the number of RETURNING when its last row was read.
            self._changes.append(cursor.rowcount if cursor.description is None else cursor)
        elif savepoint := _SAVEPOINT.match(text):
            self._savepoints[savepoint[1]] = len(self._changes)
        elif back := _ROLLBACK_TO.match(text):
            del self._changes[self._savepoints.get(back[1], 0) :]

    def _count_batched(self, context: Any) -> None:  # noqa: ANN401 - an ExecutionContext
        """Count the rows of an INSERT that SQLAlchemy sends in several statements, once."""
        if self._batched is not context:
            self._batched = context
            self._changes.append(len(context.compiled_parameters))

    def _set_connection_execution_options(self, _: Connection, opts: Any) -> None:  # noqa: ANN401 - a mapping
        if opts.get("isolation_level") == "AUTOCOMMIT":
            self.refuse("autocommit leaves nothing to roll back; use ctx.connection as it is")

    def _begin_twophase(self, *_: object) -> None:
        self.refuse("a transaction in two phases outlives its session; leave it to the runner")

    def _commit(self, _: Connection) -> None:
        self.refuse("the job commits; leave the commit to the runner")

    def _rollback(self, _: Connection) -> None:
        self._changes.clear()
        self._savepoints.clear()


def _without_comments(statement: str) -> str:
    text = statement.strip()
    while comment := _COMMENT.match(text):
        text = text[comment.end() :]
    return text


def _called(statement: str) -> str:
    called = _CALLED.match(statement)
    return "a statement" if called is None else " ".join(called[0].split())


def _is_in_batches(context: Any) -> bool:  # noqa: ANN401 - an ExecutionContext, or None
    return context is not None and context.execute_style is ExecuteStyle.INSERTMANYVALUES


def _is_change(text: str, cursor: Any, context: Any) -> bool:  # noqa: ANN401 - a DBAPI cursor, an ExecutionContext
    if context is not None and (context.isinsert or context.isupdate or context.isdelete):
        return True
    if cursor.description is None and _WITH.match(text):
        return True
    return _CHANGE.match(text) is not None
