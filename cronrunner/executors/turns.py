"""Whose turn it is: what every executor knows of visits, whoever carries them out.

A visit takes a permit of its server when it begins and gives it back when it ends, so a
server never has more visits than permits, and nobody waits for a permit while another
server has room. Among servers with room the one with the fewest running visits goes first: a
server that hangs keeps the places it has and gets no more while others want them.

A server that refuses its visits opens its breaker: the others wait in their queue, without
place or permit, until a probe was let through and has reached it. When there is nothing else
to wait for and probes were refused again and again, they are left out.

One lock is over all of it. Nothing is told to the runner, or to a listener, while it is held.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from cronrunner.errors import CronrunnerError
from cronrunner.executors.base import OnResult, low_water
from cronrunner.executors.breaking import Breakers
from cronrunner.model import Request, Result, Tenant, VisitRequest


class BrokenVisitError(RuntimeError):
    """A visit broke what carried it out. It may have been done: nobody does it again."""

    def __init__(self, what: str) -> None:
        super().__init__(f"a visit broke its thread: {what}")


@dataclass(slots=True, eq=False)
class Turn:
    """A visit that has its permit."""

    visit: VisitRequest
    #: What has not ended; the first one has begun.
    requests: deque[Request] = field(init=False)
    #: The last result was a refused connect.
    refused: bool = False
    #: It has ended, or nobody waits for it any more.
    is_over: bool = False

    def __post_init__(self) -> None:
        self.requests = deque(self.visit.requests)

    @property
    def tenant(self) -> Tenant:
        """The tenant that is visited."""
        return self.visit.tenant


class Turns:
    """Visits that wait for their turn, and those that have it."""

    def __init__(
        self,
        on_result: OnResult,
        *,
        concurrency: int,
        permits: Mapping[str, int],
        breakers: Breakers,
    ) -> None:
        self.concurrency = concurrency
        self._on_result = on_result
        self._permits = permits
        self._breakers = breakers
        self._queues: dict[str, deque[VisitRequest]] = {server: deque() for server in permits}
        self._running: Counter[str] = Counter()
        self._turns: set[Turn] = set()
        #: (monotonic time when it is due, order, visit)
        self._delayed: list[tuple[float, int, VisitRequest]] = []
        #: Taken itself, and not by its conditions: that is quicker.
        self._lock = threading.Lock()
        #: For whoever carries out visits: there may be something to take.
        self._work_there = threading.Condition(self._lock)
        #: For the runner: a queue is running low, or nothing is running.
        self._low = threading.Condition(self._lock)
        #: Server -> the length of its queue at which more visits are wanted.
        self._low_water: Counter[str] = Counter()
        self._draining = False
        self._closed = False
        self._failure: BaseException | None = None
        self._numbers = itertools.count()

    # For the runner.

    def submit(self, visits: Sequence[VisitRequest], *, delay: timedelta | None = None) -> None:
        """Take visits on, now or after a delay. No thread sleeps meanwhile."""
        with self._lock:
            for visit in visits:
                if delay is None:
                    self._queues[visit.tenant.server].append(visit)
                else:
                    due = time.monotonic() + delay.total_seconds()
                    heapq.heappush(self._delayed, (due, next(self._numbers), visit))
            if delay is None:
                for server in {visit.tenant.server for visit in visits}:
                    self._low_water[server] = low_water(len(self._queues[server]))
            self._work_there.notify(len(visits))

    def queued(self, server: str) -> int:
        """Return how many visits of a server have not begun."""
        return len(self._queues[server])

    def wait(self, timeout_seconds: float) -> None:
        """Return when more visits are wanted, or after the timeout. Raises what broke a thread."""
        with self._lock:
            if self._failure is None:
                self._low.wait(timeout_seconds)
            self._raise_failure()

    def _raise_failure(self) -> None:
        if isinstance(self._failure, CronrunnerError | BrokenVisitError):
            raise self._failure
        if self._failure is not None:
            # Not the failure itself: a SystemExit would end the process with its own code.
            raise BrokenVisitError(type(self._failure).__name__) from self._failure

    def drain(self) -> None:
        """Begin nothing more. Takes no lock: a signal may come while one is held."""
        self._draining = True

    def idle(self) -> bool:
        """Tell whether nothing is running, and nothing will. Raises what broke a thread."""
        with self._lock:
            self._raise_failure()
            waiting = not self._draining and (self._delayed or any(self._queues.values()))
            return not waiting and not self._running.total()

    def reached(self, tenant: Tenant) -> None:
        """Take note that a visit has its session: if it is the probe, the others may go on."""
        breaker = self._breakers.of(tenant.server)
        if breaker is None or breaker.is_quiet:
            # As for nearly all visits of a run: they do not pay for the lock.
            return
        with self._lock:
            closed = self._breakers.reached(tenant)
            self._work_there.notify_all()
        if closed is not None:
            self._breakers.emit(closed)

    def abandon(self, request: Request) -> None:
        """Give up whatever is stuck in ``request``; the rest of its visit is queued again."""
        with self._lock:
            stuck = [t for t in self._turns if t.requests and t.requests[0] == request]
            for turn in stuck:
                turn.requests.popleft()
                self._end(turn)
        for turn in stuck:
            self._replace(turn)

    def fail(self, error: BaseException) -> None:
        """Begin nothing more, and let the runner know why."""
        with self._lock:
            self._failure = self._failure or error
            self.drain()
            self._low.notify()

    def left(self) -> tuple[list[Request], list[Request]]:
        """Return the requests that never began, and those that have begun and not ended."""
        with self._lock:
            waiting = [visit for queue in self._queues.values() for visit in queue]
            waiting += [visit for _, _, visit in self._delayed]
            never = [request for visit in waiting for request in visit.requests]
            begun: list[Request] = []
            for turn in self._turns:
                # Copied once: whoever carries it out takes from it all the time.
                requests = tuple(turn.requests)
                count = self._begun_of(turn, requests)
                begun += requests[:count]
                never += requests[count:]
        return never, begun

    def close(self) -> None:
        """Let the threads end."""
        with self._lock:
            self._closed = True
            self._work_there.notify_all()

    # For whoever carries out visits.

    def _begun_of(self, turn: Turn, requests: Sequence[Request]) -> int:
        """Return how many of these have begun, of what has not ended of a turn."""
        del turn
        return min(len(requests), 1)

    def _replace(self, turn: Turn) -> None:
        """Put something else in the place of what is stuck in a turn."""

    def _take_back(self) -> list[VisitRequest]:
        """Return what waits, and forget it."""
        with self._lock:
            waiting = [visit for queue in self._queues.values() for visit in queue]
            for queue in self._queues.values():
                queue.clear()
        return waiting

    def _until_due(self) -> float | None:
        """Return how long to wait before a delayed visit, or a probe, is due."""
        if self._draining:
            return None
        dues = [self._delayed[0][0]] if self._delayed else []
        probe = self._breakers.due(self._roomy(self._queues))
        if probe is not None:
            dues.append(probe)
        return max(min(dues) - time.monotonic(), 0.0) if dues else None

    def _admit_due(self, *, all_of_them: bool = False) -> None:
        now = math.inf if all_of_them else time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            visit = heapq.heappop(self._delayed)[2]
            self._queues[visit.tenant.server].append(visit)

    def _roomy(self, servers: Iterable[str]) -> list[str]:
        return [
            server
            for server in servers
            if self._queues[server] and self._running[server] < self._permits[server]
        ]

    def _next_server(self, servers: Iterable[str]) -> str | None:
        """Return the one of ``servers`` whose turn it is. The caller holds the lock."""
        if self._draining:
            return None
        self._admit_due()
        open_ = [server for server in self._roomy(servers) if self._breakers.admits(server)]
        return min(open_, key=lambda server: self._running[server], default=None)

    def _hopeless(self) -> str | None:
        """Return a server whose visits are left out, as nothing else is there to wait for."""
        if self._draining or self._running.total():
            return None
        waiting = {visit.tenant.server for _, _, visit in self._delayed}
        waiting |= {server for server, queue in self._queues.items() if queue}
        if self._breakers.hopeless(waiting) is None:
            return None
        self._admit_due(all_of_them=True)
        return self._breakers.hopeless(waiting)

    def _begin(self, turn: Turn) -> None:
        """Take a permit for a turn. The caller holds the lock."""
        server = turn.tenant.server
        self._running[server] += 1
        self._turns.add(turn)
        if len(self._queues[server]) <= self._low_water[server]:
            self._low.notify()

    def _deliver(self, turn: Turn, result: Result) -> bool:
        """Hand over the result of a turn's first request; tell whether the turn goes on."""
        if not turn.refused:
            # Of one connect, however many jobs wait for it.
            self._note(turn.tenant, result)
        turn.refused = result.unreached
        self._on_result(result)
        if turn.is_over:
            return False
        turn.requests.popleft()
        return not self._draining

    def _note(self, tenant: Tenant, result: Result) -> None:
        breaker = self._breakers.of(tenant.server)
        if breaker is None or (breaker.is_quiet and not result.unreached):
            return
        with self._lock:
            happened = self._breakers.note(tenant, result)
            self._work_there.notify_all()
        if happened is not None:
            self._breakers.emit(happened)

    def _end(self, turn: Turn) -> None:
        """Give the permit back, and queue again what was not begun. The caller holds the lock."""
        turn.is_over = True
        self._turns.discard(turn)
        self._running[turn.tenant.server] -= 1
        self._breakers.ended(turn.tenant)
        if turn.requests:
            self._again(VisitRequest(tenant=turn.tenant, requests=tuple(turn.requests)))
        if self._draining or not self._running.total():
            self._low.notify()

    def _again(self, visit: VisitRequest) -> None:
        """Queue what a visit has left. The caller holds the lock."""
        self._queues[visit.tenant.server].append(visit)
