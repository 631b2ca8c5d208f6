"""Where throw-away tenants live: files, or a database of their own on a server."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final, Protocol

import sqlparse
from sqlalchemy import URL, Engine, MetaData, Row, make_url, text

from cronrunner.app.endpoints import parse_url
from cronrunner.databases import Endpoint
from cronrunner.testing.stage import Stage

#: Tables, or SQL that makes them, or a file of it; ``None`` for an empty database.
Schema = MetaData | str | Path | None

_COLUMNS: Final = text(
    "SELECT table_name, column_name, data_type, is_nullable, column_default"
    " FROM information_schema.columns WHERE table_schema = :database"
    " ORDER BY table_name, ordinal_position"
)


class Place(Protocol):
    """Gives a tenant to each test."""

    stage: Stage

    def take(self) -> str:
        """Return the name of a database that has the schema and no rows."""

    def give_back(self, database: str) -> None:
        """Take note that a test is over."""

    def close(self) -> None:
        """Remove what was made."""


class Files:
    """A SQLite file for each test: a copy of one that has the schema."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        self.stage = Stage(Endpoint(name="test", url=make_url("sqlite://"), folder=folder))
        self._folder = folder
        self._numbers = count(1)
        (folder / "empty.db").touch()
        _create(self.stage.engine("empty.db"), schema)

    def take(self) -> str:
        """Copy the file."""
        path = self._folder / f"tenant{next(self._numbers)}.db"
        return str(shutil.copy(self._folder / "empty.db", path))

    def give_back(self, database: str) -> None:
        """Remove the copy."""
        Path(database).unlink()

    def close(self) -> None:
        """Close what was opened; the folder is the caller's."""
        self.stage.close()


class ServerDatabase:
    """One database on a server: to empty its tables takes less time than to make them."""

    def __init__(self, url: str, schema: Schema) -> None:
        self.stage = Stage(Endpoint(name="test", url=_server_url(url)))
        self._schema = schema
        self._name = f"cronrunner_test_{secrets.token_hex(4)}"
        self._make()

    def take(self) -> str:
        """Empty the database; make it anew if a test has changed its tables."""
        if self._columns() == self._made:
            self._empty()
        else:
            self._execute(f"DROP DATABASE {self._name}")
            self._make()
        return self._name

    def give_back(self, database: str) -> None:
        """Keep the rows: the next test finds them gone."""

    def close(self) -> None:
        """Drop the database."""
        self._execute(f"DROP DATABASE {self._name}")
        self.stage.close()

    def _make(self) -> None:
        self._execute(f"CREATE DATABASE {self._name}")
        engine = self.stage.engine(self._name)
        _create(engine, self._schema)
        self._tables = _tables(engine, self._schema)
        self._made = self._columns()

    def _empty(self) -> None:
        with self.stage.engine(self._name).begin() as connection:
            for table in reversed(self._tables.sorted_tables):
                connection.execute(table.delete())

    def _columns(self) -> Sequence[Row[Any]]:
        with self.stage.engine(self._name).connect() as connection:
            return connection.execute(_COLUMNS, {"database": self._name}).all()

    def _execute(self, statement: str) -> None:
        with self.stage.engines.control("test") as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql(statement)


def _server_url(text: str) -> URL:
    url = parse_url(text)
    if url.get_backend_name() == "sqlite":
        msg = "expected the URL of a server, got one of SQLite, which tests run on in any case"
        raise ValueError(msg)
    return url


def _create(engine: Engine, schema: Schema) -> None:
    if isinstance(schema, MetaData):
        schema.create_all(engine)
        return
    script = schema.read_text(encoding="utf-8") if isinstance(schema, Path) else schema or ""
    with engine.begin() as connection:
        # As they are written: a percent sign stands for itself.
        plain = connection.execution_options(no_parameters=True)
        for statement in sqlparse.split(sqlparse.format(script, strip_comments=True)):
            plain.exec_driver_sql(statement)


def _tables(engine: Engine, schema: Schema) -> MetaData:
    if isinstance(schema, MetaData):
        return schema
    found = MetaData()
    found.reflect(engine)
    return found
