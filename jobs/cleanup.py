"""What has expired goes. See also ``cleanup_rate_limits.sql``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import ColumnElement, Table, delete

from cronrunner import job
from jobs.schema import auth_tokens, user_sessions

if TYPE_CHECKING:
    from cronrunner import JobContext

#: For how long a token that was used can still be looked at.
_USED: Final = timedelta(hours=24)


@job(schedule="0 * * * *", retries=2, transaction="batch")
def tokens(ctx: JobContext) -> Mapping[str, int]:
    """Delete tokens that have expired, or were used a day ago.

    A token goes when it ends at the slot or before, and when it was used 24 hours before the slot
    or earlier. One of which both are true counts as expired.

    Counters:
      expired: tokens that had ended
      used: tokens that had not ended and were used 24 hours ago or earlier
      errors: items that could not be done; always 0

    From: Sneaky Klaus: token cleanup
    """
    ended = auth_tokens.c.expires_at <= ctx.slot
    used = auth_tokens.c.used_at <= ctx.slot - _USED
    return {
        "expired": _delete(ctx, auth_tokens, ended, "expired"),
        "used": _delete(ctx, auth_tokens, used, "used"),
        "errors": 0,
    }


@job(schedule="0 3 * * *", retries=2, transaction="batch")
def sessions(ctx: JobContext) -> Mapping[str, int]:
    """Delete sessions of users that end at the slot or ended before.

    Counters:
      deleted: sessions that were deleted
      errors: items that could not be done; always 0

    From: Sneaky Klaus: session cleanup
    """
    ended = user_sessions.c.expires_at <= ctx.slot
    return {"deleted": _delete(ctx, user_sessions, ended, ""), "errors": 0}


def _delete(ctx: JobContext, table: Table, condition: ColumnElement[bool], name: str) -> int:
    """Delete rows in batches; return how many there were."""
    deleted = 0
    for ids in ctx.batches(table.c.id, where=condition, name=name):
        found = delete(table).where(table.c.id.in_(ids), condition)
        deleted += ctx.connection.execute(found).rowcount
    return deleted
