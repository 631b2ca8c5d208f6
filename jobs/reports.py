"""Figures of the days that are over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from cronrunner import Option, job
from jobs.local_time import local_date, local_day
from jobs.measures import MEASURES, count
from jobs.schema import metric_values

if TYPE_CHECKING:
    from cronrunner import JobContext


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
            value = count(ctx, measure, window)
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
