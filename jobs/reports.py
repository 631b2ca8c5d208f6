"""Figures of the days that are over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import ColumnElement, func, insert, select, true, update

from cronrunner import Option, job
from jobs.local_time import Window, local_date, local_day
from jobs.schema import audit_log, exchanges, metric_values, notifications, outbox, work_items

if TYPE_CHECKING:
    from cronrunner import JobContext


class Measure(NamedTuple):
    """What is counted: the rows that meet a condition, on the day that ``dated_by`` gives."""

    dated_by: ColumnElement[object]
    condition: ColumnElement[bool] = true()


_IS_ACTION: Final = work_items.c.kind == "action"
_IS_CASE: Final = work_items.c.kind == "case"

MEASURES: Final[Mapping[str, Measure]] = {
    # Not from user_sessions, which are deleted before the day is counted.
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


@job(
    schedule="0 1 * * *",
    retries=2,
    options={
        "backfill_days": Option(
            7, help="how many days before yesterday to fill in", minimum=0, maximum=366
        ),
    },
)
def aggregate_metrics(ctx: JobContext) -> Mapping[str, int]:
    """Count what happened yesterday, and on earlier days that lack a figure.

    Days are the tenant's own. The figures are ``logins``, ``actions_opened``, ``actions_closed``,
    ``cases_opened``, ``cases_closed``, ``notifications_created``, ``messages_sent``,
    ``audit_events`` and ``exchanges_completed``, each a row of ``metric_values`` under the ISO
    date. A figure that is right already is not written again.

    Counters:
      days: days that were counted
      written: figures that were not there before
      updated: figures that had another value
      unchanged: figures that were right already
      errors: items that could not be done

    From: Risk Legion: metric aggregation
    """
    counters = {"days": 0, "written": 0, "updated": 0, "unchanged": 0, "errors": 0}
    for day in _days_to_count(ctx):
        known = _known(ctx, day)
        window = local_day(day, ctx.tenant.timezone)
        counters["days"] += 1
        for metric, measure in MEASURES.items():
            value = _count(ctx, measure, window)
            counters[_keep(ctx, metric, day, value, known.get(metric))] += 1
    return counters


def _days_to_count(ctx: JobContext) -> Iterator[date]:
    """Yield yesterday, then the days before it that lack a metric."""
    yesterday = local_date(ctx.slot, ctx.tenant.timezone) - timedelta(days=1)
    yield yesterday
    for back in range(1, ctx.options["backfill_days"] + 1):
        day = yesterday - timedelta(days=back)
        if not MEASURES.keys() <= _known(ctx, day).keys():
            yield day


def _known(ctx: JobContext, day: date) -> dict[str, int]:
    kept = select(metric_values.c.metric, metric_values.c.value).where(
        metric_values.c.bucket == day.isoformat()
    )
    return {row.metric: row.value for row in ctx.connection.execute(kept)}


def _count(ctx: JobContext, measure: Measure, window: Window) -> int:
    counted = select(func.count()).where(
        measure.dated_by >= window.start, measure.dated_by < window.end, measure.condition
    )
    return ctx.connection.scalar(counted) or 0


def _keep(ctx: JobContext, metric: str, day: date, value: int, known: int | None) -> str:
    """Store a figure unless it is stored already; return the counter that says what was done."""
    if known == value:
        return "unchanged"
    row = {"metric": metric, "bucket": day.isoformat()}
    figure = {"value": value, "as_of": ctx.slot}
    if known is None:
        ctx.connection.execute(insert(metric_values).values(**row, **figure))
        return "written"
    ctx.connection.execute(update(metric_values).filter_by(**row).values(figure))
    return "updated"
