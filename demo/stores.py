"""Where the demo's databases live: a folder of SQLite files, or a MariaDB server."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import URL, Connection, Engine, create_engine, make_url, select, text

from demo.tenants import CORRUPT, DECOYS
from jobs.schema import metadata

_WAL: Final = "PRAGMA journal_mode = WAL"
_GARBAGE: Final = b"This is what a full disk has left of a database.\n" * 100


class Store(Protocol):
    """A place for tenants' databases."""

    #: ``sqlite`` or ``mariadb``.
    kind: str
    #: What it is called where people read.
    title: str

    def create(self, name: str) -> Engine:
        """Make an empty database, in place of one that is there."""

    def open(self, name: str) -> Engine:
        """Return an engine for the database of a tenant that is there."""

    def add_strangers(self) -> None:
        """Add databases that are no tenants, and a corrupt one where that can be."""

    def drop(self, name: str, table: str) -> None:
        """Drop a table of a tenant."""

    def lock(self, name: str, table: str) -> Connection:
        """Lock a table of a tenant against writers until the connection is closed."""


def open_store(url: str) -> Store:
    """Return the store for ``sqlite:///folder`` or the URL of a MariaDB or MySQL server."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return SqliteStore(Path(parsed.database or "."))
    return MariaStore(parsed)


class SqliteStore:
    """A folder; each file in it is a tenant."""

    kind = "sqlite"
    title = "SQLite"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def create(self, name: str) -> Engine:
        path = self._path(name)
        # With its journal: a new file would take an old one's for its own.
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        engine = self.open(name)
        with engine.connect() as connection:
            connection.exec_driver_sql(_WAL)
        return engine

    def open(self, name: str) -> Engine:
        return create_engine(f"sqlite:///{self._path(name)}")

    def add_strangers(self) -> None:
        for name in DECOYS:
            self.create(name).dispose()
        self._path(CORRUPT).write_bytes(_GARBAGE)

    def drop(self, name: str, table: str) -> None:
        _drop(self.open(name), table)

    def lock(self, name: str, table: str) -> Connection:
        del table
        engine = self.open(name).execution_options(isolation_level="AUTOCOMMIT")
        connection = engine.connect()
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return connection

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.db"


class MariaStore:
    """A server; each database on it is a tenant."""

    kind = "mariadb"
    title = "MariaDB"

    def __init__(self, url: URL) -> None:
        self._url = url

    def create(self, name: str) -> Engine:
        server = self._engine(None)
        with server.begin() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS `{name}`"))
            connection.execute(text(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4"))
        server.dispose()
        return self.open(name)

    def open(self, name: str) -> Engine:
        return self._engine(name)

    def add_strangers(self) -> None:
        for name in DECOYS:
            self.create(name).dispose()

    def drop(self, name: str, table: str) -> None:
        _drop(self.open(name), table)

    def lock(self, name: str, table: str) -> Connection:
        connection = self.open(name).connect()
        ids = metadata.tables[table].c.id
        connection.execute(select(ids).with_for_update())
        return connection

    def _engine(self, database: str | None) -> Engine:
        return create_engine(self._url.set(database=database))


def _drop(engine: Engine, table: str) -> None:
    metadata.tables[table].drop(engine)
    engine.dispose()
