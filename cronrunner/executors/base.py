"""What the runner asks of whatever carries out visits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Protocol

from cronrunner.model import Request, Result, Tenant, VisitRequest

#: Makes the attempts of a visit, one after another; never raises.
Perform = Callable[[VisitRequest], Iterator[Result]]
#: Takes a result as soon as there is one; called from the thread that made the attempt.
OnResult = Callable[[Result], None]


def low_water(length: int) -> int:
    """Return how short a queue gets, from its length when it was filled, before more is wanted."""
    return length // 2


class Executor(Protocol):
    """Carries out visits, several at a time, within the limits of their servers."""

    #: Visits at the same time, over all servers.
    concurrency: int

    def submit(self, visits: Sequence[VisitRequest], *, delay: timedelta | None = None) -> None:
        """Take visits on; they begin in the order given, as their servers have room.

        With a ``delay`` not before it is over, and then behind what waits already.
        """

    def queued(self, server: str) -> int:
        """Return how many visits of a server have not begun."""

    def wait(self, timeout_seconds: float) -> None:
        """Return when more visits are wanted or none is left, or after the timeout.

        Raises ``RuntimeError``, or the runner's own error, when a visit broke its thread; so
        does ``idle``. Nothing begins after that.
        """

    def drain(self) -> None:
        """Begin nothing more, at once. Safe to call from a signal handler."""

    def idle(self) -> bool:
        """Tell whether nothing is running, and nothing will."""

    def reached(self, tenant: Tenant) -> None:
        """Take note that a visit has its session with the tenant's server.

        Visits of a server that refuses them (``Result.unreached``) wait for one that does not.
        """

    def abandon(self, request: Request) -> None:
        """Give up the thread that is stuck in ``request``; another takes its place."""

    def fail(self, error: BaseException) -> None:
        """Begin nothing more; ``wait`` and ``idle`` raise what went wrong elsewhere."""

    def left(self) -> tuple[list[Request], list[Request]]:
        """Return the requests that never began, and those that have begun and not ended."""

    def close(self) -> None:
        """Let the threads end; none is waited for."""
