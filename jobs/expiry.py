"""Alerts about what comes to an end: one engine for subscriptions, credentials, certificates.

An asset has an end date in the tenant's calendar and, by the days that are left until then, a
bucket: the smallest threshold that is not less than them. It is alerted once in each bucket, so
that days on which nothing ran are made up for by one alert and not by one for each threshold.
An asset that gets another end date begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Row, and_, select

from cronrunner import Option
from jobs.audience import responsible, tell
from jobs.batches import ids_in_batches
from jobs.items import Items
from jobs.local_time import local_date
from jobs.schema import expiring_assets

if TYPE_CHECKING:
    from cronrunner import JobContext

#: The bucket of what has ended.
EXPIRED: Final = "expired"

#: The first that has at least the days that are left.
_SEVERITIES: Final = ((1, "critical"), (7, "high"), (14, "medium"))


class Ending(NamedTuple):
    """The end of one asset, as of today."""

    on: date
    #: Negative when it has passed.
    days_left: int


def options(*thresholds: int) -> dict[str, Option]:
    """Return the options of a job about one kind of asset."""
    return {
        "thresholds": Option(
            thresholds, help="how many days before the end an alert is due", minimum=0
        ),
        "stop_after_days": Option(
            30, help="what ended more days ago is not alerted any more", minimum=0
        ),
    }


def alert_expiring(ctx: JobContext, kind: str) -> Mapping[str, int]:
    """Alert each asset of ``kind`` that has come into another bucket."""
    items = Items(ctx)
    counters = {"checked": 0, "alerted": 0, "expired": 0, "no_recipient": 0, "too_old": 0}
    for asset in _uncancelled(ctx, kind):
        counters["checked"] += 1
        with items.attempt(str(asset.id)):
            for counter in _examine(ctx, items, asset):
                counters[counter] += 1
    items.forget_absent()
    return counters | {"errors": items.errors}


def bucket_of(asset: Row[Any], days_left: int, thresholds: Sequence[int]) -> str | None:
    """Return the bucket that an asset is in; ``None`` when there is nothing to say yet."""
    if days_left >= 0:
        return str(min(near)) if (near := [n for n in thresholds if n >= days_left]) else None
    # A subscription that renews itself has not ended, whatever its date says.
    return None if asset.kind == "subscription" and asset.auto_renew else EXPIRED


def severity_of(days_left: int, *, auto_renew: bool) -> str:
    """Return how bad it is that an asset has only so many days left."""
    if auto_renew:
        return "low"
    return next((name for most, name in _SEVERITIES if days_left <= most), "low")


def _uncancelled(ctx: JobContext, kind: str) -> Iterator[Row[Any]]:
    wanted = and_(expiring_assets.c.kind == kind, expiring_assets.c.cancelled_at.is_(None))
    for ids in ids_in_batches(ctx.connection, expiring_assets, wanted):
        ctx.check()
        chosen = select(expiring_assets).where(expiring_assets.c.id.in_(ids), wanted)
        yield from ctx.connection.execute(chosen.order_by(expiring_assets.c.id)).all()


def _examine(ctx: JobContext, items: Items, asset: Row[Any]) -> Sequence[str]:
    """Alert an asset if it is time to; return the counters that say what was done."""
    ending = _ending(ctx, asset)
    if ending.days_left < -ctx.options["stop_after_days"]:
        return ["too_old"]
    bucket = bucket_of(asset, ending.days_left, ctx.options["thresholds"])
    key = f"{asset.id}:{ending.on.isoformat()}:{bucket}"
    if bucket is None or items.is_done(key):
        return []
    if not _alert(ctx, asset, ending, key):
        return ["no_recipient"]
    items.mark(key)
    return ["alerted", "expired"] if bucket == EXPIRED else ["alerted"]


def _ending(ctx: JobContext, asset: Row[Any]) -> Ending:
    zone = ctx.tenant.timezone
    on = local_date(asset.expires_at, zone) if asset.expires_at else asset.expires_on
    if on is None:
        msg = "expected expires_at or expires_on, got neither"
        raise ValueError(msg)
    return Ending(on=on, days_left=(on - local_date(ctx.slot, zone)).days)


def _alert(ctx: JobContext, asset: Row[Any], ending: Ending, key: str) -> bool:
    """Write to whoever is responsible; tell whether there is anybody."""
    recipients = responsible(ctx, asset.owner_id)
    severity = severity_of(ending.days_left, auto_renew=asset.auto_renew)
    what = f"{asset.kind.capitalize()} {asset.name}"
    when = _when(ending.days_left, renews=asset.auto_renew)
    body = f"{what} {when}.\nDate: {ending.on.isoformat()}\nSeverity: {severity}"
    tell(ctx, recipients, f"{ctx.job}:{key}", f"[{severity}] {what} {when}", body)
    return bool(recipients)


def _when(days_left: int, *, renews: bool) -> str:
    """Say it as the end of a sentence: `expires in 7 days`."""
    if days_left < 0:
        return "has expired"
    near = {0: "today", 1: "tomorrow"}
    return f"{'renews' if renews else 'expires'} {near.get(days_left, f'in {days_left} days')}"
