"""When visits of a server that refuses them wait. Pure: nothing here waits, or knows a server.

::

    closed ──(``FAILURES`` connects in a row are refused)──> open
    open ──(its wait is over, and a visit begins)──> half open: that visit is the probe
    half open ──(the probe has its session)──> closed
    half open ──(the probe is refused)──> open, for twice as long

As long as it is open no visit begins, and while it is half open no other one. What visits
that began earlier meet says nothing of now: only the probe closes it, and only a probe makes
it wait longer. After ``PROBES`` refused probes it is hopeless: who waits for this server
alone should not wait any more. If the last probe was some time ago there is one more, at once;
and a sign of life from an earlier visit takes it all back.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Final

import tenacity

#: Refused connects in a row that open it: one may be an accident, and each is a failed tenant.
FAILURES: Final = 3
#: Refused probes after which a run that has nothing else to do waits no longer.
PROBES: Final = 2
_LONGEST: Final = timedelta(minutes=5)
#: The part of a wait by which it may be longer: runs that met the same fault come back apart.
_JITTER: Final = 0.25


class Breaker:
    """The breaker of one server. Times are monotonic seconds. Not thread-safe."""

    def __init__(self, first_wait: timedelta, rng: random.Random) -> None:
        self._first_wait = first_wait
        self._rng = rng
        self._grow = tenacity.wait_exponential(multiplier=first_wait.total_seconds(), max=_LONGEST)
        #: Refused connects in a row while it is closed.
        self._failures = 0
        self._failed_probes = 0
        #: Until when no visit begins; ``None`` while it is closed.
        self._until: float | None = None
        #: When it was last opened, anew or again.
        self._opened_at = 0.0
        #: The tenant whose visit is the probe.
        self._probe: str | None = None

    @property
    def is_quiet(self) -> bool:
        """Tell whether nothing was refused of late: a success then changes nothing."""
        return self._until is None and not self._failures

    @property
    def is_open(self) -> bool:
        """Tell whether visits wait, be it for the probe that is under way."""
        return self._until is not None

    @property
    def failed_probes(self) -> int:
        """How many probes were refused since it opened."""
        return self._failed_probes

    @property
    def due(self) -> float | None:
        """When the next probe may begin; ``None`` if it is closed or a probe is under way."""
        return self._until if self._probe is None else None

    def admits(self, now: float) -> bool:
        """Tell whether a visit may begin."""
        return self._until is None or (self._probe is None and now >= self._until)

    def is_hopeless(self, now: float) -> bool:
        """Tell whether it is open after ``PROBES`` probes, and the last of them is still true.

        For whoever has nothing else to wait for: an older answer makes the next probe due now.
        """
        if self._until is None or self._probe is not None or self._failed_probes < PROBES:
            return False
        is_old = now - self._opened_at >= self._first_wait.total_seconds()
        if is_old:
            self._until = min(self._until, now)
        return not is_old

    def begin(self, tenant: str) -> None:
        """Take note that a visit begins that was admitted: the probe, if it is open."""
        if self._until is not None:
            self._probe = tenant

    def reached(self, tenant: str) -> bool:
        """Take note that a visit has its session; tell whether that closes the breaker."""
        if self._until is not None and self._probe != tenant:
            return False
        was_open = self.is_open
        self._failures = self._failed_probes = 0
        self._until = self._probe = None
        return was_open

    def refused(self, tenant: str, now: float) -> timedelta | None:
        """Take note that a connect was refused; return how long visits wait if that opens it."""
        if self._until is None:
            self._failures += 1
            return self._open(now) if self._failures >= FAILURES else None
        if self._probe != tenant:
            return None
        self._failed_probes += 1
        return self._open(now)

    def lives(self) -> None:
        """Take note that the server has done some earlier visit's work: there is hope."""
        self._failed_probes = 0

    def ended(self, tenant: str) -> None:
        """Take note that a visit is over; a probe that ended without a word leaves its place."""
        if self._probe == tenant:
            self._probe = None

    def _open(self, now: float) -> timedelta:
        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = self._failed_probes + 1
        seconds = self._grow(state) * (1 + self._rng.uniform(0.0, _JITTER))
        self._probe = None
        self._opened_at, self._until = now, now + seconds
        return timedelta(seconds=seconds)
