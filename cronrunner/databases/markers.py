"""Slot markers in a tenant's own database: the proof that a slot's transaction was committed.

A job that is ``exactly_once`` writes its marker with the first statement of its transaction,
so the two are committed together or not at all. Whoever comes later for the same slot, because
the first died between its commit and its record, meets the marker and takes its counters; who
comes while the first is still at work waits for its row, and then meets it or takes its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    MetaData,
    Table,
    Text,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from cronrunner.databases.columns import UtcDateTime, key_text
from cronrunner.databases.own_tables import do_without
from cronrunner.model import Key

_MARKERS = Table(
    "cronrunner_slots",
    MetaData(),
    Column("job", key_text(100), primary_key=True),
    Column("slot_key", key_text(64), primary_key=True),
    Column("run", key_text(40), nullable=False),
    Column("marked_at", UtcDateTime, nullable=False),
    # A mapping of whole numbers, as JSON.
    Column("counters", Text),
)


def enter(connection: Connection, key: Key, *, run: str, now: datetime) -> Mapping[str, int] | None:
    """Write the marker, or return the counters of the transaction that wrote it before.

    The first time on a tenant its table is made; that commits, and nothing else has happened.
    """
    row = {"job": key.job, "slot_key": key.slot_key, "run": run, "marked_at": now}
    try:
        connection.execute(insert(_MARKERS), row)
    except IntegrityError:
        return _counters(connection, key)
    except DBAPIError as error:
        do_without(connection, error, _MARKERS, make=True)
        try:
            connection.execute(insert(_MARKERS), row)
        except IntegrityError:
            return _counters(connection, key)
    return None


def find(connection: Connection, key: Key) -> Mapping[str, int] | None:
    """Return the counters of the transaction that wrote the marker, if one did. Writes nothing."""
    try:
        found = connection.execute(select(_MARKERS.c.counters).where(*_mine(key))).one_or_none()
    except DBAPIError as error:
        do_without(connection, error, _MARKERS, make=False)
        return None
    return None if found is None else _read(found.counters)


def fill(connection: Connection, key: Key, counters: Mapping[str, int]) -> None:
    """Write what the job counted into its marker."""
    connection.execute(
        update(_MARKERS).where(*_mine(key)).values(counters=json.dumps(dict(counters)))
    )


def _counters(connection: Connection, key: Key) -> Mapping[str, int]:
    found = connection.execute(select(_MARKERS.c.counters).where(*_mine(key))).scalar_one()
    return _read(found)


def _read(text: str | None) -> Mapping[str, int]:
    counters: Mapping[str, int] = json.loads(text or "{}")
    return counters


def _mine(key: Key) -> tuple[ColumnElement[bool], ...]:
    return (_MARKERS.c.job == key.job, _MARKERS.c.slot_key == key.slot_key)
