"""How far claims run ahead of the threads: far enough for groups, and not much further."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cronrunner.executors.base import low_water

#: What begins in this time is claimed ahead.
_AHEAD_SECONDS: Final = 0.1
#: Visits claimed ahead at the most.
_MOST: Final = 256


@dataclass(slots=True)
class Pace:
    """How fast the visits of each server begin."""

    #: Server -> when its queue was filled last, in monotonic seconds, and to what length.
    _filled: dict[str, tuple[float, int]] = field(default_factory=dict)

    def room(self, server: str, queued: int, *, least: int, now: float) -> int:
        """Return how many visits a queue is to be filled with: none before it is low.

        ``least`` is the length to which it is filled at any pace.
        """
        at, length = self._filled.get(server, (now, least))
        if queued > low_water(max(length, least)):
            return 0
        elapsed = now - at
        begun = length - queued
        wanted = round(begun * _AHEAD_SECONDS / elapsed) if elapsed > 0 else 0
        return max(min(max(wanted, least), max(_MOST, least)) - queued, 0)

    def filled(self, server: str, length: int, *, now: float) -> None:
        """Take note of the length to which a queue was filled."""
        self._filled[server] = now, length
