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


def time_zone(name: str) -> ZoneInfo:
    """Return the zone of an IANA name. Raises ``ValueError`` when there is none of that name."""
    try:
        return ZoneInfo(name)
    # OSError: the name of a folder of zones, such as America.
    except (LookupError, ValueError, OSError) as error:
        msg = f"expected a time zone such as Europe/Berlin, got {name!r}"
        raise ValueError(msg) from error


def local_date(moment: datetime, zone: str) -> date:
    """Return the date that the calendar on the wall shows at ``moment``."""
    try:
        return moment.astimezone(time_zone(zone)).date()
    except OverflowError:
        # 9999-12-31 stands for never, and there is no day after it.
        return moment.date()


def days_before(moment: datetime, days: int, zone: str) -> datetime:
    """Return when clocks on the wall showed the time that they show at ``moment``, days earlier.

    Those days last as long as they last: over a change of the clocks the distance is not a
    multiple of 24 hours. Raises ``ValueError`` for a zone that does not exist, and for a day
    that no calendar has.
    """
    there = time_zone(zone)
    try:
        wall = moment.astimezone(there) - timedelta(days=days)
        return wall.replace(fold=0).astimezone(UTC)
    except OverflowError as error:
        msg = f"expected a day from year 1 to year 9999, got {days} days before another"
        raise ValueError(msg) from error


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
