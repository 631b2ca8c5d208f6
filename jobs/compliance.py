"""Whether a tenant keeps its promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Row, Select, and_, func, insert, or_, select, update

from cronrunner import Option, job
from jobs.batches import ids_in_batches
from jobs.drift import OF_WINDOWS, STATUSES, Change, add_up, assess, compare, count, of_windows
from jobs.items import Items
from jobs.local_time import local_date
from jobs.outbox import enqueue
from jobs.schema import (
    compliance_snapshots,
    control_evidence,
    framework_controls,
    notifications,
    users,
    work_items,
)
from jobs.wording import shorten

if TYPE_CHECKING:
    from cronrunner import JobContext


@job(
    schedule="0 0 * * *",
    retries=2,
    options={
        "notify": Option(default=False, help="write a notice to the owner of each flagged action"),
        "date_basis": Option(
            "tenant", help="whose date it is: the tenant's or UTC's", choices=("tenant", "utc")
        ),
    },
)
def overdue_actions(ctx: JobContext) -> Mapping[str, int]:
    """Flag the open actions whose due date has passed.

    An action that is ``created`` or ``in_progress``, whose due date is before today and which has
    no flag gets ``is_overdue``, ``overdue_since`` (today) and ``updated_at`` (the slot). One that
    is due today is not late, and one without a due date never is. A flagged action is left alone
    from then on, so that running a slot again changes nothing.

    Counters:
      flagged: actions that got the flag
      notified: notices written, to the active owners of these actions
      no_owner: flagged actions whose owner is not active or not there, when notices are wanted
      errors: items that could not be done

    From: Risk Legion: overdue action check
    """
    today = _today(ctx)
    late = _late(today)
    counters = {"flagged": 0, "notified": 0, "no_owner": 0, "errors": 0}
    for ids in ids_in_batches(ctx.connection, work_items, late):
        flag = update(work_items).where(work_items.c.id.in_(ids), late)
        flagged = ctx.connection.execute(
            flag.values(is_overdue=True, overdue_since=today, updated_at=ctx.slot)
        )
        counters["flagged"] += flagged.rowcount
        if ctx.options["notify"]:
            owned, unowned = _by_owner(ctx, ids)
            _notify(ctx, owned)
            counters["notified"] += len(owned)
            counters["no_owner"] += len(unowned)
    return counters


def _today(ctx: JobContext) -> date:
    zone = "UTC" if ctx.options["date_basis"] == "utc" else ctx.tenant.timezone
    return local_date(ctx.slot, zone)


def _late(today: date) -> ColumnElement[bool]:
    item = work_items.c
    return and_(
        item.kind == "action",
        item.status.in_(["created", "in_progress"]),
        item.due_date < today,
        or_(item.is_overdue.is_(None), item.is_overdue.is_(False)),
    )


def _by_owner(ctx: JobContext, ids: Sequence[int]) -> tuple[list[Row[Any]], list[Row[Any]]]:
    """Part the flagged actions into those with an active owner and the others."""
    rows = ctx.connection.execute(_flagged(ids)).all()
    return [row for row in rows if row.owner_id], [row for row in rows if not row.owner_id]


def _flagged(ids: Sequence[int]) -> Select[Any]:
    """Choose those of ``ids`` that have the flag; what was completed meanwhile has none."""
    return (
        select(work_items.c.title, work_items.c.due_date, users.c.id.label("owner_id"))
        .outerjoin(users, and_(users.c.id == work_items.c.owner_id, users.c.status == "active"))
        .where(work_items.c.id.in_(ids), work_items.c.is_overdue.is_(True))
        .order_by(work_items.c.id)
    )


def _notify(ctx: JobContext, flagged: Sequence[Row[Any]]) -> None:
    notices = [
        {
            "user_id": action.owner_id,
            "kind": "overdue",
            "title": shorten(f"Overdue: {action.title}", 300),
            "body": f"{action.title} was due on {action.due_date.isoformat()}.",
            "state": "new",
            "created_at": ctx.slot,
        }
        for action in flagged
    ]
    if notices:
        ctx.connection.execute(insert(notifications), notices)


_COUNTERS: Final = (
    "controls", "baseline", "regressions", "critical", "high", "medium", "improvements", "added",
    "removed", "alerts", "errors", *OF_WINDOWS,
)  # fmt: skip


@job(
    schedule="0 9 * * 1",
    retries=2,
    summarize=add_up,
    options={
        "alert_email": Option((), help="addresses that are told of critical regressions"),
        "slack_webhook": Option("", help="a webhook of Slack that is told of them"),
    },
)
def drift_snapshot(ctx: JobContext) -> Mapping[str, int]:
    """Keep the state of each control, and what has changed since the last time.

    Of a control that is not retired the newest evidence counts that was collected by the slot.
    None makes it ``not_assessed``, fail ``non_compliant``, warning ``warning``, pass ``compliant``;
    a pass whose ``valid_until`` lies before today, in the tenant's zone, is a warning. A result
    that is not known is an error of its item, and the control keeps the state it had.

    The states are compared with those of the latest snapshot before the slot. To become compliant,
    or a warning after non_compliant, is an improvement. Everything else is a regression: critical
    when it is non_compliant now, high for a warning, medium when it is not_assessed any more. A
    control that was not there before is added, one that is retired or gone is removed. Critical
    regressions are logged as errors, and listed in one message to each recipient there is.

    A slot has one snapshot: when it is there, nothing is done and every counter is 0. After the
    fan-out the regressions and improvements of the fleet in the 7, 30 and 90 days up to the slot
    are logged.

    Counters:
      controls: controls that are in use
      baseline: 1 when there was nothing to compare with, and nothing is called a change
      regressions: controls that have got worse
      critical: of these, those that are non_compliant now
      high: of these, those that are a warning now
      medium: of these, those that are not_assessed any more
      improvements: controls that have got better
      added: controls that were not in the snapshot before
      removed: controls that were in it, and are retired or gone
      alerts: messages queued
      errors: controls with an unknown result, and addresses that are none
      regressions_7d: regressions of the 7 days up to the slot
      improvements_7d: improvements of these days
      regressions_30d: regressions of 30 days
      improvements_30d: improvements of 30 days
      regressions_90d: regressions of 90 days
      improvements_90d: improvements of 90 days

    From: OpsDeck: compliance drift snapshot
    """
    counters = dict.fromkeys(_COUNTERS, 0)
    if _has_snapshot(ctx):
        return counters
    items = Items(ctx)
    earlier = _latest_statuses(ctx)
    statuses = _assess_all(ctx, items, earlier or {})
    changes = [] if earlier is None else compare(earlier, statuses)
    _keep_snapshot(ctx, statuses, changes)
    counters |= count(changes)
    counters |= {"controls": len(statuses), "baseline": int(earlier is None)}
    counters["alerts"] = _alert(ctx, items, changes)
    counters |= of_windows(ctx)
    return counters | {"errors": items.errors}


def _has_snapshot(ctx: JobContext) -> bool:
    snapshot = compliance_snapshots.c
    return ctx.connection.scalar(select(snapshot.id).where(snapshot.slot == ctx.slot)) is not None


def _latest_statuses(ctx: JobContext) -> Mapping[str, str] | None:
    snapshot = compliance_snapshots.c
    before = select(snapshot.statuses).where(snapshot.slot < ctx.slot)
    found: Mapping[str, str] | None = ctx.connection.scalar(
        before.order_by(snapshot.slot.desc()).limit(1)
    )
    return found


def _assess_all(ctx: JobContext, items: Items, earlier: Mapping[str, str]) -> dict[str, str]:
    today = local_date(ctx.slot, ctx.tenant.timezone)
    statuses: dict[str, str] = {}
    for control in ctx.connection.execute(_controls(ctx)).all():
        key = str(control.id)
        statuses[key] = earlier.get(key, "not_assessed")
        with items.attempt(key):
            statuses[key] = assess(control.result, control.valid_until, today)
    return statuses


def _controls(ctx: JobContext) -> Select[Any]:
    """Choose the controls in use, each with its newest evidence."""
    evidence = control_evidence.c
    place = func.row_number().over(
        partition_by=evidence.control_id,
        order_by=[evidence.collected_at.desc(), evidence.id.desc()],
    )
    newest = (
        select(evidence.control_id, evidence.result, evidence.valid_until, place.label("place"))
        .where(evidence.collected_at <= ctx.slot)
        .subquery()
    )
    control = framework_controls.c
    return (
        select(control.id, newest.c.result, newest.c.valid_until)
        .outerjoin(newest, and_(newest.c.control_id == control.id, newest.c.place == 1))
        .where(control.retired.is_(False))
        .order_by(control.id)
    )


def _keep_snapshot(ctx: JobContext, statuses: Mapping[str, str], changes: Sequence[Change]) -> None:
    counts = dict.fromkeys(STATUSES, 0) | Counter(statuses.values())
    snapshot = {"slot": ctx.slot, "statuses": statuses, "changes": changes, "counts": counts}
    ctx.connection.execute(insert(compliance_snapshots).values(snapshot))


def _alert(ctx: JobContext, items: Items, changes: Sequence[Change]) -> int:
    """Log critical regressions, and queue one message that lists them to each recipient."""
    critical = [change for change in changes if change["severity"] == "critical"]
    for change in critical:
        ctx.log.error("compliance.critical", control_id=change["control_id"], was=change["old"])
    queued = 0
    for place, (channel, recipient) in enumerate(_recipients(ctx) if critical else ()):
        key = f"drift:{ctx.slot:%Y-%m-%dT%H:%M:%SZ}:{place}"
        subject = f"{ctx.tenant.name}: {len(critical)} controls are no longer met"
        with items.attempt(f"alert:{place}"):
            queued += enqueue(ctx, key, channel, recipient, subject, _list(ctx, critical))
    return queued


def _recipients(ctx: JobContext) -> Iterator[tuple[str, str]]:
    yield from (("email", address) for address in dict.fromkeys(ctx.options["alert_email"]))
    if ctx.options["slack_webhook"]:
        yield "slack", ctx.options["slack_webhook"]


def _list(ctx: JobContext, critical: Sequence[Change]) -> str:
    was = {change["control_id"]: change["old"] for change in critical}
    control = framework_controls.c
    rows = ctx.connection.execute(
        select(control.id, control.framework_code, control.control_code, control.title)
        .where(control.id.in_(was))
        .order_by(control.id)
    )
    return "\n".join(
        f"{row.framework_code} {row.control_code} {row.title}: was {was[row.id]}" for row in rows
    )
