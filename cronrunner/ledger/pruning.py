"""Removing what is old from the ledger, a batch at a time; whoever calls says how many.

What is old is what belongs to runs that began before a given time and have ended: their executions,
attempts, closed claims and themselves. What survives: statistics, counters and durations, so that
metrics and ordering do not change; everything of a run that still holds something; and of each
(job, tenant) pair the claim of the newest slot, which says up to where nothing is due. Of the
fleet's messages those go that are settled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
)

from cronrunner.ledger.tables import attempts, claims, executions, fleet_outbox, prepared, runs

#: Rows in one transaction: others write in between.
BATCH: Final = 1000
#: The keys of scheduled slots sort as their times do, and before all others.
_SCHEDULED: Final = "a"
#: Messages of which nothing becomes any more.
_SETTLED: Final = ("sent", "dead", "cancelled")


def prune_batch(connection: Connection, before: datetime) -> int:
    """Remove some of what is older than ``before``; return how many rows, 0 if there is no more."""
    found = connection.execute(_oldest(before)).first()
    if found is not None:
        # Of nothing but the run itself there is one row left, at the end.
        return next(filter(None, _steps(connection, found.run)))
    left = (claims.c.run == "") & (claims.c.state == "open") & (claims.c.claimed_at < before)
    # A message may be sent long after the slot that it was created for.
    settled_at = func.coalesce(fleet_outbox.c.sent_at, fleet_outbox.c.not_before)
    settled = fleet_outbox.c.status.in_(_SETTLED) & (settled_at < before)
    return (
        _remove(connection, prepared, prepared.c.prepared_at < before)
        + _remove(connection, claims, left)
        + _remove(connection, fleet_outbox, settled)
    )


def _oldest(before: datetime) -> Select[Any]:
    """Find the oldest run that can go."""
    holds = exists().where(claims.c.run == runs.c.run, claims.c.state == "open")
    ended = (runs.c.started_at < before) & runs.c.finished_at.isnot(None)
    return select(runs.c.run).where(ended, ~holds).order_by(runs.c.started_at).limit(1)


def _steps(connection: Connection, run: str) -> Iterator[int]:
    """Remove a batch of each of the things of a run, and at last the run."""
    yield _remove(connection, attempts, attempts.c.run == run)
    yield _remove(connection, executions, executions.c.run == run)
    yield _remove(connection, claims, (claims.c.run == run) & _superseded())
    yield _remove(connection, runs, runs.c.run == run)


def _superseded() -> ColumnElement[bool]:
    newer = claims.alias("newer")
    has_newer = exists().where(
        newer.c.job == claims.c.job,
        newer.c.tenant == claims.c.tenant,
        newer.c.slot_key > claims.c.slot_key,
        newer.c.slot_key < _SCHEDULED,
    )
    return or_(claims.c.slot_key >= _SCHEDULED, has_newer)


def _remove(connection: Connection, table: Table, condition: ColumnElement[bool]) -> int:
    """Remove a batch of rows, by their keys: MySQL takes no subquery on the table itself."""
    keys: Sequence[Any] = list(table.primary_key.columns)
    rows = connection.execute(select(*keys).where(condition).limit(BATCH)).all()
    if rows:
        named = and_(*(column == bindparam(f"old_{column.name}") for column in keys))
        names = [f"old_{column.name}" for column in keys]
        old = [dict(zip(names, row, strict=True)) for row in rows]
        connection.execute(delete(table).where(named), old)
    return len(rows)
