"""When a job is due: slots by cron expression or by interval, in a time zone.

A thin face over cronsim, which follows Debian's cron, DST included: what is planned for an hour
that a clock skips runs when it has passed, and what is planned for an hour that comes twice runs
in the first. Expressions with a star for the hour or the minute run by the real time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from cronsim import CronSim

_FIELDS: Final = 5
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: An interval has no finer grain than a cron expression.
SHORTEST: Final = timedelta(minutes=1)
#: Instead of a zone's name: each tenant's own.
TENANT_ZONE: Final = "tenant"
#: More than a clock is ever set back: from here a search backwards sees the hour that comes twice.
_SET_BACK: Final = timedelta(hours=3)


def check(expression: str) -> None:
    """Raise ``ValueError`` unless ``expression`` is a cron expression that can fire.

    Five fields: minute, hour, day of month, month, day of week (0 and 7 are Sunday).
    """
    next(_simulate(expression, _EPOCH))


def in_words(expression: str) -> str:
    """Say when a cron expression fires: ``At midnight every day``. Raises ``ValueError``."""
    return _simulate(expression, _EPOCH).explain()


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The slots of a job, in one zone: by a cron expression, or every so often."""

    #: Five fields; ``None`` for an interval.
    expression: str | None = None
    #: Slots are its multiples since 1970-01-01T00:00Z, whatever the zone.
    every: timedelta | None = None
    #: An IANA name.
    zone: str = "UTC"

    @property
    def is_set(self) -> bool:
        """Tell whether there are slots at all."""
        return self.expression is not None or self.every is not None

    def newest(self, at: datetime) -> datetime | None:
        """Return the newest slot that is not later than ``at``, in UTC; ``None`` if none is set."""
        if self.every is not None:
            return at - (at - _EPOCH) % self.every
        if self.expression is None:
            return None
        start = (at + _SET_BACK).astimezone(ZoneInfo(self.zone))
        backwards = _simulate(self.expression, start, reverse=True)
        slots = (each.astimezone(UTC) for each in backwards)
        return next(slot for slot in slots if slot <= at)

    def after(self, at: datetime) -> Iterator[datetime]:
        """Yield the slots later than ``at``, in UTC; none without a schedule."""
        if self.every is not None:
            slot = at - (at - _EPOCH) % self.every
            while True:
                slot += self.every
                yield slot
        if self.expression is not None:
            start = at.astimezone(ZoneInfo(self.zone))
            for each in _simulate(self.expression, start):
                # From an hour that comes twice it may begin with the first of the two.
                if (found := each.astimezone(UTC)) > at:
                    yield found

    def count_between(self, after: datetime, before: datetime, *, limit: int) -> int:
        """Count the slots later than ``after`` and earlier than ``before``, up to ``limit``."""
        slots = islice(self.after(after), limit)
        return sum(1 for _ in _until(slots, before))


def _until(slots: Iterator[datetime], before: datetime) -> Iterator[datetime]:
    for slot in slots:
        if slot >= before:
            return
        yield slot


def _simulate(expression: str, start: datetime, *, reverse: bool = False) -> CronSim:
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - only what has schedules pays

    fields = expression.split()
    if len(fields) != _FIELDS:
        # cronsim would read a sixth field as seconds.
        msg = f"expected a cron expression of five fields, got {expression!r}"
        raise ValueError(msg)
    try:
        return CronSim(" ".join(fields), start, reverse=reverse)
    except CronSimError as error:
        msg = f"expected a cron expression that can fire, got {expression!r} ({error})"
        raise ValueError(msg) from error
