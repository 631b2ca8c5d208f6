"""Instants and durations: aware, in UTC, and written as ``1h30m``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from cronrunner.errors import DurationError


def as_utc(moment: datetime) -> datetime:
    """Return ``moment`` in UTC; a naive one is refused with ``ValueError``."""
    if moment.tzinfo is None:
        msg = f"expected a datetime with a time zone, got {moment.isoformat()}"
        raise ValueError(msg)
    return moment.astimezone(UTC)


def format_instant(moment: datetime) -> str:
    """Write an instant as in slot keys: ``2026-03-01T02:00:00Z``, with a fraction if it has one."""
    moment = as_utc(moment)
    timespec = "microseconds" if moment.microsecond else "seconds"
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")


_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")


_UNITS: Final = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


def parse_duration(text: str) -> timedelta:
    """Read a duration as it is written everywhere in cronrunner: ``30s``, ``5m``, ``1h30m``.

    Raises ``DurationError`` for anything else: zero, and more than a ``timedelta`` can hold, too.
    """
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise DurationError(text)
    try:
        total = sum((float(number) * _UNITS[unit] for number, unit in parts), timedelta())
    except OverflowError as error:
        raise DurationError(text) from error
    if total <= timedelta():
        raise DurationError(text)
    return total


def format_duration(duration: timedelta) -> str:
    """Write a duration the way ``parse_duration`` reads it."""
    milliseconds = round(duration / _UNITS["ms"])
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    if milliseconds or not parts:
        parts.append(f"{milliseconds}ms")
    return "".join(parts)
