"""The fan-out: prepare, feed the visits to the executor, settle or drain, summarize."""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Container, Sequence
from typing import Final

from cronrunner.events import RunDraining
from cronrunner.executors import Executor
from cronrunner.model import (
    FLEET,
    FLEET_TENANT,
    Key,
    Outcome,
    Plan,
    Reason,
    State,
    Visit,
    VisitRequest,
)
from cronrunner.runner.claiming import Claiming, Wanted
from cronrunner.runner.ending import Ending
from cronrunner.runner.orders import Order, Parts
from cronrunner.runner.pacing import Pace
from cronrunner.runner.results import Results

#: How soon the runner notices a signal; also how long it waits for a prepare of another run.
_TICK_SECONDS: Final = 0.1
#: How long cancelled work may take to end, after the grace of a drain.
_CANCEL_SECONDS: Final = 1.5
#: How soon the runner notices that an earlier slot has ended.
_OVERLAP_SECONDS: Final = 0.5


class FanOut:
    """Carries out a plan with one executor."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a run
        self,
        order: Order,
        parts: Parts,
        ending: Ending,
        results: Results,
        plan: Plan,
        executor: Executor,
    ) -> None:
        self._order = order
        self._parts = parts
        self._ending = ending
        self._results = results
        self._claiming = Claiming(order, parts, ending, results)
        self._plan = plan
        self._executor = executor
        self._draining = False
        self._pace = Pace()

    def prepare(self) -> None:
        """Run the ``prepare`` of every planned job; note the jobs whose prepare failed.

        One that is to be tried again later keeps its own job waiting, and no other.
        """
        self._claiming.set_aside(self._plan.set_aside)
        prepared = {job.name: job.prepare_name for job in self._order.jobs if job.prepare}
        wanted = self._planned_slots(prepared)
        waiting = [Key(job=prepared[n], tenant=FLEET, slot_key=slot) for n, slot in sorted(wanted)]
        while waiting and not self._ending.has_begun():
            waiting = self._do_for_fleet(waiting, and_again=False)
            if waiting:
                # Another run is preparing for all: its value is awaited, not made twice.
                self._executor.wait(_TICK_SECONDS)
        if not self._ending.ledger_lost:
            late = {pair for pair in wanted if self._is_late(prepared[pair[0]], pair[1])}
            unprepared = {pair for pair in wanted - late if not self._parts.is_prepared(*pair)}
            self._results.unprepared |= unprepared

    def _is_late(self, prepare: str, slot_key: str) -> bool:
        return self._results.is_repeated(Key(job=prepare, tenant=FLEET, slot_key=slot_key))

    def visit(self, visits: Sequence[Visit]) -> None:
        """Feed visits to the executor, server by server, a little ahead of it."""
        waiting: dict[str, deque[Visit]] = defaultdict(deque)
        for visit in visits:
            waiting[visit.tenant.server].append(visit)
        while any(waiting.values()) and not self._ending.has_begun():
            chunk = self._next(waiting)
            waiting = {server: queue for server, queue in waiting.items() if queue}
            if chunk:
                self._begin([self._claiming.ready(visit) for visit in chunk])
            else:
                self._executor.wait(_TICK_SECONDS)
        self._wait_for_overlapped()
        # What runs may go on meanwhile: for a large fleet this takes as long as the grace.
        for visit in (each for queue in waiting.values() for each in queue):
            for name in visit.jobs:
                key = self._claiming.key(name, visit.tenant)
                self._claiming.leave_out(visit.tenant, key, self._why_left())
        self._settle()
        held_back, self._claiming.held_back = self._claiming.held_back, []
        if held_back:
            # All is idle: each of these is prepared by now, or will not be.
            self.visit(held_back)

    def visit_fleet(self, visits: Sequence[Visit]) -> None:
        """Visit these, and do the fleet-scope jobs beside them."""
        self.visit([*_fleet_visits(self._plan), *visits])

    def summarize(self) -> None:
        """Run each ``summarize`` whose tenants are all closed."""
        self._parts.ledger.flush()
        jobs = {job.name: job for job in self._order.jobs if job.summarize}
        # Also of those of which nothing is left but the summary.
        slots = {(name, self._claiming.key(name, FLEET_TENANT).slot_key) for name in jobs}
        slots |= self._planned_slots(jobs)
        keys = [
            Key(job=jobs[name].summarize_name, tenant=FLEET, slot_key=slot)
            for name, slot in sorted(slots - self._results.unprepared)
            if name in jobs and self._parts.is_closed(jobs[name], slot)
        ]
        if self._ending.has_begun():
            for key in keys:
                self._claiming.leave_out(FLEET_TENANT, key, self._why_left())
        else:
            self._do_for_fleet(keys)

    def _do_for_fleet(self, keys: Sequence[Key], *, and_again: bool = True) -> list[Key]:
        """Do what is once for the fleet, one visit each; return what another run is doing.

        What fails and is to be repeated is waited for, unless ``and_again`` is false.
        """
        claims = self._claiming.claim(keys)
        wanted: list[Wanted] = [(FLEET_TENANT, [key]) for key in claims.granted]
        first = self._results.first_attempts = set() if and_again else set(claims.granted)
        self._submit(self._claiming.granted(wanted, claims))
        while first and not self._ending.has_begun():
            self._executor.wait(_TICK_SECONDS)
        if and_again or self._ending.has_begun():
            self._settle()
        return list(claims.held)

    def _planned_slots(self, jobs: Container[str]) -> set[tuple[str, str]]:
        """Return (job, slot key) of what is planned of these jobs."""
        visits = [*self._plan.visits, *_fleet_visits(self._plan)]
        pairs = ((name, visit.tenant) for visit in visits for name in visit.jobs if name in jobs)
        keys = (self._claiming.key(name, tenant) for name, tenant in pairs)
        return {(key.job, key.slot_key) for key in keys}

    def _next(self, waiting: dict[str, deque[Visit]]) -> list[Visit]:
        """Take what the executor has room for: claims run ahead of its threads, but not far."""
        share = max(2, 2 * self._executor.concurrency // len(waiting))
        chunk: list[Visit] = []
        for server, queue in waiting.items():
            queued, now = self._executor.queued(server), time.monotonic()
            room = min(self._pace.room(server, queued, least=share, now=now), len(queue))
            if room:
                chunk += [queue.popleft() for _ in range(room)]
                self._pace.filled(server, queued + room, now=now)
        return chunk

    def _begin(self, wanted: Sequence[Wanted]) -> None:
        self._submit(self._claiming.take(wanted))

    def _submit(self, visits: Sequence[VisitRequest]) -> None:
        self._executor.submit(visits)

    def _wait_for_overlapped(self) -> None:
        """Begin what waits for earlier slots as soon as they have ended; no thread waits."""
        overlapped = self._claiming.overlapped
        while overlapped and not self._ending.has_begun():
            self._executor.wait(_OVERLAP_SECONDS)
            self._begin([(tenant, [key]) for key, tenant in overlapped.items()])
        for key, tenant in overlapped.items():
            self._claiming.leave_out(tenant, key, self._why_left())
        overlapped.clear()

    def _why_left(self) -> Reason:
        return self._ending.reason or Reason.DRAINED

    def _settle(self) -> None:
        """Wait for what was handed over; after a signal, for the grace only."""
        while not self._ending.has_begun() and not self._executor.idle():
            self._executor.wait(_TICK_SECONDS)
        if self._ending.has_begun():
            self._drain()

    def _drain(self) -> None:
        executor = self._executor
        if not self._draining:
            self._draining = True
            running = len(executor.left()[1])
            self._parts.events.emit(RunDraining(signal=self._ending.by, running=running))
        grace = math.inf if self._ending.ledger_lost else self._order.grace.total_seconds()
        self._await_idle(self._ending.at + grace, while_leased=True)
        if not executor.idle():
            self._parts.cancel()
            self._await_idle(time.monotonic() + _CANCEL_SECONDS, while_leased=False)
        never_began, begun = executor.left()
        for request in never_began:
            self._results.end(request, Outcome.SKIPPED, self._why_left())
        for request in begun:
            self._results.end(request, Outcome.INTERRUPTED, Reason.GRACE_EXPIRED, State.RUNNING)

    def _await_idle(self, until: float, *, while_leased: bool) -> None:
        """Wait until nothing runs, but no longer than to ``until`` in monotonic seconds."""
        while time.monotonic() < until and not self._executor.idle():
            if while_leased and self._parts.ledger.is_lease_over():
                break
            self._executor.wait(_TICK_SECONDS)


def _fleet_visits(plan: Plan) -> list[Visit]:
    return [Visit(tenant=FLEET_TENANT, jobs=(name,)) for name in plan.fleet_jobs]
