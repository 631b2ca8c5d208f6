"""Engines for the ledger's own database, bounded like those of tenants."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine, event

from cronrunner.databases import Endpoint, describe, kind_of
from cronrunner.errors import LedgerError

#: Seconds that a migration waits for another process' write to a SQLite ledger; see the writer.
_BUSY_TIMEOUT_SECONDS: Final = 30.0
_WAL_RETRY_SECONDS: Final = 0.01
#: What each connection keeps of the file: half of SQLite's default, as groups are of neighbours.
_CACHE_KIB: Final = 1000
#: How long a statement of a migration may take on a server.
_MIGRATION_SECONDS: Final = 3600.0


def open_engine(endpoint: Endpoint) -> Engine:
    """Return an engine for the ledger; a SQLite file and its folder are created.

    On a server it has one connection, for whoever reads. The writer makes another of it, with
    a connection of its own: both are reserved beside those of the visits.

    Raises the driver's errors when the server cannot be reached.
    """
    if endpoint.url.get_backend_name() == "sqlite":
        return _sqlite_engine(endpoint)
    kind = kind_of(endpoint.url.drivername)
    parts = kind.prepare(endpoint)
    database = endpoint.url.database or ""

    def connect(statement_seconds: float | None = None) -> Any:  # noqa: ANN401 - a DBAPI connection
        session = kind.connect(parts, database, statement_seconds=statement_seconds)
        # Once: as an option of the engine it would be set and reset around every transaction.
        parts.dialect.set_isolation_level(session, "READ COMMITTED")
        return session

    parts.dialect.default_schema_name = database
    # Pinged: a connection that lay idle may be gone, and readers do not try again.
    pool = QueuePool(connect, pool_size=1, max_overflow=0, dialect=parts.dialect, pre_ping=True)
    engine = _OfServer(pool, parts.dialect, endpoint.url, hide_parameters=True)
    engine.connect_patiently = partial(connect, _MIGRATION_SECONDS)
    return engine


class _OfServer(Engine):
    """An engine whose reads end at the connect timeout."""

    #: Opens a session whose reads may take long.
    connect_patiently: Callable[[], Any]


def migrating_engine(engine: Engine) -> Engine:
    """Return an engine for a migration: to make an index takes longer than anything else does."""
    if not isinstance(engine, _OfServer):
        return engine
    pool = NullPool(engine.connect_patiently, dialect=engine.dialect)
    return Engine(pool, engine.dialect, engine.url, hide_parameters=True)


def writing_engine(engine: Engine, *, busy_seconds: float) -> Engine:
    """Return an engine like ``engine`` with a pool of its own, which no reader can exhaust.

    On SQLite it waits up to ``busy_seconds`` for another process to finish its write.
    """
    pool = engine.pool.recreate()
    writer = Engine(pool, engine.dialect, engine.url, hide_parameters=True)
    if engine.dialect.name == "sqlite":

        def wait(session: sqlite3.Connection, record: object) -> None:
            del record
            session.execute(f"PRAGMA busy_timeout = {round(busy_seconds * 1000)}")

        event.listen(pool, "connect", wait)
        event.listen(writer, "begin", _begin_sqlite)
    return writer


def _sqlite_engine(endpoint: Endpoint) -> Engine:
    path = endpoint.folder / (endpoint.url.database or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        endpoint.url.set(database=str(path)),
        hide_parameters=True,
        connect_args={"timeout": _BUSY_TIMEOUT_SECONDS, "isolation_level": None},
    )
    event.listen(engine, "connect", _tune_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _tune_sqlite(session: sqlite3.Connection, record: object) -> None:
    """Let readers and the writer work side by side.

    With WAL, synchronous=NORMAL keeps every commit through the death of the process; after
    a loss of power the newest commits may be missing, and nothing is torn.
    """
    del record
    _enter_wal(session)
    session.execute("PRAGMA synchronous=NORMAL")
    session.execute(f"PRAGMA cache_size={-_CACHE_KIB}")


def _enter_wal(session: sqlite3.Connection) -> None:
    """Change a new file to WAL, together with whoever opens it at the same instant.

    Of two that change it at once SQLite refuses one without waiting, whatever its timeout is.
    """
    until = time.monotonic() + _BUSY_TIMEOUT_SECONDS
    while True:
        try:
            session.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_WAL_RETRY_SECONDS)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at BEGIN: a transaction that reads first would fail at its write."""
    writes = connection.get_execution_options().get("write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def loss(error: Exception) -> LedgerError:
    """Return what a failure of the ledger's database is to everybody else."""
    if isinstance(error, LedgerError):
        return error
    failure = LedgerError(f"the ledger was lost: {describe(error)}")
    failure.__cause__ = error
    return failure


def ledger_file(endpoint: Endpoint) -> Path | None:
    """Return the path of a SQLite ledger, ``None`` for any other."""
    if endpoint.url.get_backend_name() != "sqlite":
        return None
    return endpoint.folder / (endpoint.url.database or "")
