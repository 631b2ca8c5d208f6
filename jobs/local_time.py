"""Calendar days as a tenant counts them.

A local day lasts 23 to 25 hours. Where midnight does not exist or comes twice, it is the one
that ``fold=0`` names: the instant just after the gap, and the first of the two.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo


class Window(NamedTuple):
    """Instants from ``start`` up to but not including ``end``, both in UTC."""

    start: datetime
    end: datetime


def local_date(moment: datetime, zone: str) -> date:
    """Return the date that the calendar on the wall shows at ``moment``."""
    return moment.astimezone(ZoneInfo(zone)).date()


def local_day(day: date, zone: str) -> Window:
    """Return the instants of a local day, from midnight to midnight."""
    return Window(_midnight(day, zone), _midnight(day + timedelta(days=1), zone))


def local_hour(day: date, hour: int, zone: str) -> datetime:
    """Return the instant at which clocks show this full hour, in UTC; of two the first.

    Where they jump over it, it is the hour after. Raises ``ValueError`` for an hour that is none.
    """
    return datetime.combine(day, time(hour), ZoneInfo(zone)).astimezone(UTC)


def _midnight(day: date, zone: str) -> datetime:
    return local_hour(day, 0, zone)
