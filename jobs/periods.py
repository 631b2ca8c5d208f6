"""When something that is done once in a period is due."""

from __future__ import annotations

from calendar import monthrange
from datetime import date, datetime
from typing import NamedTuple

from jobs.local_time import local_hour

_DAYS_OF_MONTH = range(1, 32)


class Period(NamedTuple):
    """A day, week or month of a tenant's calendar."""

    #: ``2026-03-01``, ``2026-W09`` or ``2026-03``.
    key: str
    #: When what is done once in it is due, in UTC.
    due_at: datetime


def period_of(today: date, frequency: str, day: int, hour: int, zone: str) -> Period:
    """Return the period that ``today`` belongs to, due on its ``day`` at a full local hour.

    ``day`` is that of the week, from 1 for Monday, or that of the month; the 31st is the last one
    of a shorter month. Raises ``ValueError`` for a frequency, day or hour that is none.
    """
    match frequency:
        case "daily":
            key, on = today.isoformat(), today
        case "weekly":
            year, week, _ = today.isocalendar()
            key, on = f"{year}-W{week:02}", date.fromisocalendar(year, week, day)
        case "monthly" if day in _DAYS_OF_MONTH:
            last = monthrange(today.year, today.month)[1]
            key, on = f"{today:%Y-%m}", today.replace(day=min(day, last))
        case _:
            msg = "expected daily, weekly on a day of 1 to 7, or monthly on one of 1 to 31"
            raise ValueError(msg)
    return Period(key=key, due_at=local_hour(on, hour, zone))
