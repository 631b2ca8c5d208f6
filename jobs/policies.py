"""How long the rows of a table are kept, and what becomes of them then.

A policy is written as it is read: ``delete after 180d``, ``archive after 365d``, or ``keep``.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple

from sqlalchemy import Column, ColumnElement, Table, and_

from jobs.schema import archived_records, audit_log, job_items, notifications, outbox, reports

_POLICY: Final = re.compile(r"(delete|archive) after ([0-9]{1,5})d")


class Action(StrEnum):
    """What becomes of a row that is too old."""

    DELETE = "delete"
    #: It is copied into ``archived_records``, and deleted.
    ARCHIVE = "archive"


class Policy(NamedTuple):
    """What is done with the rows of a table, and after how many days of 24 hours."""

    action: Action
    keep_days: int


class Source(NamedTuple):
    """A table that may have a policy."""

    table: Table
    #: The column that tells how old a row is.
    at: Column[datetime]
    #: Which rows may go at all.
    finished: tuple[ColumnElement[bool], ...] = ()

    def older(self, than: datetime) -> ColumnElement[bool]:
        """Choose the rows that are older; one that is exactly as old is not."""
        return and_(self.at < than, *self.finished)


SOURCES: Final = {
    "notifications": Source(
        notifications, notifications.c.created_at, (notifications.c.state != "new",)
    ),
    "outbox": Source(
        outbox, outbox.c.created_at, (outbox.c.status.in_(["sent", "dead", "cancelled"]),)
    ),
    "reports": Source(reports, reports.c.created_at),
    "archived_records": Source(archived_records, archived_records.c.archived_at),
    "job_items": Source(job_items, job_items.c.slot, (job_items.c.state == "done",)),
    "audit_log": Source(audit_log, audit_log.c.created_at),
}
"""By the name of the table: nothing else is ever touched."""


def read_policy(text: str) -> Policy | None:
    """Read a policy; ``None`` for ``keep``. Raises ``ValueError``."""
    if text == "keep":
        return None
    found = _POLICY.fullmatch(text)
    if found is None or int(found[2]) < 1:
        msg = f"expected keep, or such as `delete after 180d` or `archive after 1d`, got {text!r}"
        raise ValueError(msg)
    return Policy(Action(found[1]), int(found[2]))


def read_deletion(text: str) -> Policy | None:
    """Read the policy of the archive, which is not archived once more. Raises ``ValueError``."""
    policy = read_policy(text)
    if policy is not None and policy.action is Action.ARCHIVE:
        msg = f"expected keep, or such as `delete after 2555d`, got {text!r}"
        raise ValueError(msg)
    return policy


def cutoff(slot: datetime, keep_days: int) -> datetime:
    """Return the instant before which rows are too old."""
    return slot - timedelta(days=keep_days)


def as_json(value: Any) -> Any:  # noqa: ANN401 - what a column holds
    """Write a date or an instant in ISO 8601, and leave the rest as it is."""
    return value.isoformat() if hasattr(value, "isoformat") else value
