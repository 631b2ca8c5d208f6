"""What the ledger keeps besides outcomes: runs, prepared values, the tenants of each source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from cronrunner.ledger.arbitration import chunks, of_run
from cronrunner.ledger.statements import Statements
from cronrunner.ledger.tables import prepared, runs, tenants


def open_run(connection: Connection, row: Mapping[str, Any]) -> None:
    """Add the row of a run, unless it is there."""
    if connection.execute(of_run(select(runs.c.run), row["run"])).first() is None:
        connection.execute(insert(runs), row)


def keep_prepared(
    connection: Connection, job: str, slot_key: str, value: str, *, at: datetime
) -> None:
    """Keep what a ``prepare`` returned for a slot, in place of an earlier value."""
    row = {"job": job, "slot_key": slot_key, "value": value, "prepared_at": at}
    mine = (prepared.c.job == job) & (prepared.c.slot_key == slot_key)
    connection.execute(prepared.delete().where(mine))
    connection.execute(insert(prepared), row)


def is_prepared(connection: Connection, job: str, slot_key: str) -> bool:
    """Tell whether a slot has a prepared value."""
    mine = (prepared.c.job == job) & (prepared.c.slot_key == slot_key)
    return connection.execute(select(prepared.c.job).where(mine)).first() is not None


def accept_tenants(
    connection: Connection,
    statements: Statements,
    server: str,
    names: Iterable[str],
    *,
    at: datetime,
) -> None:
    """Make ``names`` the last accepted discovery of a source."""
    of_server = tenants.c.server == server
    known = set(connection.execute(select(tenants.c.tenant).where(of_server)).scalars())
    wanted = set(names)
    for chunk in chunks(sorted(known - wanted)):
        connection.execute(tenants.delete().where(of_server, tenants.c.tenant.in_(chunk)))
    for chunk in chunks(sorted(wanted - known)):
        rows = [{"server": server, "tenant": name, "first_seen_at": at} for name in chunk]
        statements.new_tenants(connection, rows)
