"""Cron expressions: a thin face over cronsim, which follows Debian's cron, DST included."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

_FIELDS: Final = 5


def check(expression: str) -> None:
    """Raise ``ValueError`` unless ``expression`` is a cron expression that can fire.

    Five fields: minute, hour, day of month, month, day of week (0 and 7 are Sunday).
    """
    _simulate(expression, datetime(2000, 1, 1, tzinfo=UTC))


def next_slot(expression: str, after: datetime, zone: str = "UTC") -> datetime:
    """Return the first slot of ``expression`` later than ``after``, in UTC."""
    found: datetime = next(_simulate(expression, after.astimezone(ZoneInfo(zone))))
    return found.astimezone(UTC)


def _simulate(expression: str, start: datetime):  # type: ignore[no-untyped-def] # noqa: ANN202 - CronSim, imported late
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - only what has schedules pays

    fields = expression.split()
    if len(fields) != _FIELDS:
        # cronsim would read a sixth field as seconds.
        msg = f"expected a cron expression of five fields, got {expression!r}"
        raise ValueError(msg)
    try:
        return CronSim(" ".join(fields), start)
    except CronSimError as error:
        msg = f"expected a cron expression that can fire, got {expression!r} ({error})"
        raise ValueError(msg) from error
