"""Who is told about what happens in a tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select

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
    chosen = select(users.c.id, users.c.email).where(
        users.c.status == "active", users.c.role == "admin"
    )
    found = ctx.connection.execute(chosen.order_by(users.c.id))
    return [Recipient(id=row.id, email=row.email) for row in found if is_address(row.email)]


def tell_admins(ctx: JobContext, key: str, subject: str, body: str) -> int:
    """Queue one e-mail to each administrator; return how many were new."""
    return sum(
        enqueue(ctx, f"{key}:{admin.id}", "email", admin.email, subject, body)
        for admin in admins(ctx)
    )
