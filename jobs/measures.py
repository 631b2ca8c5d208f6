"""What is counted of a day, a month, or any other stretch of time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, and_, func, select, true

from jobs.local_time import Window
from jobs.schema import audit_log, exchanges, notifications, outbox, work_items

if TYPE_CHECKING:
    from cronrunner import JobContext


class Measure(NamedTuple):
    """What is counted: the rows that meet a condition, at the instant that ``dated_by`` gives."""

    dated_by: ColumnElement[object]
    condition: ColumnElement[bool] = true()


_IS_ACTION: Final = work_items.c.kind == "action"
_IS_CASE: Final = work_items.c.kind == "case"

MEASURES: Final[Mapping[str, Measure]] = {
    # Not from user_sessions, which are deleted before their day is counted.
    "logins": Measure(audit_log.c.created_at, audit_log.c.action == "login"),
    "actions_opened": Measure(work_items.c.opened_at, _IS_ACTION),
    "actions_closed": Measure(work_items.c.closed_at, _IS_ACTION),
    "cases_opened": Measure(work_items.c.opened_at, _IS_CASE),
    "cases_closed": Measure(work_items.c.closed_at, _IS_CASE),
    "notifications_created": Measure(notifications.c.created_at),
    "messages_sent": Measure(outbox.c.sent_at),
    "audit_events": Measure(audit_log.c.created_at),
    "exchanges_completed": Measure(exchanges.c.completed_at),
}
"""Each metric that is kept for each day."""

IS_OPEN_ACTION: Final = and_(_IS_ACTION, work_items.c.status.in_(["created", "in_progress"]))
#: As flagged: a completed action keeps its flag.
IS_OVERDUE_ACTION: Final = and_(IS_OPEN_ACTION, work_items.c.is_overdue.is_(True))
IS_OPEN_CASE: Final = and_(_IS_CASE, work_items.c.status.in_(["open", "active"]))


def count(ctx: JobContext, measure: Measure, window: Window) -> int:
    """Return how many rows of a measure are dated within ``window``."""
    return count_rows(ctx, within(measure.dated_by, window), measure.condition)


def count_rows(ctx: JobContext, *conditions: ColumnElement[bool]) -> int:
    """Return how many rows meet all of ``conditions``, which are about one table."""
    return ctx.connection.scalar(select(func.count()).where(*conditions)) or 0


def within(dated_by: ColumnElement[Any], window: Window) -> ColumnElement[bool]:
    """Say that an instant is in ``window``."""
    return and_(dated_by >= window.start, dated_by < window.end)
