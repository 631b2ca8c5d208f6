"""Why nothing more of a run begins, since when, and who has said so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

from cronrunner.executors import Executor
from cronrunner.model import Reason


class Ending:
    """The early end of a run. Takes no lock: it is begun from signal handlers as well."""

    def __init__(self, deadline: timedelta | None, is_lease_over: Callable[[], bool]) -> None:
        self._deadline = deadline
        self._is_lease_over = is_lease_over
        self._started = time.monotonic()
        self._begun = threading.Event()
        self._executor: Executor | None = None
        #: ``None`` as long as the run goes on.
        self.reason: Reason | None = None
        #: A signal, or what else it was.
        self.by = ""
        #: When it began, in monotonic seconds.
        self.at = 0.0
        #: Nothing can be written any more.
        self.ledger_lost = False

    @property
    def elapsed_seconds(self) -> float:
        """How long the run has lasted."""
        return time.monotonic() - self._started

    def begin(self, reason: Reason, by: str) -> None:
        """Let nothing more begin. The time of the first reason counts, and the last reason."""
        if self.reason is None:
            self.at = time.monotonic()
        self.reason, self.by = reason, by
        self._begun.set()
        if self._executor is not None:
            self._executor.drain()

    def lose_ledger(self) -> None:
        """Let nothing more begin, since nothing can be claimed. Called by any thread."""
        self.ledger_lost = True
        if self.reason is None:
            self.begin(Reason.LEDGER_LOST, "ledger")

    def has_begun(self) -> bool:
        """Tell whether nothing more is to begin; notice that the deadline or the lease is over."""
        if not self.ledger_lost and self._is_lease_over():
            self.lose_ledger()
        limit = self._deadline
        if self.reason is None and limit and self.elapsed_seconds >= limit.total_seconds():
            self.begin(Reason.DRAINED, "deadline")
        return self.reason is not None

    def drains(self, executor: Executor) -> None:
        """Drain ``executor`` when it begins, or now if it has."""
        self._executor = executor
        if self.has_begun():
            executor.drain()

    def wait(self, delay: timedelta) -> None:
        """Wait, but not beyond its beginning."""
        self._begun.wait(delay.total_seconds())
