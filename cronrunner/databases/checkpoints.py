"""Checkpoints in a tenant's own database: how far a job that works in batches has come.

A checkpoint is written with the batch that it is about, as the first statement after its keys
were read, so the two are committed together or not at all. Each is moved from where its job has
left it: of two processes that both believe the work to be theirs, the second waits for the row,
finds it moved, and goes no further.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    MetaData,
    Table,
    Text,
    delete,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.mysql import TEXT
from sqlalchemy.exc import DBAPIError, IntegrityError

from cronrunner.databases.columns import UtcDateTime, key_text
from cronrunner.databases.own_tables import do_without
from cronrunner.errors import OverlapError
from cronrunner.model import Key

#: JSON: what a batch ended with.
Last = Any

_CHECKPOINTS = Table(
    "cronrunner_checkpoints",
    MetaData(),
    Column("job", key_text(100), primary_key=True),
    Column("slot_key", key_text(64), primary_key=True),
    Column("name", key_text(100), primary_key=True),
    # Compared when it is moved, so not by a collation that takes `a` and `A` for equal.
    Column(
        "last_key",
        Text().with_variant(TEXT(collation="utf8mb4_bin"), "mysql", "mariadb"),
        nullable=False,
    ),
    Column("saved_at", UtcDateTime, nullable=False),
    # Elsewhere a batch and its checkpoint would not be one transaction.
    mysql_engine="InnoDB",
    mariadb_engine="InnoDB",
)

#: What a slot has left that never ended well; the ledger has forgotten it as well by then.
_KEPT: Final = timedelta(days=90)
_MOVED: Final = "another run goes on with this work: its checkpoint has moved"


def read(connection: Connection, key: Key, *, make: bool) -> dict[str, Last]:
    """Return what the batches of each name ended with, if a run has left something.

    Nothing else may have happened on ``connection``: with ``make`` the table is made where there
    is none, and that commits.
    """
    try:
        rows = connection.execute(
            select(_CHECKPOINTS.c.name, _CHECKPOINTS.c.last_key).where(*_mine(key))
        )
        return {row.name: json.loads(row.last_key) for row in rows}
    except DBAPIError as error:
        do_without(connection, error, _CHECKPOINTS, make=make)
    connection.begin()
    return {}


def move(  # noqa: PLR0913 - each has a name of its own
    connection: Connection, key: Key, name: str, *, since: Last, to: Last, now: datetime
) -> None:
    """Move a checkpoint, which is not there while ``since`` is ``None``.

    Raises ``OverlapError`` when somebody else has done so.
    """
    values = {"last_key": json.dumps(to), "saved_at": now}
    if since is None:
        _write_first(connection, {**_identity(key), "name": name, **values})
        return
    moved = connection.execute(
        update(_CHECKPOINTS)
        .where(*_mine(key), _CHECKPOINTS.c.name == name)
        .where(_CHECKPOINTS.c.last_key == json.dumps(since))
        .values(values)
    )
    if not moved.rowcount:
        raise OverlapError(_MOVED)


def holds(connection: Connection, key: Key, name: str, last: Last) -> bool:
    """Tell whether a checkpoint is where the open transaction has moved it."""
    mine = (*_mine(key), _CHECKPOINTS.c.name == name)
    found = connection.scalar(select(_CHECKPOINTS.c.last_key).where(*mine))
    return found == json.dumps(last)


def forget(connection: Connection, key: Key, *, now: datetime) -> None:
    """Remove the checkpoints of a job that ends well, and those that it left long ago."""
    mine = _CHECKPOINTS.c
    old = mine.saved_at < now - _KEPT
    connection.execute(
        delete(_CHECKPOINTS).where(mine.job == key.job, or_(mine.slot_key == key.slot_key, old))
    )


def _write_first(connection: Connection, row: Mapping[str, Any]) -> None:
    try:
        connection.execute(insert(_CHECKPOINTS), row)
    except IntegrityError as error:
        raise OverlapError(_MOVED) from error


def _identity(key: Key) -> dict[str, str]:
    return {"job": key.job, "slot_key": key.slot_key}


def _mine(key: Key) -> tuple[ColumnElement[bool], ...]:
    return (_CHECKPOINTS.c.job == key.job, _CHECKPOINTS.c.slot_key == key.slot_key)
