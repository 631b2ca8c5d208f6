"""Whether a tenant keeps its promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Row, Select, and_, insert, or_, select, update

from cronrunner import Option, job
from jobs.batches import ids_in_batches
from jobs.local_time import local_date
from jobs.schema import notifications, users, work_items
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

    An action that is due today is not late, and one without a due date never is. A flagged
    action is left alone from then on, so that running a slot again changes nothing.
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
