"""The figures of now, as a dashboard shows them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, and_, func, insert, or_, select, update

from cronrunner import Option, Skip, job
from jobs.inactivity import not_seen_since
from jobs.local_time import Window, local_date, local_day
from jobs.measures import IS_OPEN_ACTION, IS_OVERDUE_ACTION, count_rows, within
from jobs.schema import (
    compliance_snapshots,
    expiring_assets,
    integrations,
    metric_values,
    outbox,
    reports,
    users,
)

if TYPE_CHECKING:
    from cronrunner import JobContext

Tile = Callable[["JobContext"], object]

_CALENDAR: Final = ("hourly", "daily", "weekly")
_HOURS: Final = re.compile(r"[1-9]\d{0,3}h")
_INACTIVE_AFTER: Final = timedelta(days=90)
_EXPIRING_WITHIN: Final = timedelta(days=30)


def _check_interval(value: str) -> None:
    if value not in _CALENDAR and not _HOURS.fullmatch(value):
        msg = f"expected hourly, daily, weekly, or hours such as 6h, got {value!r}"
        raise ValueError(msg)


@job(
    name="reports.update_dashboard",
    schedule="5 * * * *",
    retries=2,
    options={
        "interval": Option(
            "hourly",
            help="how often the tiles are new: hourly, daily, weekly, or hours such as 6h",
            environment="DASHBOARD_UPDATE_INTERVAL",
            check=_check_interval,
        ),
    },
)
def update_dashboard(ctx: JobContext) -> Mapping[str, int]:
    """Keep what the tiles of the dashboard show now.

    Every tile is written each time, with the slot as the instant it is of. Hours are those of
    UTC, days and ISO weeks the tenant's. In an hour, day or week that has its tiles already the
    tenant is skipped.

    Counters:
      tiles: tiles that were written
      changed: those that show something else than before
      errors: always 0

    From: AgencyStack: dashboard update
    """
    newest = ctx.connection.scalar(select(func.max(metric_values.c.as_of)).where(_is_tile()))
    if newest is not None and _bucket(ctx, newest) >= _bucket(ctx, ctx.slot):
        raise Skip("not due")
    known = _known(ctx)
    changed = 0
    for metric, tile in TILES.items():
        value = tile(ctx)
        changed += metric not in known or known[metric] != value
        _keep(ctx, metric, value, is_new=metric not in known)
    return {"tiles": len(TILES), "changed": changed, "errors": 0}


def _bucket(ctx: JobContext, moment: datetime) -> tuple[int, ...]:
    """Return the stretch of time that ``moment`` is in; later ones are greater."""
    day = local_date(moment, ctx.tenant.timezone)
    hours = int(moment.timestamp()) // 3600
    match ctx.options["interval"]:
        case "hourly":
            return (hours,)
        case "daily":
            return (day.toordinal(),)
        case "weekly":
            return day.isocalendar()[:2]
        case hourly:
            return (hours // int(hourly.removesuffix("h")),)


def _is_tile() -> ColumnElement[bool]:
    return and_(metric_values.c.bucket == "current", metric_values.c.metric.in_(TILES))


def _known(ctx: JobContext) -> dict[str, Any]:
    kept = select(metric_values.c.metric, metric_values.c.value).where(_is_tile())
    return {row.metric: row.value for row in ctx.connection.execute(kept)}


def _keep(ctx: JobContext, metric: str, value: object, *, is_new: bool) -> None:
    row = {"metric": metric, "bucket": "current"}
    figure = {"value": value, "as_of": ctx.slot}
    if is_new:
        ctx.connection.execute(insert(metric_values).values(**row, **figure))
    else:
        ctx.connection.execute(update(metric_values).filter_by(**row).values(figure))


def _controls(ctx: JobContext) -> Mapping[str, int]:
    """Count the controls by status, as the latest snapshot has them."""
    snapshot = compliance_snapshots.c
    latest = select(snapshot.statuses).where(snapshot.slot <= ctx.slot)
    statuses = ctx.connection.scalar(latest.order_by(snapshot.slot.desc()).limit(1))
    return Counter((statuses or {}).values())


def _assets_expiring(ctx: JobContext) -> int:
    """Count what ends today or within the days after it, in the tenant's calendar."""
    zone, asset = ctx.tenant.timezone, expiring_assets.c
    first = local_date(ctx.slot, zone)
    last = first + _EXPIRING_WITHIN
    window = Window(local_day(first, zone).start, local_day(last, zone).end)
    by_date = and_(asset.expires_at.is_(None), asset.expires_on.between(first, last))
    ends = or_(within(asset.expires_at, window), by_date)
    return count_rows(ctx, asset.cancelled_at.is_(None), ends)


def _health(ctx: JobContext) -> Mapping[str, Any]:
    """Return what the latest health check found."""
    latest = select(reports.c.summary).where(reports.c.kind == "health", reports.c.slot <= ctx.slot)
    return ctx.connection.scalar(latest.order_by(reports.c.slot.desc()).limit(1)) or {}


TILES: Final[Mapping[str, Tile]] = {
    "users_active": lambda ctx: count_rows(ctx, users.c.status == "active"),
    "users_inactive": lambda ctx: count_rows(ctx, not_seen_since(ctx.slot - _INACTIVE_AFTER)),
    "actions_open": lambda ctx: count_rows(ctx, IS_OPEN_ACTION),
    "actions_overdue": lambda ctx: count_rows(ctx, IS_OVERDUE_ACTION),
    "controls": _controls,
    "assets_expiring_30": _assets_expiring,
    "outbox_pending": lambda ctx: count_rows(ctx, outbox.c.status == "pending"),
    "outbox_dead": lambda ctx: count_rows(ctx, outbox.c.status == "dead"),
    "integrations_bad": lambda ctx: count_rows(
        ctx, integrations.c.enabled.is_(True), integrations.c.state != "ok"
    ),
    "health": _health,
}
"""Each tile and what it shows."""
