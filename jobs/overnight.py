"""What somebody who comes to work wants to know of the day before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Row, func, select

from cronrunner import Option, job
from jobs.audience import leaders, tell
from jobs.filing import file_report, is_filed
from jobs.local_time import Window, local_date, local_day
from jobs.measures import (
    IS_OPEN_CASE,
    IS_OVERDUE_ACTION,
    MEASURES,
    count,
    count_rows,
    within,
)
from jobs.schema import outbox, users, work_items

if TYPE_CHECKING:
    from cronrunner import JobContext

_FIGURES: Final = ("opened", "closed", "unassigned", "overdue", "dead")
_WELL: Final = ("succeeded", "skipped")
_MOST_OVERDUE: Final = 5
_MOST_FAILED: Final = 20


def fleet_totals(ctx: JobContext) -> Mapping[str, int]:
    """Log the figures of all tenants together, who has most overdue, and who failed."""
    totals = Counter(dict.fromkeys(_FIGURES, 0))
    overdue: Counter[str] = Counter()
    failed: list[str] = []
    for row in ctx.results():
        totals.update({name: row["counters"].get(name, 0) for name in _FIGURES})
        overdue[row["tenant"]] = row["counters"].get("overdue", 0)
        if row["outcome"] not in _WELL:
            failed.append(row["tenant"])
    ctx.log.info(
        "overnight.fleet",
        **totals,
        # Tenants come by name, and the order of those with equally many stays.
        most_overdue=dict((+overdue).most_common(_MOST_OVERDUE)),
        failed=failed[:_MOST_FAILED],
    )
    return {**totals, "failed": len(failed)}


@job(
    name="reports.overnight",
    schedule="0 2 * * *",
    retries=2,
    options={
        "send_empty": Option(default=False, help="send a report in which there is nothing, too"),
    },
    summarize=fleet_totals,
)
def overnight(ctx: JobContext) -> Mapping[str, int]:
    """Report what happened yesterday, and what waits for somebody.

    Yesterday is the tenant's own, from midnight to midnight: cases that were opened and closed,
    and messages of that day which were given up. Unassigned open cases and the overdue open
    actions of each owner are those of now; overdue is what has the flag. Administrators and
    managers get the report by e-mail, unless there is nothing in it. There is one for each day.

    Counters:
      opened: cases that were opened
      closed: cases that were closed
      unassigned: open cases of nobody
      overdue: open actions that are overdue
      dead: messages that were given up
      messages: e-mails that were queued
      existing: 1 if the day has its report already, and nothing was done
      errors: always 0

    From: Orchid cronapp: overnight reports
    """
    counters = dict.fromkeys((*_FIGURES, "messages", "existing", "errors"), 0)
    day = local_date(ctx.slot, ctx.tenant.timezone) - timedelta(days=1)
    period = day.isoformat()
    if is_filed(ctx, "overnight", period):
        return counters | {"existing": 1}
    owners = _overdue_by_owner(ctx)
    figures = _figures(ctx, local_day(day, ctx.tenant.timezone))
    figures["overdue"] = sum(owner.actions for owner in owners)
    body = "\n".join(_lines(figures, owners))
    summary = figures | {
        "overdue_by_owner": {str(each.owner_id or ""): each.actions for each in owners}
    }
    file_report(ctx, "overnight", period, summary, body)
    if any(figures.values()) or ctx.options["send_empty"]:
        counters["messages"] = tell(
            ctx, leaders(ctx), f"overnight:{period}", f"Report of {period}", body
        )
    return counters | figures


def _figures(ctx: JobContext, window: Window) -> dict[str, int]:
    died = within(outbox.c.created_at, window)
    return {
        "opened": count(ctx, MEASURES["cases_opened"], window),
        "closed": count(ctx, MEASURES["cases_closed"], window),
        "unassigned": count_rows(ctx, IS_OPEN_CASE, work_items.c.owner_id.is_(None)),
        "dead": count_rows(ctx, outbox.c.status == "dead", died),
    }


def _overdue_by_owner(ctx: JobContext) -> Sequence[Row[Any]]:
    """Return how many overdue actions each owner has, nobody being one of them."""
    actions = func.count().label("actions")
    chosen = (
        select(work_items.c.owner_id, users.c.name, actions)
        .select_from(work_items.outerjoin(users))
        .where(IS_OVERDUE_ACTION)
        .group_by(work_items.c.owner_id, users.c.name)
    )
    found = ctx.connection.execute(chosen).all()
    return sorted(found, key=lambda row: (-row.actions, row.owner_id or 0))


def _lines(figures: Mapping[str, int], owners: Iterable[Row[Any]]) -> Iterable[str]:
    yield f"Cases opened: {figures['opened']}"
    yield f"Cases closed: {figures['closed']}"
    yield f"Cases of nobody: {figures['unassigned']}"
    yield f"Overdue actions: {figures['overdue']}"
    for owner in owners:
        yield f"- {owner.name or 'nobody'}: {owner.actions}"
    yield f"Messages given up: {figures['dead']}"
