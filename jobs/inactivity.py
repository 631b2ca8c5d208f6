"""Who has not been seen for long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import ColumnElement, and_, func, select

from cronrunner import Option, job
from jobs.audience import tell_admins
from jobs.filing import file_report, is_filed
from jobs.local_time import local_date
from jobs.measures import count_rows
from jobs.schema import users

if TYPE_CHECKING:
    from cronrunner import JobContext

#: A longer list is not read to its end.
_MOST_LINES: Final = 500
_MOST_TENANTS: Final = 20


def not_seen_since(moment: datetime) -> ColumnElement[bool]:
    """Say that a user is active, and has not logged in after ``moment`` nor was added after it."""
    seen_at = func.coalesce(users.c.last_login_at, users.c.created_at)
    return and_(users.c.status == "active", seen_at <= moment)


def tenants_by_count(ctx: JobContext) -> Mapping[str, int]:
    """Log which tenants have most inactive users."""
    counts = {row["tenant"]: row["counters"].get("inactive", 0) for row in ctx.results()}
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    some = {tenant: number for tenant, number in ordered[:_MOST_TENANTS] if number}
    ctx.log.info("inactive_users.by_tenant", most=some)
    return {
        "tenants": sum(number > 0 for number in counts.values()),
        "inactive": sum(counts.values()),
    }


@job(
    name="reports.inactive_users",
    schedule="0 0 * * 0",
    retries=2,
    options={
        "days": Option(
            90,
            help="after how many days without a login a user is inactive",
            minimum=1,
            maximum=36500,
        ),
    },
    summarize=tenants_by_count,
)
def inactive_users(ctx: JobContext) -> Mapping[str, int]:
    """Report which active users have not logged in for long.

    Days are 24 hours, counted back from the slot. Who never logged in counts from when they were
    added. There is one report for each of the tenant's days; the administrators get it by e-mail
    if it names anybody.

    Counters:
      inactive: users in the report
      never_logged_in: those among them who never logged in
      existing: 1 if the day has its report already, and nothing was done
      messages: e-mails that were queued
      errors: always 0

    From: Risk Legion: inactive user report
    """
    counters = {"inactive": 0, "never_logged_in": 0, "existing": 0, "messages": 0, "errors": 0}
    period = local_date(ctx.slot, ctx.tenant.timezone).isoformat()
    if is_filed(ctx, "inactive_users", period):
        return counters | {"existing": 1}
    inactive = not_seen_since(ctx.slot - timedelta(days=ctx.options["days"]))
    found = {
        "inactive": count_rows(ctx, inactive),
        "never_logged_in": count_rows(ctx, inactive, users.c.last_login_at.is_(None)),
    }
    body = "\n".join(_lines(ctx, inactive, found["inactive"]))
    file_report(ctx, "inactive_users", period, found | {"days": ctx.options["days"]}, body)
    if found["inactive"]:
        subject = f"{found['inactive']} inactive users"
        counters["messages"] = tell_admins(ctx, f"inactive_users:{period}", subject, body)
    return counters | found


def _lines(ctx: JobContext, inactive: ColumnElement[bool], number: int) -> Sequence[str]:
    zone = ctx.tenant.timezone
    chosen = select(users.c.name, users.c.email, users.c.last_login_at).where(inactive)
    lines = [
        f"{row.name} <{row.email}>, "
        + (
            f"last seen {local_date(row.last_login_at, zone)}"
            if row.last_login_at
            else "never seen"
        )
        for row in ctx.connection.execute(chosen.order_by(users.c.id).limit(_MOST_LINES))
    ]
    return [*lines, f"and {number - len(lines)} more"] if number > len(lines) else lines
