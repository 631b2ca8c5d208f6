"""Visits in threads of this process.

A visit takes a permit of its server when it begins and gives it back when it ends, so a
server never has more visits than permits, and a thread never waits for a permit while another
server has room. Among servers with room the one with the fewest running visits goes first: a
server that hangs keeps the threads it has and gets no more while others want them.

A server that refuses its visits opens its breaker: the others wait in their queue, without
thread or permit, until a probe was let through and has reached it. When there is nothing else
to wait for and probes were refused again and again, they are left out.

The threads are daemons: nothing in Python can end a thread that hangs, and it must not keep
the process from ending.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import timedelta

from cronrunner.errors import CronrunnerError
from cronrunner.executors.base import OnResult, Perform
from cronrunner.executors.breaking import Breakers
from cronrunner.model import Request, Result, Tenant, VisitRequest


class ThreadExecutor:
    """Carries out visits in ``concurrency`` threads."""

    def __init__(
        self,
        perform: Perform,
        on_result: OnResult,
        *,
        concurrency: int,
        permits: Mapping[str, int],
        breakers: Breakers,
    ) -> None:
        self.concurrency = concurrency
        self._perform = perform
        self._on_result = on_result
        self._permits = permits
        self._breakers = breakers
        self._queues: dict[str, deque[VisitRequest]] = {server: deque() for server in permits}
        self._running: Counter[str] = Counter()
        #: Thread -> what it has taken on and not finished; its first one has begun.
        self._open: dict[str, deque[Request]] = {}
        self._tenants: dict[str, Tenant] = {}
        #: (monotonic time when it is due, order, visit)
        self._delayed: list[tuple[float, int, VisitRequest]] = []
        lock = threading.Lock()
        #: For the threads: there may be something to take.
        self._work_there = threading.Condition(lock)
        #: For the runner: a queue is running low, or nothing is running.
        self._low = threading.Condition(lock)
        self._low_water = max(concurrency // 2, 1)
        self._draining = False
        self._closed = False
        self._failure: BaseException | None = None
        self._numbers = itertools.count()
        for _ in range(concurrency):
            self._start_thread()

    def _start_thread(self) -> None:
        name = f"visit-{next(self._numbers)}"
        threading.Thread(target=self._work, args=(name,), name=name, daemon=True).start()

    def submit(self, visits: Sequence[VisitRequest], *, delay: timedelta | None = None) -> None:
        """Take visits on, now or after a delay. No thread sleeps meanwhile."""
        with self._work_there:
            for visit in visits:
                if delay is None:
                    self._queues[visit.tenant.server].append(visit)
                else:
                    due = time.monotonic() + delay.total_seconds()
                    heapq.heappush(self._delayed, (due, next(self._numbers), visit))
            self._work_there.notify(len(visits))

    def queued(self, server: str) -> int:
        """Return how many visits of a server have not begun."""
        return len(self._queues[server])

    def wait(self, timeout_seconds: float) -> None:
        """Return when more visits are wanted, or after the timeout. Raises what broke a thread."""
        with self._low:
            if self._failure is None:
                self._low.wait(timeout_seconds)
            self._raise_failure()

    def _raise_failure(self) -> None:
        if isinstance(self._failure, CronrunnerError):
            raise self._failure
        if self._failure is not None:
            # Not the failure itself: a SystemExit would end the process with its own code.
            msg = f"a visit broke its thread: {type(self._failure).__name__}"
            raise RuntimeError(msg) from self._failure

    def drain(self) -> None:
        """Begin nothing more. Takes no lock: a signal may come while one is held."""
        self._draining = True

    def idle(self) -> bool:
        """Tell whether nothing is running, and nothing will. Raises what broke a thread."""
        with self._low:
            self._raise_failure()
            waiting = not self._draining and (self._delayed or any(self._queues.values()))
            return not waiting and not self._running.total()

    def reached(self, tenant: Tenant) -> None:
        """Take note that a visit has its session: if it is the probe, the others may go on."""
        breaker = self._breakers.of(tenant.server)
        if breaker is None or breaker.is_quiet:
            # As for nearly all visits of a run: they do not pay for the lock.
            return
        with self._work_there:
            closed = self._breakers.reached(tenant)
            self._work_there.notify_all()
        if closed is not None:
            self._breakers.emit(closed)

    def abandon(self, request: Request) -> None:
        """Give up the thread that is stuck in ``request``; another takes its place."""
        with self._work_there:
            stuck = [n for n, rest in self._open.items() if rest and rest[0] == request]
            for name in stuck:
                self._open[name].popleft()
                self._end_visit(name, self._tenants[name])
        for _ in stuck:
            self._start_thread()

    def fail(self, error: BaseException) -> None:
        """Begin nothing more, and let the runner know why."""
        with self._low:
            self._failure = self._failure or error
            self._draining = True
            self._low.notify()

    def left(self) -> tuple[list[Request], list[Request]]:
        """Return the requests that never began, and those that have begun and not ended."""
        with self._low:
            waiting = [visit for queue in self._queues.values() for visit in queue]
            waiting += [visit for _, _, visit in self._delayed]
            queued = [request for visit in waiting for request in visit.requests]
            # Each is copied once: its thread takes what it has finished from it all the time.
            taken = [tuple(requests) for requests in self._open.values()]
        begun = [requests[0] for requests in taken if requests]
        behind = [r for requests in taken for r in requests[1:]]
        return queued + behind, begun

    def close(self) -> None:
        """Let the threads end."""
        with self._work_there:
            self._closed = True
            self._work_there.notify_all()

    def _work(self, name: str) -> None:
        while (taken := self._take(name)) is not None:
            visit, perform = taken
            try:
                self._visit(name, visit, perform)
            except BaseException as error:  # noqa: BLE001 - a broken runner must not look idle
                # What this visit has not delivered may have been done: nobody may do it again.
                self._failure = error
                self._draining = True
            with self._work_there:
                if name not in self._open:
                    # Abandoned as stuck, and back at last: another thread has its place.
                    return
                self._end_visit(name, visit.tenant)

    def _take(self, name: str) -> tuple[VisitRequest, Perform] | None:
        """Return the next visit and what is to be done with it."""
        with self._work_there:
            while not self._closed:
                if (server := self._next_server()) is not None:
                    visit = self._begin(name, server)
                    self._breakers.begin(visit.tenant)
                    return visit, self._perform
                if (server := self._hopeless()) is not None:
                    return self._begin(name, server), self._breakers.leave_out
                self._work_there.wait(self._until_due())
            return None

    def _until_due(self) -> float | None:
        """Return how long a thread may wait before a delayed visit, or a probe, is due."""
        if self._draining:
            return None
        dues = [self._delayed[0][0]] if self._delayed else []
        probe = self._breakers.due(self._roomy())
        if probe is not None:
            dues.append(probe)
        return max(min(dues) - time.monotonic(), 0.0) if dues else None

    def _admit_due(self, *, all_of_them: bool = False) -> None:
        now = math.inf if all_of_them else time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            visit = heapq.heappop(self._delayed)[2]
            self._queues[visit.tenant.server].append(visit)

    def _begin(self, name: str, server: str) -> VisitRequest:
        visit = self._queues[server].popleft()
        self._running[server] += 1
        self._open[name] = deque(visit.requests)
        self._tenants[name] = visit.tenant
        if len(self._queues[server]) <= self._low_water:
            self._low.notify()
        return visit

    def _roomy(self) -> list[str]:
        return [
            server
            for server, queue in self._queues.items()
            if queue and self._running[server] < self._permits[server]
        ]

    def _next_server(self) -> str | None:
        if self._draining:
            return None
        self._admit_due()
        open_ = [server for server in self._roomy() if self._breakers.admits(server)]
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

    def _visit(self, name: str, visit: VisitRequest, perform: Perform) -> None:
        attempts = perform(visit)
        requests = self._open[name]
        refused = False
        try:
            for result in attempts:
                if not refused:
                    # Of one connect, however many jobs wait for it.
                    self._note(visit.tenant, result)
                refused = result.unreached
                self._on_result(result)
                if self._open.get(name) is not requests:
                    break
                requests.popleft()
                if self._draining:
                    break
        finally:
            attempts.close()  # type: ignore[attr-defined] # a generator: it ends the visit

    def _note(self, tenant: Tenant, result: Result) -> None:
        breaker = self._breakers.of(tenant.server)
        if breaker is None or (breaker.is_quiet and not result.unreached):
            return
        with self._work_there:
            happened = self._breakers.note(tenant, result)
            self._work_there.notify_all()
        if happened is not None:
            self._breakers.emit(happened)

    def _end_visit(self, name: str, tenant: Tenant) -> None:
        """Give the permit back, and queue again what was not begun. The caller holds the lock."""
        self._running[tenant.server] -= 1
        self._breakers.ended(tenant)
        rest = self._open.pop(name)
        if rest:
            visit = VisitRequest(tenant=tenant, requests=tuple(rest))
            self._queues[tenant.server].append(visit)
        # One permit is free, and this thread itself comes back for it: none is woken up.
        if self._draining or not self._running.total():
            self._low.notify()
