"""What is paused: one row for each (job, tenant, server), of which empty names stand for all.

A pause is no claim: it decides no race. A run reads the pauses once, when it lays out its plan;
what is paused is not claimed, so the same slot can be done when the pause is over. A pause that
is over has no effect, whether its row is still there or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, insert, or_, select

from cronrunner.ledger.tables import pauses
from cronrunner.model import Pause


def keep(connection: Connection, pause: Pause, now: datetime) -> None:
    """Write a pause in the place of one of the same names; remove those that are over."""
    connection.execute(delete(pauses).where(or_(_named(pause.names), pauses.c.until <= now)))
    row = {
        "job": pause.job,
        "tenant": pause.tenant,
        "server": pause.server,
        "reason": pause.reason,
        "paused_at": pause.paused_at,
        "until": pause.until,
    }
    connection.execute(insert(pauses), row)


def end(connection: Connection, names: tuple[str, str, str], now: datetime) -> bool:
    """Remove a pause; return whether it was in force."""
    statement = delete(pauses).where(_named(names), _in_force(now))
    return connection.execute(statement).rowcount == 1


def in_force(connection: Connection, now: datetime) -> Sequence[Pause]:
    """Return the pauses that are not over, by their names."""
    rows = connection.execute(select(pauses).where(_in_force(now))).mappings()
    return sorted((Pause(**row) for row in rows), key=lambda each: each.names)


def _named(names: tuple[str, str, str]) -> ColumnElement[bool]:
    job, tenant, server = names
    named: ColumnElement[bool] = (
        (pauses.c.job == job) & (pauses.c.tenant == tenant) & (pauses.c.server == server)
    )
    return named


def _in_force(now: datetime) -> ColumnElement[bool]:
    return or_(pauses.c.until.is_(None), pauses.c.until > now)
