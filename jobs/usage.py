"""How much a tenant was used in a month."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Column, func, select

from cronrunner import Option, job
from jobs.audience import tell_admins
from jobs.filing import file_report, is_filed
from jobs.local_time import Window
from jobs.measures import MEASURES, Measure, count, within
from jobs.outbox import enqueue, is_address
from jobs.schema import audit_log, outbox, users

if TYPE_CHECKING:
    from cronrunner import JobContext

_LOGINS: Final = MEASURES["logins"]
_COUNTED: Final = {
    "logins": _LOGINS,
    "new_users": Measure(users.c.created_at),
    "actions_closed": MEASURES["actions_closed"],
    "cases_opened": MEASURES["cases_opened"],
    "audit_events": MEASURES["audit_events"],
}
_MOST_ACTIONS: Final = 5
#: What each tenant counts, and the fleet's table has columns for.
_COLUMNS: Final = ("logins", "users", "audit_events")


def fleet_table(ctx: JobContext) -> Mapping[str, int]:
    """Send the figures of all tenants, as CSV, to whoever shall have them."""
    month, _ = last_month(ctx.slot)
    totals = Counter(dict.fromkeys(("tenants", *_COLUMNS), 0))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["tenant", "outcome", *_COLUMNS])
    for row in ctx.results():
        counted = row["counters"]
        # A tenant that has failed has counted nothing, which is not 0.
        figures = [counted.get(name, "") for name in _COLUMNS]
        table.writerow([row["tenant"], row["outcome"], *figures])
        totals.update({name: counted.get(name, 0) for name in _COLUMNS}, tenants=1)
    ctx.log.info("usage.fleet", month=month, **totals)
    messages = 0
    if recipient := ctx.options["fleet_report_to"]:
        key, subject = f"usage:{month}:fleet", f"Usage of all tenants in {month}"
        messages += enqueue(ctx, key, "email", recipient, subject, text.getvalue())
    return {**totals, "messages": messages}


def _check_recipient(value: str) -> None:
    if value and not is_address(value):
        msg = f"expected an e-mail address, or nothing, got {value!r}"
        raise ValueError(msg)


@job(
    name="reports.usage",
    schedule="0 1 1 * *",
    retries=2,
    options={
        "fleet_report_to": Option(
            "", help="an address that gets the figures of all tenants", check=_check_recipient
        ),
    },
    summarize=fleet_table,
)
def usage(ctx: JobContext) -> Mapping[str, int]:
    """Report how much the tenant was used in the month before.

    Months are those of UTC for every tenant: when this runs, the local month has not ended yet
    west of it. The administrators get the report by e-mail. There is one for each month.

    Counters:
      logins: logins in the month
      users: different users who logged in
      audit_events: rows of the audit log
      existing: 1 if the month has its report already, and nothing was done
      messages: e-mails that were queued
      errors: always 0

    From: Risk Legion: usage report
    """
    counters = {"logins": 0, "users": 0, "audit_events": 0, "existing": 0, "messages": 0,
                "errors": 0}  # fmt: skip
    month, window = last_month(ctx.slot)
    if is_filed(ctx, "usage", month):
        return counters | {"existing": 1}
    figures = _figures(ctx, window)
    body = "\n".join(_lines(figures))
    file_report(ctx, "usage", month, figures, body)
    counters["messages"] = tell_admins(ctx, f"usage:{month}", f"Usage in {month}", body)
    return counters | {name: figures[name] for name in _COLUMNS}


def last_month(moment: datetime) -> tuple[str, Window]:
    """Return the month before that of ``moment``, in UTC, as `2026-02` and as instants."""
    end = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    start = (end - timedelta(days=1)).replace(day=1)
    return f"{start:%Y-%m}", Window(start, end)


def _figures(ctx: JobContext, window: Window) -> dict[str, Any]:
    figures: dict[str, Any] = {name: count(ctx, each, window) for name, each in _COUNTED.items()}
    actors = select(func.count(audit_log.c.actor_id.distinct()))
    logins = within(_LOGINS.dated_by, window), _LOGINS.condition
    figures["users"] = ctx.connection.scalar(actors.where(*logins))
    figures["messages"] = dict(_most(ctx, outbox.c.channel, MEASURES["messages_sent"], window))
    actions = _most(ctx, audit_log.c.action, MEASURES["audit_events"], window)
    figures["top_actions"] = actions[:_MOST_ACTIONS]
    return figures


def _most(
    ctx: JobContext, column: Column[str], measure: Measure, window: Window
) -> Sequence[list[Any]]:
    """Return how often each value of a column was there, the most frequent first."""
    counted = select(column, func.count()).where(within(measure.dated_by, window))
    found = ctx.connection.execute(counted.group_by(column)).all()
    return [[value, number] for value, number in sorted(found, key=lambda row: (-row[1], row[0]))]


def _lines(figures: Mapping[str, Any]) -> Iterable[str]:
    for name in (*_COUNTED, "users"):
        yield f"{name.replace('_', ' ')}: {figures[name]}"
    for channel, number in figures["messages"].items():
        yield f"messages sent by {channel}: {number}"
    for action, number in figures["top_actions"]:
        yield f"{action}: {number} times"
