"""The breakers of a run's servers, and what becomes of the visits of a hopeless one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from cronrunner.breaker import Breaker
from cronrunner.events import BreakerClosed, BreakerOpened, Event
from cronrunner.model import Outcome, Reason, Request, Result, Tenant, VisitRequest


class Breakers:
    """A breaker for each server. The executor holds its lock for all but ``leave_out``."""

    def __init__(
        self,
        waits: Mapping[str, timedelta],
        *,
        rng: random.Random,
        clock: Callable[[], datetime],
        emit: Callable[[Event], None],
    ) -> None:
        """``waits`` gives each server's first wait, about its connect timeout."""
        self._of = {server: Breaker(wait, rng) for server, wait in waits.items()}
        self._clock = clock
        self.emit = emit

    def of(self, server: str) -> Breaker | None:
        """Return the breaker of a server; fleet-scope work has no server, and none."""
        return self._of.get(server)

    def admits(self, server: str) -> bool:
        """Tell whether a visit of a server may begin."""
        breaker = self._of.get(server)
        return breaker is None or not breaker.is_open or breaker.admits(time.monotonic())

    def begin(self, tenant: Tenant) -> None:
        """Take note that a visit begins."""
        if breaker := self._of.get(tenant.server):
            breaker.begin(tenant.name)

    def ended(self, tenant: Tenant) -> None:
        """Take note that a visit is over."""
        if breaker := self._of.get(tenant.server):
            breaker.ended(tenant.name)

    def hopeless(self, servers: Iterable[str]) -> str | None:
        """Return one of ``servers`` if there is hope for none of them."""
        now = time.monotonic()
        chosen = sorted(servers)
        known = [self._of.get(server) for server in chosen]
        over = [each is not None and each.is_hopeless(now) for each in known]
        return chosen[0] if over and all(over) else None

    def due(self, servers: Iterable[str]) -> float | None:
        """Return when the first probe may begin at one of ``servers``, in monotonic seconds."""
        found = [breaker.due for server in servers if (breaker := self._of.get(server))]
        return min((due for due in found if due is not None), default=None)

    def note(self, tenant: Tenant, result: Result) -> Event | None:
        """Take note of a visit's result; return what happened to the breaker."""
        breaker = self._of[tenant.server]
        if result.unreached:
            wait = breaker.refused(tenant.name, time.monotonic())
            if wait is None:
                return None
            probes = breaker.failed_probes
            return BreakerOpened(server=tenant.server, failed_probes=probes, wait=wait)
        if breaker.is_open and (closed := self.reached(tenant)):
            return closed
        if result.outcome is Outcome.SUCCEEDED:
            breaker.lives()
        return None

    def reached(self, tenant: Tenant) -> Event | None:
        """Take note that a visit has its session; return what happened to the breaker."""
        closes = self._of[tenant.server].reached(tenant.name)
        return BreakerClosed(server=tenant.server) if closes else None

    def leave_out(self, visit: VisitRequest) -> Iterator[Result]:
        """Give the results of a visit that is not made, as its server is hopeless."""
        for request in visit.requests:
            yield self._left_out(request, visit.tenant.server)

    def _left_out(self, request: Request, server: str) -> Result:
        result = Result(
            request=request,
            server=server,
            outcome=Outcome.SKIPPED,
            reason=Reason.BREAKER_OPEN.value,
            started_at=self._clock(),
            duration_seconds=0.0,
            attempted=False,
        )
        if request.attempt == 1:
            return result
        # It was tried and refused: a run in which that is all that happened is not well.
        error = f"{Reason.BREAKER_OPEN}: its server takes no connections, so it is not repeated"
        return replace(
            result,
            outcome=Outcome.FAILED,
            reason=None,
            error=error,
            cause=Reason.BREAKER_OPEN.value,
        )
