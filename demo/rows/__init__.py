"""The rows of a tenant: a function for each table, which yields what is particular.

A table without a function is left empty. To give a job its rows, add a function, or rows to
one, and a line to ``TABLES``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from demo.rows import (
    assets,
    backups,
    compliance,
    exchanges,
    integrations,
    machinery,
    messages,
    people,
    reviews,
    work,
)
from demo.scene import Row, Scene
from jobs.schema import metadata

TABLES: Final[Mapping[str, Callable[[Scene], Iterable[Row]]]] = {
    "users": people.users,
    "auth_tokens": people.auth_tokens,
    "user_sessions": people.user_sessions,
    "rate_limits": people.rate_limits,
    "work_items": work.work_items,
    "audit_log": work.audit_log,
    "framework_controls": compliance.framework_controls,
    "control_evidence": compliance.control_evidence,
    "compliance_snapshots": compliance.compliance_snapshots,
    "uar_comparisons": reviews.uar_comparisons,
    "uar_executions": reviews.uar_executions,
    "uar_rows": reviews.uar_rows,
    "expiring_assets": assets.expiring_assets,
    "exchange_rates": assets.exchange_rates,
    "notifications": messages.notifications,
    "outbox": messages.outbox,
    "integrations": integrations.integrations,
    "backups": backups.backups,
    "job_items": machinery.job_items,
    "reports": machinery.reports,
    "archived_records": machinery.archived_records,
    "metric_values": machinery.metric_values,
    "exchanges": exchanges.exchanges,
    "exchange_participants": exchanges.exchange_participants,
}


def rows_of(scene: Scene) -> dict[str, list[Row]]:
    """Return the rows of every table that has some."""
    return {table: list(make(scene)) for table, make in TABLES.items()}


def complete(table: str, rows: Iterable[Row]) -> list[Row]:
    """Number rows from 1 and give them every column, so that one statement inserts them all."""
    blank = dict.fromkeys(metadata.tables[table].columns.keys())
    return [blank | row | {"id": number} for number, row in enumerate(rows, start=1)]
