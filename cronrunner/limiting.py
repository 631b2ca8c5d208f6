"""Rates that hold for a whole run: for all of its visits, in whatever thread or process.

What was permitted, and what is paused, is kept in memory that the run's own process owns and its
other processes open by path. Nothing of it is left behind, however the run ends. Each use locks
it: the kernel takes the lock from a process that dies, and one that is killed while it writes
leaves at worst a permit too few. Times are those of the monotonic clock, which all processes of a
machine share; a run on another machine (``--shard``) has limits of its own.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from cronrunner.errors import DeadlineError

_MICRO: Final = 1_000_000
#: Pauses are set by others meanwhile, and may be over sooner than was said.
_LOOK_EVERY_SECONDS: Final = 0.25


@dataclass(slots=True)
class _State:
    """What is known of one name. All in microseconds of the monotonic clock."""

    paused_until: int = 0
    #: The longest that anybody counts back.
    period: int = 0
    permits: list[int] = field(default_factory=list)


class Limits:
    """The limits of a run. Thread-safe."""

    def __init__(self, path: str | None = None) -> None:
        """Make them, or open those at the ``path`` of another process; when they are needed."""
        self._lock = threading.Lock()
        self._path = path
        self._file: int | None = None

    @property
    def path(self) -> str:
        """The path by which other processes of this user open them, as long as this one lasts."""
        with self._lock:
            return self._path or f"/proc/{os.getpid()}/fd/{self._open()}"

    def close(self) -> None:
        """Forget them; nobody takes permits any more."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def take(self, name: str, burst: int, period: timedelta) -> float:
        """Take one of ``burst`` permits in any ``period``; return 0, or in how many seconds."""
        length = round(period.total_seconds() * _MICRO)
        with self._state(name) as state:
            now = _now()
            if state.paused_until > now:
                return (state.paused_until - now) / _MICRO
            recent = len(state.permits) - bisect_right(state.permits, now - length)
            if recent >= burst:
                return max(state.permits[-burst] + length - now, 1) / _MICRO
            state.period = max(state.period, length)
            state.permits = [at for at in state.permits if at > now - state.period] + [now]
            return 0.0

    def pause(self, name: str, duration: timedelta) -> None:
        """Permit nothing for so long; of several pauses the one that ends last counts."""
        with self._state(name) as state:
            until = _now() + round(duration.total_seconds() * _MICRO)
            state.paused_until = max(state.paused_until, until)

    def paused(self, name: str) -> float:
        """Return for how many seconds nothing is permitted yet, whatever was used."""
        with self._state(name) as state:
            return max(state.paused_until - _now(), 0) / _MICRO

    @contextmanager
    def _state(self, name: str) -> Iterator[_State]:
        with self._lock:
            file = self._open()
            # Of the open file, and so no use among the threads of one process.
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                known = _read(file)
                state = _State(*known.get(name, ()))
                yield state
                known[name] = [state.paused_until, state.period, state.permits]
                _write(file, known)
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)

    def _open(self) -> int:
        if self._file is None and self._path is None:
            self._file = os.memfd_create("cronrunner-limits")
        elif self._file is None:
            self._file = os.open(str(self._path), os.O_RDWR | os.O_CLOEXEC)
        return self._file


def _read(file: int) -> dict[str, Any]:
    text = os.pread(file, os.fstat(file).st_size, 0).partition(b"\n")[0]
    with suppress(ValueError):
        known: dict[str, Any] = json.loads(text)
        return known
    # Nothing yet, or half of what a killed process wrote.
    return {}


def _write(file: int, known: dict[str, Any]) -> None:
    # What stood behind the end of the line stays, and is not read.
    os.pwrite(file, json.dumps(known).encode() + b"\n", 0)


def _now() -> int:
    return time.monotonic_ns() // 1000


class RateLimit:
    """A limit of the run, as a job uses it."""

    def __init__(  # noqa: PLR0913 - what a limit is, and whose time it takes
        self,
        limits: Limits,
        name: str,
        per_second: float,
        *,
        burst: int | None,
        clock: Callable[[], datetime],
        remaining: Callable[[], timedelta],
    ) -> None:
        """Permit at most ``burst`` in any ``burst / per_second`` seconds."""
        if not 0 < per_second < math.inf:
            msg = f"expected a rate above 0, got {per_second}"
            raise ValueError(msg)
        self._burst = max(1, int(per_second)) if burst is None else burst
        if self._burst < 1:
            msg = f"expected a burst of 1 or more, got {burst}"
            raise ValueError(msg)
        self._limits = limits
        self._name = name
        self._period = timedelta(seconds=self._burst / per_second)
        self._clock = clock
        self._remaining = remaining

    @property
    def is_paused(self) -> bool:
        """Whether somebody has paused it, in any visit of the run."""
        return self._limits.paused(self._name) > 0

    def take(self) -> bool:
        """Take a permit if there is one; never waits."""
        return not self._limits.take(self._name, self._burst, self._period)

    def wait(self) -> None:
        """Take a permit, waiting for it if it comes within the job's timeout.

        Raises ``DeadlineError`` at once if it does not.
        """
        while seconds := self._limits.take(self._name, self._burst, self._period):
            if timedelta(seconds=seconds) >= self._remaining():
                text = f"the next permit of {self._name!r} comes after the job's timeout"
                raise DeadlineError(text)
            time.sleep(min(seconds, _LOOK_EVERY_SECONDS))

    def pause(self, until: datetime) -> None:
        """Permit nothing before ``until`` to any visit of the run: a server has asked for it."""
        self._limits.pause(self._name, max(until - self._clock(), timedelta()))
