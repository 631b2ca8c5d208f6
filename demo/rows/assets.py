"""What expires, what it costs, and what that money was worth."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from demo.outside import BASE
from demo.rows.people import DISABLED, MEMBER
from demo.scene import Row, Scene

#: Days that are left: on both sides of each limit, and in the midst of a bucket.
_DAYS: Final = (-31, -30, -3, 0, 1, 5, 7, 8, 14, 15, 30, 31, 60, 61, 400)
#: The asset whose alert for the seven days before its end was sent.
_ALERTED: Final = 5

#: A code that the feed does not have, the base itself, and the others as somebody typed them.
_CURRENCIES: Final = ("USD", "gbp", "CHF", "JPY", "SEK", "XAU", BASE, None)


def expiring_assets(scene: Scene) -> Iterator[Row]:
    """Yield subscriptions, credentials and certificates, expired, soon and later."""
    number = 0
    for kind in ("subscription", "credential", "certificate"):
        for row in _of_kind(scene):
            currency = _CURRENCIES[number % len(_CURRENCIES)]
            number += 1
            yield {
                "kind": kind,
                "owner_id": MEMBER,
                "auto_renew": False,
                "amount_minor": currency and 4900,
                "currency": currency,
                "name": f"{kind.title()} {number}",
                **row,
            }


def _of_kind(scene: Scene) -> Iterator[Row]:
    day = timedelta(days=1)
    for days in _DAYS:
        yield {"expires_on": scene.today + days * day}
    # The last second of a day, and the first of the next, in the tenant's calendar.
    tomorrow = scene.yesterday.end + day
    yield {"expires_at": tomorrow - timedelta(seconds=1)}
    yield {"expires_at": tomorrow}
    yield {"expires_on": scene.today + 3 * day, "auto_renew": True}
    yield {"expires_on": scene.today - 3 * day, "auto_renew": True}
    yield {"expires_on": scene.today, "cancelled_at": scene.ago(days=1)}
    # Nobody who can be told, so that the administrators are.
    yield {"expires_on": scene.today, "owner_id": DISABLED}
    yield {"expires_on": scene.today, "owner_id": None}


def alert_marks(scene: Scene) -> Iterator[Row]:
    """Yield the marks of alerts that were sent."""
    sent_on = scene.today + timedelta(days=_ALERTED)
    for number, asset in enumerate(expiring_assets(scene), start=1):
        if asset.get("expires_on") == sent_on:
            yield {
                "job": f"alerts.{asset['kind']}s",
                "item": f"{number}:{sent_on.isoformat()}:7",
                "state": "done",
                "attempts": 1,
                "slot": scene.ago(days=2),
            }


def exchange_rates(scene: Scene) -> Iterator[Row]:
    """Yield rates of two days ago, to which those of the feed are close or not, and some of it."""
    earlier, same = scene.at.date() - timedelta(days=2), scene.at.date()
    known = {"GBP": earlier, "CHF": earlier, "JPY": same, "SEK": same}
    for quote, day in known.items():
        yield {
            "base": BASE,
            "quote": quote,
            "rate_date": day,
            "rate_e8": 16_050_000_000 if quote == "JPY" else 100_000_000,
            "source": "demo",
        }
