"""Bring a ledger's tables to the version that this code speaks.

Alembic takes most of a second to import, so it is imported only when there is something to
migrate: a glance at its version table tells. Two runners that meet a new ledger at the same
instant take turns, by SQLite's write lock or by a named lock of the server. On different nodes
of a Galera cluster both have such a lock: the tables of the first are then in the way of the
second, who waits until they are complete.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError, OperationalError

from cronrunner.databases import describe
from cronrunner.errors import LedgerError
from cronrunner.ledger.engine import migrating_engine

#: The newest version; test_the_head_is_the_newest_migration guards it.
HEAD: Final = "0005"

_LOCK: Final = "cronrunner:migrate"
_LOCK_SECONDS: Final = 60
#: How long one question for the lock may wait: less than any read timeout.
_ASK_SECONDS: Final = 1
#: How long a migration that failed may yet be completed by somebody on another node.
_OTHERS_SECONDS: Final = 10


def bring_up_to_date(engine: Engine) -> None:
    """Migrate the ledger. Raises ``LedgerError`` when it cannot be used."""
    try:
        migrate(engine)
    except OperationalError as error:
        raise LedgerError(f"the ledger cannot be used: {describe(error)}") from error


def migrate(engine: Engine) -> None:
    """Upgrade the ledger's tables if they are older than ``HEAD``.

    Raises ``LedgerError`` when they are newer than this code.
    """
    with engine.connect() as connection:
        if _version(connection) == HEAD:
            return
    try:
        with (
            migrating_engine(engine).connect().execution_options(write=True) as connection,
            _alone(connection),
            connection.begin(),
        ):
            if (found := _version(connection)) != HEAD:
                _upgrade(connection, found)
    except DBAPIError:
        if not _is_done_by_another(engine):
            raise


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Hold the named lock of a server until what is done is committed.

    It belongs to the session, which goes back to the pool: nothing else releases it.
    """
    if connection.dialect.name == "sqlite":
        yield
        return
    statement = text("SELECT GET_LOCK(:lock, :seconds)")
    for _ in range(_LOCK_SECONDS // _ASK_SECONDS):
        asked = {"lock": _LOCK, "seconds": _ASK_SECONDS}
        if connection.execute(statement, asked).scalar_one() == 1:
            break
    else:
        raise LedgerError(
            f"another process has been migrating the ledger for {_LOCK_SECONDS} s; is it alive?"
        )
    connection.commit()
    try:
        yield
    finally:
        connection.execute(text("SELECT RELEASE_LOCK(:lock)"), {"lock": _LOCK})


def _is_done_by_another(engine: Engine) -> bool:
    """Wait a little for the tables that another process may be making on another node."""
    until = time.monotonic() + _OTHERS_SECONDS
    while engine.dialect.name != "sqlite" and time.monotonic() < until:
        with engine.connect() as connection:
            if _version(connection) == HEAD:
                return True
        time.sleep(0.1)
    return False


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(
        text("SELECT version_num FROM alembic_version")
    ).scalar_one_or_none()
    return found


def _upgrade(connection: Connection, found: str | None) -> None:
    from alembic.command import upgrade  # noqa: PLC0415 - see the module's docstring
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "cronrunner:ledger/migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        upgrade(config, HEAD)
    except CommandError as error:
        msg = f"the ledger's tables are of version {found}, which this version does not know"
        raise LedgerError(msg) from error
