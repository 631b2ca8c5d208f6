"""Who is told about what happens in a tenant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import ColumnElement, select

from jobs.outbox import enqueue, is_address
from jobs.schema import users

if TYPE_CHECKING:
    from cronrunner import JobContext


class Recipient(NamedTuple):
    """A user who can be written to."""

    id: int
    email: str


def admins(ctx: JobContext) -> list[Recipient]:
    """Return the active administrators who have a usable e-mail address, by id."""
    return _active(ctx, users.c.role == "admin")


def leaders(ctx: JobContext) -> list[Recipient]:
    """Return the active administrators and managers who have a usable address, by id."""
    return _active(ctx, users.c.role.in_(["admin", "manager"]))


def responsible(ctx: JobContext, user_id: int | None) -> list[Recipient]:
    """Return the user, or the administrators when there is none who can be written to."""
    own = [] if user_id is None else _active(ctx, users.c.id == user_id)
    return own or admins(ctx)


def tell(
    ctx: JobContext, recipients: Iterable[Recipient], key: str, subject: str, body: str
) -> int:
    """Queue one e-mail to each of ``recipients``; return how many were new."""
    return sum(
        enqueue(ctx, f"{key}:{each.id}", "email", each.email, subject, body) for each in recipients
    )


def tell_admins(ctx: JobContext, key: str, subject: str, body: str) -> int:
    """Queue one e-mail to each administrator; return how many were new."""
    return tell(ctx, admins(ctx), key, subject, body)


def _active(ctx: JobContext, condition: ColumnElement[bool]) -> list[Recipient]:
    chosen = select(users.c.id, users.c.email).where(users.c.status == "active", condition)
    found = ctx.connection.execute(chosen.order_by(users.c.id))
    return [Recipient(id=row.id, email=row.email) for row in found if is_address(row.email)]
