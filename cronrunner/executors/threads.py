"""Visits in threads of this process.

A visit takes a permit of its server when it begins and gives it back when it ends, so a
server never has more visits than permits, and a thread never waits for a permit while another
server has room. Among servers with room the one with the fewest running visits goes first: a
server that hangs keeps the threads it has and gets no more while others want them.

The threads are daemons: nothing in Python can end a thread that hangs, and it must not keep
the process from ending.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence

from cronrunner.errors import CronrunnerError
from cronrunner.executors.base import OnResult, Perform
from cronrunner.model import Request, VisitRequest


class ThreadExecutor:
    """Carries out visits in ``concurrency`` threads."""

    def __init__(
        self,
        perform: Perform,
        on_result: OnResult,
        *,
        concurrency: int,
        permits: Mapping[str, int],
    ) -> None:
        self.concurrency = concurrency
        self._perform = perform
        self._on_result = on_result
        self._permits = permits
        self._queues: dict[str, deque[VisitRequest]] = {server: deque() for server in permits}
        self._running: Counter[str] = Counter()
        #: Thread -> what it has taken on and not finished; its first one has begun.
        self._open: dict[str, deque[Request]] = {}
        lock = threading.Lock()
        #: For the threads: there may be something to take.
        self._work_there = threading.Condition(lock)
        #: For the runner: a queue is running low, or nothing is running.
        self._low = threading.Condition(lock)
        self._low_water = max(concurrency // 2, 1)
        self._draining = False
        self._closed = False
        self._failure: BaseException | None = None
        for number in range(concurrency):
            name = f"visit-{number}"
            threading.Thread(target=self._work, args=(name,), name=name, daemon=True).start()

    def submit(self, visits: Sequence[VisitRequest]) -> None:
        """Take visits on."""
        with self._work_there:
            for visit in visits:
                self._queues[visit.tenant.server].append(visit)
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
            waiting = not self._draining and any(self._queues.values())
            return not waiting and not self._running.total()

    def left(self) -> tuple[list[Request], list[Request]]:
        """Return the requests that never began, and those that have begun and not ended."""
        with self._low:
            queued = [r for queue in self._queues.values() for v in queue for r in v.requests]
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
        while (visit := self._take(name)) is not None:
            try:
                self._visit(name, visit)
            except BaseException as error:  # noqa: BLE001 - a broken runner must not look idle
                # What this visit has not delivered may have been done: nobody may do it again.
                self._failure = error
                self._draining = True
            finally:
                self._give_back(name, visit)

    def _take(self, name: str) -> VisitRequest | None:
        with self._work_there:
            while not self._closed:
                server = None if self._draining else self._next_server()
                if server is not None:
                    return self._begin(name, server)
                self._work_there.wait()
            return None

    def _begin(self, name: str, server: str) -> VisitRequest:
        visit = self._queues[server].popleft()
        self._running[server] += 1
        self._open[name] = deque(visit.requests)
        if len(self._queues[server]) <= self._low_water:
            self._low.notify()
        return visit

    def _next_server(self) -> str | None:
        roomy = [
            server
            for server, queue in self._queues.items()
            if queue and self._running[server] < self._permits[server]
        ]
        return min(roomy, key=lambda server: self._running[server], default=None)

    def _visit(self, name: str, visit: VisitRequest) -> None:
        attempts = self._perform(visit)
        requests = self._open[name]
        try:
            for result in attempts:
                self._on_result(result)
                requests.popleft()
                if self._draining:
                    break
        finally:
            attempts.close()  # type: ignore[attr-defined] # a generator: it ends the visit

    def _give_back(self, name: str, visit: VisitRequest) -> None:
        with self._work_there:
            self._running[visit.tenant.server] -= 1
            rest = self._open.pop(name)
            if rest:
                self._queues[visit.tenant.server].append(
                    VisitRequest(tenant=visit.tenant, requests=tuple(rest))
                )
            # One permit is free, and this thread itself comes back for it: none is woken up.
            if self._draining or not self._running.total():
                self._low.notify()
