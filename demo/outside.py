"""What the world outside says: the exchange rates of the day, and how providers are."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

BASE: Final = "EUR"
#: A currency of which the feed says nothing that could be used.
NO_NUMBER: Final = "ZZZ"
#: A provider of which the catalogue says nothing that could be used.
NO_STATUS: Final = "horoscope"

#: Against a rate of 1: GBP has changed by a fifth, CHF by a little more.
_RATES: Final = {
    "USD": "1.0842",
    "GBP": "1.2",
    "CHF": "1.20000001",
    "JPY": "160.5",
    "SEK": "11.2345678949",
    NO_NUMBER: "not a number",
}

CATALOGUE: Final[dict[str, Any]] = {
    "calendar": {"status": "up", "version": "3"},
    "storage": {"status": "up", "version": "2"},
    "tracker": {"status": "down", "version": "5"},
    NO_STATUS: {"status": "unsettled"},
}
"""Providers by name: all that the demo's tenants use but ``fax``, which is no more."""


def rates(day: date) -> dict[str, Any]:
    """Return what the feed of exchange rates says on a day."""
    return {"base": BASE, "date": day.isoformat(), "rates": _RATES}
