"""Gift exchanges: reminders before, completion on the day, and an end of what is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Row, and_, delete, select, update

from cronrunner import Option, job
from jobs import reminders
from jobs.audience import responsible, tell
from jobs.batches import ids_in_batches
from jobs.items import Items
from jobs.legal_hold import respect_legal_hold
from jobs.local_time import local_date
from jobs.reminders import INSTANT, Reminder, reminders_of
from jobs.schema import exchange_participants, exchanges, job_items

if TYPE_CHECKING:
    from cronrunner import JobContext

#: Between two slots of `remind`: in one of them a reminder that is too late is counted.
_EVERY: Final = timedelta(minutes=15)


@job(
    schedule="*/15 * * * *",
    retries=2,
    options={
        "days": Option(
            (7, 3, 1), help="how many days before an exchange that does not say itself", minimum=1
        ),
        "grace_s": Option(
            3600, help="for how many seconds a reminder that is late is still sent", minimum=0
        ),
    },
)
def remind(ctx: JobContext) -> Mapping[str, int]:
    """Remind the participants of exchanges that have been matched.

    A reminder is due a number of days before its exchange, when the clocks in the zone of the
    exchange show the same time of day: also over a change of the clocks. An exchange may have
    days of its own, and none if its list is empty. A reminder is sent once. It is not sent when
    it is later than the grace, or when the exchange has begun. Who has withdrawn or wants no
    reminders gets none. An exchange in a zone that does not exist or with days that are no whole
    numbers from 1 cannot be done, and neither can a participant without a usable address, who
    is not tried again.

    Counters:
      due: reminders that were sent, one for each exchange and number of days
      messages: e-mails that were queued for them
      missed: reminders that are too late; each is counted in one slot only
      errors: exchanges and participants that could not be done

    From: Sneaky Klaus: reminder e-mails
    """
    items = Items(ctx)
    counters = {"due": 0, "messages": 0, "missed": 0}
    grace = timedelta(seconds=ctx.options["grace_s"])
    for reminder in _reminders(ctx, items):
        late = ctx.slot - reminder.at
        if not timedelta() <= late <= grace + _EVERY or items.is_done(reminder.key):
            continue
        if late > grace:
            counters["missed"] += 1
        elif ctx.slot < reminder.exchange.exchange_at:
            counters["due"] += 1
            counters["messages"] += reminders.send(ctx, items, reminder)
    # Participants come up once only: what was wrong with them is kept.
    items.forget_absent(~job_items.c.item.contains(":"))
    return counters | {"errors": items.errors}


@job(schedule="0 0 * * *", retries=2)
def auto_complete(ctx: JobContext) -> Mapping[str, int]:
    """Complete the matched exchanges whose time has come.

    Drafts and exchanges that are still open stay as they are, however long ago they were to be.

    Counters:
      completed: exchanges that were completed
      errors: exchanges that could not be done

    From: Sneaky Klaus: auto-complete exchanges
    """
    items = Items(ctx)
    completed = 0
    over = and_(exchanges.c.state == "matched", exchanges.c.exchange_at <= ctx.slot)
    change = update(exchanges).values(state="completed", completed_at=ctx.slot)
    for exchange in _each(ctx, over):
        with items.attempt(str(exchange.id)):
            done = change.where(exchanges.c.id == exchange.id, over)
            completed += ctx.connection.execute(done).rowcount
    items.forget_absent()
    return {"completed": completed, "errors": items.errors}


@job(
    schedule="0 2 * * *",
    retries=2,
    options={
        "keep_days": Option(
            30, help="for how many days a completed exchange is kept", minimum=1, maximum=36500
        ),
        "warn_days": Option(
            7,
            help="how many days before that somebody is warned; 0 for never",
            minimum=0,
            maximum=36500,
        ),
    },
)
def purge(ctx: JobContext) -> Mapping[str, int]:
    """Delete exchanges that were completed long ago, with their participants.

    Days are 24 hours. Some days before, the exchange's administrator is warned once, or the
    tenant's if that one is not active or has no usable address; where there is nobody, it is
    tried again on the next day. A completed exchange without a date cannot be done. A tenant
    labelled ``legal_hold: "true"`` is skipped.

    Counters:
      purged: exchanges that were deleted
      participants: participants that were deleted with them
      warned: exchanges of whose end somebody was warned
      errors: exchanges that could not be done

    From: Sneaky Klaus: data purge and its warning
    """
    respect_legal_hold(ctx)
    items = Items(ctx)
    counters = {"purged": 0, "participants": 0, "warned": 0}
    for exchange in _each(ctx, exchanges.c.state == "completed"):
        with items.attempt(str(exchange.id)):
            for counter, number in _age(ctx, items, exchange).items():
                counters[counter] += number
    items.forget_absent()
    return counters | {"errors": items.errors}


def _each(ctx: JobContext, condition: ColumnElement[bool]) -> Iterator[Row[Any]]:
    for ids in ids_in_batches(ctx.connection, exchanges, condition):
        chosen = select(exchanges).where(exchanges.c.id.in_(ids), condition)
        for exchange in ctx.connection.execute(chosen.order_by(exchanges.c.id)).all():
            ctx.check()
            yield exchange


def _reminders(ctx: JobContext, items: Items) -> Iterator[Reminder]:
    for exchange in _each(ctx, exchanges.c.state == "matched"):
        found: list[Reminder] = []
        with items.attempt(str(exchange.id)):
            found = reminders_of(exchange, ctx.options["days"])
        yield from found


def _age(ctx: JobContext, items: Items, exchange: Row[Any]) -> Mapping[str, int]:
    """Delete an exchange, or warn that it will be, or neither; return what was done."""
    if exchange.completed_at is None:
        msg = "expected a completed exchange to have completed_at, got none"
        raise ValueError(msg)
    keep = timedelta(days=ctx.options["keep_days"])
    if exchange.completed_at <= ctx.slot - keep:
        return {"purged": 1, "participants": _delete(ctx, exchange.id)}
    is_near = exchange.completed_at <= ctx.slot - keep + timedelta(days=ctx.options["warn_days"])
    return {"warned": int(is_near and _warn(ctx, items, exchange, keep))}


def _warn(ctx: JobContext, items: Items, exchange: Row[Any], keep: timedelta) -> bool:
    """Announce the end of an exchange once; tell whether it was now."""
    key = f"warn:{exchange.id}:{exchange.completed_at.strftime(INSTANT)}"
    recipients = [] if items.is_done(key) else responsible(ctx, exchange.admin_id)
    if recipients:
        ends_on = local_date(exchange.completed_at + keep, ctx.tenant.timezone)
        subject = f"{exchange.name} will be deleted on {ends_on.isoformat()}"
        tell(ctx, recipients, f"purge:{key}", subject, f"{subject}, with all of its participants.")
        items.mark(key)
    return bool(recipients)


def _delete(ctx: JobContext, exchange_id: int) -> int:
    """Delete an exchange; return how many participants it had."""
    ctx.log.info("exchange.purging", exchange=exchange_id)
    own = exchange_participants.c.exchange_id == exchange_id
    deleted = ctx.connection.execute(delete(exchange_participants).where(own))
    ctx.connection.execute(delete(exchanges).where(exchanges.c.id == exchange_id))
    return deleted.rowcount
