"""When the participants of an exchange are reminded of it, and what they are told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Row, and_, select

from jobs.items import Items
from jobs.local_time import days_before, time_zone
from jobs.outbox import enqueue
from jobs.schema import exchange_participants

if TYPE_CHECKING:
    from cronrunner import JobContext

#: How an instant is written in the key of an item.
INSTANT: Final = "%Y-%m-%dT%H:%M:%SZ"


class Reminder(NamedTuple):
    """A reminder of one exchange, a number of days before it."""

    exchange: Row[Any]
    days: int
    at: datetime

    @property
    def key(self) -> str:
        """What it is marked by: an exchange that is moved has other reminders."""
        return f"{self.exchange.id}:{self.days}:{self.at.strftime(INSTANT)}"


def reminders_of(exchange: Row[Any], usual_days: Sequence[int]) -> list[Reminder]:
    """Return the reminders of an exchange. Raises ``ValueError`` for bad days or a bad zone."""
    days = usual_days if exchange.reminder_days is None else exchange.reminder_days
    if not isinstance(days, list | tuple) or not all(
        type(each) is int and each > 0 for each in days
    ):
        msg = "expected reminder_days to be a list of whole numbers from 1"
        raise ValueError(msg)
    return [
        Reminder(exchange, each, days_before(exchange.exchange_at, each, exchange.timezone))
        for each in sorted(set(days), reverse=True)
    ]


def send(ctx: JobContext, items: Items, reminder: Reminder) -> int:
    """Queue a reminder for each participant who wants it; return how many were new."""
    sent = 0
    for participant in _participants(ctx, reminder.exchange.id):
        ctx.check()
        key = f"{reminder.key}:{participant.id}"
        with items.attempt(key):
            subject, body = _text(reminder, participant.giftee)
            sent += enqueue(ctx, f"remind:{key}", "email", participant.email, subject, body)
    items.mark(reminder.key)
    return sent


def _participants(ctx: JobContext, exchange_id: int) -> Sequence[Row[Any, Any, Any]]:
    taking_part = exchange_participants.c
    giftee = exchange_participants.alias("giftee")
    same = and_(
        giftee.c.id == taking_part.giftee_id, giftee.c.exchange_id == taking_part.exchange_id
    )
    chosen = (
        select(taking_part.id, taking_part.email, giftee.c.name.label("giftee"))
        .select_from(exchange_participants.outerjoin(giftee, same))
        .where(
            taking_part.exchange_id == exchange_id,
            taking_part.reminder_enabled.is_(True),
            taking_part.withdrawn_at.is_(None),
        )
        .order_by(taking_part.id)
    )
    return ctx.connection.execute(chosen).all()


def _text(reminder: Reminder, giftee: str | None) -> tuple[str, str]:
    exchange = reminder.exchange
    local = exchange.exchange_at.astimezone(time_zone(exchange.timezone))
    left = "tomorrow" if reminder.days == 1 else f"in {reminder.days} days"
    lines = [f"{exchange.name} is on {local:%Y-%m-%d} at {local:%H:%M} ({exchange.timezone})."]
    if giftee is not None:
        lines.append(f"Your present is for {giftee}.")
    return f"{exchange.name} {left}", "\n".join(lines)
