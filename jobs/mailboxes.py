"""Whether the mailboxes of a tenant are still being read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Row, select, update

from cronrunner import Option, job
from jobs.audience import tell_admins
from jobs.batches import ids_in_batches
from jobs.items import Items
from jobs.schema import integrations

if TYPE_CHECKING:
    from cronrunner import JobContext

_MANY_FAILURES: Final = 3
_AGAIN_AFTER: Final = timedelta(hours=24)
#: Clocks of mail servers differ; what is further ahead than this is no clock's doing.
_AHEAD: Final = timedelta(minutes=5)
_MAILBOXES: Final = (integrations.c.kind == "mailbox") & integrations.c.enabled.is_(True)


@job(
    name="operations.email_sync_monitor",
    schedule="*/30 * * * *",
    retries=2,
    options={
        "stale_min": Option(
            60, help="minutes without a synchronisation that are still well", minimum=1
        )
    },
)
def email_sync_monitor(ctx: JobContext) -> Mapping[str, int]:
    """Tell the administrators which mailboxes are not read any more, and which are again.

    A mailbox that has failed three times in a row is ``failing``. Otherwise what counts is how
    long ago it was last read: more than ``stale_min`` minutes make it ``stale``, and ``never``
    if it has been there for longer than that and was not read once. The state is kept with the
    mailbox, where the health check finds it; mailboxes that are not enabled are left alone.

    A state that is not well is told when it begins, when it becomes another, and again after
    24 hours. Its end is told as well. While a tenant has no administrator with an address
    nothing counts as told. A mailbox that was read in the future, by more than five minutes, is
    an error.

    Counters:
      ok: mailboxes that are read, or are too new to tell
      stale: mailboxes that were not read for too long
      failing: mailboxes that failed three times in a row or more
      never: mailboxes that were never read
      alerts: e-mails to administrators about what is not well
      recovered: mailboxes that are well again after an alert
      errors: mailboxes that were read in the future

    From: Orchid cronapp: e-mail sync monitoring
    """
    names = ("ok", "stale", "failing", "never", "alerts", "recovered", "errors")
    counters = Counter(dict.fromkeys(names, 0))
    items = Items(ctx)
    for ids in ids_in_batches(ctx.connection, integrations, _MAILBOXES):
        ctx.check()
        for mailbox in _chosen(ctx, ids):
            with items.attempt(str(mailbox.id)):
                counters.update(_judge(ctx, mailbox))
    return {**counters, "errors": items.errors}


def _chosen(ctx: JobContext, ids: Sequence[int]) -> Sequence[Row[Any]]:
    chosen = select(integrations).where(integrations.c.id.in_(ids), _MAILBOXES)
    return ctx.connection.execute(chosen.order_by(integrations.c.id)).all()


def _judge(ctx: JobContext, mailbox: Row[Any]) -> dict[str, int]:
    """Keep the state of a mailbox and tell of it; return what is to be counted."""
    state = _state(mailbox, ctx.slot, timedelta(minutes=ctx.options["stale_min"]))
    told: dict[str, Any] = {}
    counted = {state: 1}
    if state != "ok" and _is_news(mailbox, state, ctx.slot):
        counted["alerts"] = _tell(ctx, mailbox, state)
        if counted["alerts"]:
            told = {"alerted_state": state, "alerted_at": ctx.slot}
    elif state == "ok" and mailbox.alerted_state is not None:
        _tell(ctx, mailbox, "ok again")
        counted["recovered"] = 1
        told = {"alerted_state": None, "alerted_at": None}
    if told or state != mailbox.state:
        this = update(integrations).where(integrations.c.id == mailbox.id)
        ctx.connection.execute(this.values(state=state, **told))
    return counted


def _state(mailbox: Row[Any], slot: datetime, patience: timedelta) -> str:
    read_at = mailbox.last_ok_at
    if read_at is not None and read_at > slot + _AHEAD:
        msg = f"expected a last synchronisation before the slot, got {read_at.isoformat()}"
        raise ValueError(msg)
    if mailbox.failures >= _MANY_FAILURES:
        return "failing"
    if read_at is None:
        return "never" if slot - mailbox.created_at > patience else "ok"
    return "stale" if slot - read_at > patience else "ok"


def _is_news(mailbox: Row[Any], state: str, slot: datetime) -> bool:
    return bool(
        state != mailbox.alerted_state
        or mailbox.alerted_at is None
        or slot - mailbox.alerted_at >= _AGAIN_AFTER
    )


def _tell(ctx: JobContext, mailbox: Row[Any], what: str) -> int:
    name = mailbox.address or mailbox.provider
    read_at = mailbox.last_ok_at and f"{mailbox.last_ok_at:%Y-%m-%d %H:%M:%S} UTC"
    body = f"{name} was last read: {read_at or 'never'}.\nFailures in a row: {mailbox.failures}."
    if mailbox.last_error:
        body += f"\nThe last one: {mailbox.last_error}"
    key = f"email_sync:{mailbox.id}:{ctx.slot:%Y-%m-%dT%H:%M:%SZ}"
    return tell_admins(ctx, key, f"{ctx.tenant.name}: the mailbox {name} is {what}", body)
