"""What carries out the visits of a run: threads, or several processes with threads each."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from cronrunner import logs
from cronrunner.app.visiting import Prepared, Serve
from cronrunner.errors import ProcessDied
from cronrunner.events import Dispatcher, Event, Warned
from cronrunner.execution import Attempt, Classifier, Work
from cronrunner.executors import (
    Breakers,
    Crew,
    Executor,
    Outside,
    Perform,
    ProcessExecutor,
    ThreadExecutor,
)
from cronrunner.model import FLEET, Plan, Request, Result, RetryPolicy, Tenant, VisitRequest
from cronrunner.processes import Processes
from cronrunner.runner import Hooks

if TYPE_CHECKING:
    from cronrunner.app import App


#: Subjects of warnings that say something of a server, which each process finds out by itself.
_OF_SERVERS: Final = frozenset({"connections", "server_lock"})


@dataclass(slots=True, kw_only=True)
class Spreading:
    """Makes the executor of a run."""

    app: App
    events: Dispatcher
    processes: Processes
    #: Those that processes may use, whatever this one keeps to.
    cpus: frozenset[int]
    #: Somebody is to see executions begin when they do, and not when they have ended.
    watched: bool
    #: (job, slot key) -> the prepared value as JSON.
    prepared: Callable[[str, str], str | None]
    #: Where the run keeps its rate limits.
    limits: str
    #: Lets every deadline in other processes expire.
    cancel: Callable[[], None] = field(default=lambda: None, init=False)
    warned: set[Warned] = field(default_factory=set, init=False)

    def executor(self, plan: Plan, hooks: Hooks, perform: Perform, *, concurrency: int) -> Executor:
        """Make the executor for a plan. ``perform`` makes visits in this process."""
        servers = sorted({visit.tenant.server for visit in plan.visits})
        permits = {FLEET: concurrency} | {name: self.app.permits(name) for name in servers}
        breakers = self._breakers(servers)
        processes = self.wanted(plan, concurrency)
        if processes == 1:
            return ThreadExecutor(
                perform,
                hooks.on_result,
                concurrency=concurrency,
                permits=permits,
                breakers=breakers,
            )
        executor = ProcessExecutor(
            perform,
            hooks.on_result,
            self._outside(hooks),
            list(self._crews(processes, concurrency, servers)),
            permits=permits,
            breakers=breakers,
            parted=[s for s in servers if self.app.settings.servers[s].connections == "reset"],
        )
        self.cancel = executor.cancel
        return executor

    def wanted(self, plan: Plan, concurrency: int) -> int:
        """Return how many processes make the visits of a plan; 1 is the run's own."""
        return max(min(self.app.settings.runner.processes, concurrency, len(plan.visits)), 1)

    def _breakers(self, servers: Iterable[str]) -> Breakers:
        known = self.app.settings.servers
        return Breakers(
            {name: known[name].connect_timeout for name in servers},
            rng=random.Random(),  # noqa: S311 - jitter, no secret
            clock=self.app.clock,
            emit=self.events.emit,
        )

    def _crews(self, processes: int, concurrency: int, servers: list[str]) -> Iterator[Crew]:
        settings = self.app.settings
        cpus = sorted(self.cpus) if settings.runner.one_cpu else []
        for number in range(processes):
            threads = concurrency // processes + (number < concurrency % processes)
            request = Serve(
                config=str(settings.path.absolute()),
                digest=settings.digest,
                options=self.app.catalogue.asked,
                limits=self.limits,
                threads=threads,
                servers=tuple(servers),
                cpu=cpus[number % len(cpus)] if cpus else None,
                cpus=self.cpus,
                prompt=self.watched or settings.log.level == "debug",
            )
            lane = self.processes.make(board=Crew.board_size(threads))
            yield Crew(lane=lane, request=request, threads=threads)

    def _outside(self, hooks: Hooks) -> Outside:
        return Outside(
            on_stuck=hooks.on_stuck,
            emit=self._emit,
            write=logs.rendered_lines(),
            kill=self._kill,
            died=self._died,
            policy=self._policy,
            needs=self._needs,
        )

    def _emit(self, event: Event) -> None:
        """Tell what a process has told, but for a warning that another one has told before."""
        if isinstance(event, Warned) and event.subject in _OF_SERVERS:
            if event in self.warned:
                return
            self.warned.add(event)
        self.events.emit(event)

    def _kill(self, server: str, number: int, sever: bool) -> bool | None:  # noqa: FBT001 - as a process asks
        try:
            sessions = self.app.engines.far(server)
        except Exception:  # noqa: BLE001 - the server cannot be asked
            return None
        sessions.add(number)
        return sessions.sever() if sever else sessions.cancel()

    def _died(
        self, request: Request, tenant: Tenant, since_seconds: float, error: ProcessDied
    ) -> Result:
        """Make the result of an attempt whose process died."""
        taken = timedelta(seconds=max(time.monotonic() - since_seconds, 0.0))
        attempt = Attempt(
            request=request,
            tenant=tenant,
            engine=None,
            started_at=self.app.clock() - taken,
            started=since_seconds,
            work=self._work(request, tenant),
            error=error,
        )
        return Classifier(self.app.redactor).result(attempt)

    def _policy(self, request: Request, tenant: Tenant) -> RetryPolicy | None:
        work = self._work(request, tenant)
        return None if work is None else work.job.retry

    def _work(self, request: Request, tenant: Tenant) -> Work | None:
        try:
            return self.app.catalogue.work(request, tenant, lambda *_: None, lambda *_: ())
        except Exception:  # noqa: BLE001 - its attempt has found the same
            return None

    def _needs(self, visit: VisitRequest) -> Iterator[Prepared]:
        jobs = self.app.catalogue.jobs
        for request in visit.requests:
            name = request.key.job
            if name in jobs and jobs[name].prepare is not None:
                yield Prepared(name, request.key.slot_key, self._value(request))

    def _value(self, request: Request) -> str | None:
        try:
            return self.prepared(request.key.job, request.key.slot_key)
        except Exception:  # noqa: BLE001 - the ledger: the attempt finds nothing prepared
            return None
