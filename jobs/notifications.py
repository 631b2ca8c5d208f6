"""What users are told by e-mail of what the application has noted for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Row, and_, or_, select, update

from cronrunner import Option, job
from jobs.batches import ids_in_batches
from jobs.items import Items
from jobs.local_time import time_zone
from jobs.measures import count_rows
from jobs.outbox import enqueue
from jobs.schema import notifications as notices
from jobs.schema import users

if TYPE_CHECKING:
    from cronrunner import JobContext

_COUNTERS: Final = ("messages", "queued", "suppressed", "expired", "waiting")


@job(
    schedule="*/15 * * * *",
    retries=2,
    options={
        "max_age_h": Option(72, help="a notice that is more hours old is not sent", minimum=1),
        "digest_hour": Option(
            8, help="from which hour on digests are sent, in the user's zone", minimum=0, maximum=23
        ),
    },
)
def dispatch(ctx: JobContext) -> Mapping[str, int]:
    """Send new notices: at once, or once a day to users who want a digest.

    A notice that is too old expires. One that was read, or whose user is not active or wants no
    e-mail, is suppressed. A digest holds all that has come together; it is sent once on each of
    the user's days, from the hour of digests on, and what comes later waits for the next day. A
    user without a time zone has the tenant's. A notice of a user without a usable address, or a
    digest in a zone that does not exist, cannot be done and stays new.

    Counters:
      messages: e-mails that were queued
      queued: notices that went into them
      suppressed: notices that nobody is to be told of
      expired: notices that were too old
      waiting: notices that wait for a digest
      errors: notices and digests that could not be done

    From: Orchid cronapp: notification sends
    """
    items = Items(ctx)
    counters = Counter(expired=_settle(ctx, _too_old(ctx), "expired"))
    counters["suppressed"] = _settle(ctx, _unwanted(ctx), "suppressed")
    for notice_id in _single(ctx):
        with items.attempt(f"notif:{notice_id}"):
            counters += _send_one(ctx, notice_id)
    for user in _digest_users(ctx):
        ctx.check()
        with items.attempt(f"digest:{user.id}"):
            counters += _send_digest(ctx, items, user)
    items.forget_absent()
    return {name: counters[name] for name in _COUNTERS} | {"errors": items.errors}


def _new(ctx: JobContext) -> ColumnElement[bool]:
    return and_(notices.c.state == "new", notices.c.created_at <= ctx.slot)


def _too_old(ctx: JobContext) -> ColumnElement[bool]:
    limit = ctx.slot - timedelta(hours=ctx.options["max_age_h"])
    return and_(_new(ctx), notices.c.created_at < limit)


def _unwanted(ctx: JobContext) -> ColumnElement[bool]:
    unreachable = or_(users.c.status != "active", users.c.notify_email.is_(False))
    nobody = notices.c.user_id.in_(select(users.c.id).where(unreachable))
    return and_(_new(ctx), or_(notices.c.read_at.is_not(None), nobody))


def _wanted(ctx: JobContext, *, digest: bool) -> ColumnElement[bool]:
    """Choose what is left for users who want a digest, or for those who do not."""
    readers = select(users.c.id).where(users.c.digest.is_(digest))
    return and_(_new(ctx), notices.c.read_at.is_(None), notices.c.user_id.in_(readers))


def _settle(ctx: JobContext, condition: ColumnElement[bool], state: str) -> int:
    """Give the notices that meet ``condition`` another state; return how many there were."""
    settled = 0
    for ids in ids_in_batches(ctx.connection, notices, condition):
        ctx.check()
        change = update(notices).where(notices.c.id.in_(ids), condition).values(state=state)
        settled += ctx.connection.execute(change).rowcount
    return settled


def _single(ctx: JobContext) -> Iterator[int]:
    """Yield the ids of the notices that are sent one by one."""
    for ids in ids_in_batches(ctx.connection, notices, _wanted(ctx, digest=False)):
        ctx.check()
        yield from ids


def _send_one(ctx: JobContext, notice_id: int) -> Counter[str]:
    # First its state: a notice that was read meanwhile is not sent.
    still_wanted = and_(_wanted(ctx, digest=False), notices.c.id == notice_id)
    queued = update(notices).where(still_wanted).values(state="queued")
    if not ctx.connection.execute(queued).rowcount:
        return Counter()
    chosen = select(notices.c.title, notices.c.body, users.c.email).join(users)
    notice = ctx.connection.execute(chosen.where(notices.c.id == notice_id)).one()
    key = f"notif:{notice_id}"
    is_new = enqueue(ctx, key, "email", notice.email, notice.title, notice.body)
    return Counter(queued=1, messages=int(is_new))


def _digest_users(ctx: JobContext) -> Sequence[Row[Any, Any, Any]]:
    """Return whom new notices wait for, with the zone of each."""
    waited_for = select(notices.c.user_id).where(_wanted(ctx, digest=True))
    chosen = select(users.c.id, users.c.email, users.c.timezone).where(users.c.id.in_(waited_for))
    return ctx.connection.execute(chosen.order_by(users.c.id)).all()


def _send_digest(ctx: JobContext, items: Items, user: Row[Any, Any, Any]) -> Counter[str]:
    """Send all that waits for a user in one message, once on each of the user's days."""
    local = ctx.slot.astimezone(time_zone(user.timezone or ctx.tenant.timezone))
    waiting = and_(_wanted(ctx, digest=True), notices.c.user_id == user.id)
    key = f"digest:{user.id}:{local.date().isoformat()}"
    if local.hour < ctx.options["digest_hour"] or items.is_done(key):
        return Counter(waiting=count_rows(ctx, waiting))
    chosen = select(notices.c.title).where(waiting).order_by(notices.c.created_at, notices.c.id)
    titles = ctx.connection.scalars(chosen).all()
    queued = _settle(ctx, waiting, "queued")
    subject = "1 notice" if len(titles) == 1 else f"{len(titles)} notices"
    is_new = enqueue(ctx, key, "email", user.email, subject, "\n".join(titles))
    items.mark(key)
    return Counter(queued=queued, messages=int(is_new))
