"""One run: discover, plan, claim, execute, record, report.

The runner owns the run's place in the ledger and writes its outcomes; whoever carries out
visits only returns results. It knows what is to be done and what was done; what a job is,
and how a tenant is reached, it does not know: ``app`` hands in functions for that.

The order of a run: every ``prepare`` first, then tenants and fleet-scope jobs side by side,
then every ``summarize`` whose tenants are all closed. Claims run ahead of the threads by at
most twice the concurrency, so that they can be taken in groups.

A drain (a signal) stops the claiming, and nothing new begins. What runs may go on for the
grace; what still runs then is recorded as interrupted, and what never began as skipped: in
the end every planned execution has one outcome, or is counted as a duplicate or as held.

A ledger that is lost ends the run in the same way, but that running work may go on until the
lease is over: after that it may be another run's. The ledger's spool takes the outcomes.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from cronrunner.errors import ConfigError, LedgerError
from cronrunner.events import (
    AttemptFailed,
    ClaimRefused,
    DiscoveryFailed,
    DiscoveryShrank,
    ExecutionFinished,
    JobFileBroken,
    OutcomesSpooled,
    RunDraining,
    RunFinished,
    RunInterruptedFound,
    RunPlanned,
    RunStarted,
    TenantRefused,
    TenantsDiscovered,
    Warned,
)
from cronrunner.executors import Executor
from cronrunner.model import (
    FLEET,
    FLEET_TENANT,
    Claims,
    ExitCode,
    Holder,
    Key,
    Outcome,
    Overlap,
    Plan,
    Reason,
    Report,
    Request,
    Result,
    RetryPolicy,
    Source,
    Spooled,
    State,
    Tenant,
    Visit,
    VisitRequest,
    check_transition,
)
from cronrunner.retry import delay_before_next
from cronrunner.runner.orders import Hooks, Order, Parts
from cronrunner.runner.tally import Tally
from cronrunner.runner.texts import shrink_text, spooled_text

#: How soon the runner notices a signal; also how long it waits for a prepare of another run.
_TICK_SECONDS: Final = 0.1
#: How long cancelled work may take to end, after the grace of a drain.
_CANCEL_SECONDS: Final = 1.5
#: How soon the runner notices that an earlier slot has ended.
_OVERLAP_SECONDS: Final = 0.5


class Runner:
    """Carries out one order."""

    def __init__(self, order: Order, parts: Parts) -> None:
        self._order = order
        self._parts = parts
        self._run = order.run
        self._tally = Tally()
        self._errors: list[str] = []
        self._discovered: dict[str, int] = {}
        self._discovery_failed = False
        self._overlaps = {job.name: job.overlap for job in order.jobs}
        #: What waits for an earlier slot to end.
        self._overlapped: dict[Key, Tenant] = {}
        #: (job, slot key)
        self._unprepared: set[tuple[str, str]] = set()
        #: Slot key -> its instant.
        self._slots: dict[str, datetime] = {}
        #: Why nothing more begins; ``None`` as long as the run goes on.
        self._ending: Reason | None = None
        self._ended_by = ""
        self._ending_at = 0.0
        self._signalled = threading.Event()
        self._ledger_lost = False
        self._draining = False
        self._executor: Executor | None = None
        self._failure_limit: int | None = None
        self._started = time.monotonic()

    def drain(self, signal: str) -> None:
        """Begin nothing more. Takes no lock: it is called from a signal handler."""
        self._end_early(Reason.DRAINED, signal)

    def _end_early(self, ending: Reason, by: str) -> None:
        if self._ending is None:
            self._ending_at = time.monotonic()
        self._ending, self._ended_by = ending, by
        self._signalled.set()
        if self._executor is not None:
            self._executor.drain()

    def _lose_ledger(self) -> None:
        """Begin nothing more, since nothing can be claimed. Called by any thread."""
        self._ledger_lost = True
        if self._ending is None:
            self._end_early(Reason.LEDGER_LOST, "ledger")

    def _is_ending(self) -> bool:
        """Tell whether nothing more is to begin; notice that the deadline or the lease is over."""
        if not self._ledger_lost and self._parts.ledger.is_lease_over():
            self._lose_ledger()
        limit = self._order.deadline
        elapsed = timedelta(seconds=time.monotonic() - self._started)
        if self._ending is None and limit is not None and elapsed >= limit:
            self._end_early(Reason.DRAINED, "deadline")
        return self._ending is not None

    def run(self) -> Report:
        """Carry out the order. Raises ``LedgerError`` when the ledger is lost."""
        self._open()
        plan = Plan(visits=())
        try:
            try:
                plan = self._parts.plan(self._discover())
            except ConfigError as error:
                self._errors += [str(problem) for problem in error.problems]
                # A tenant that is not found may be on the server that did not answer.
                forced = None if self._discovery_failed else ExitCode.USAGE
                return self._close(plan, forced=forced)
            self._reserve(plan.executions)
            self._carry_out(plan)
            return self._close(plan)
        except LedgerError as error:
            spooled = self._leave(plan, error)
            if spooled is None:
                raise
            raise LedgerError(f"{error}; {spooled_text(spooled)}") from error

    # Before the fan-out.

    def _open(self) -> None:
        run, emit = self._run, self._parts.events.emit
        left = self._parts.ledger.begin_run(
            run,
            fleet=self._order.fleet,
            selection=self._order.selection,
            on_lost=self._lose_ledger,
        )
        lateness = None if run.scheduled_at is None else run.started_at - run.scheduled_at
        emit(RunStarted(run=run, lateness=lateness))
        for dead, executions in left.items():
            emit(RunInterruptedFound(run=dead, executions=executions))
        for problem in self._order.broken:
            self._errors.append(problem)
            emit(JobFileBroken(problem=problem))

    def _reserve(self, executions: int) -> None:
        """Reserve room for outcomes that the ledger may not take; without it the run goes on."""
        try:
            self._parts.ledger.reserve_spool(executions)
        except OSError as error:
            why = error.strerror or type(error).__name__
            text = f"outcomes cannot be spooled if the ledger is lost: {why}"
            self._parts.events.emit(Warned(subject="ledger", text=text))

    def _discover(self) -> list[Tenant]:
        found: list[Tenant] = []
        for source in self._parts.discover():
            self._discovered[source.server] = len(source.tenants)
            found += self._take_source(source)
        return found

    def _take_source(self, source: Source) -> Sequence[Tenant]:
        emit = self._parts.events.emit
        for reason in source.refused:
            emit(TenantRefused(server=source.server, reason=reason))
        if source.failure is not None:
            error = source.error or source.failure
            self._fail_discovery(f"server {source.server}: discovery failed: {error}")
            emit(DiscoveryFailed(server=source.server, reason=source.failure, error=error))
            return ()
        shrink = self._parts.shrink(source)
        if shrink is None or self._order.accept_shrink:
            names = [tenant.name for tenant in source.tenants]
            self._parts.ledger.accept_tenants(source.server, names)
        else:
            self._fail_discovery(shrink_text(shrink))
            emit(DiscoveryShrank(shrink=shrink))
        emit(TenantsDiscovered(server=source.server, tenants=len(source.tenants)))
        return source.tenants

    def _fail_discovery(self, text: str) -> None:
        self._discovery_failed = True
        self._errors.append(text)

    # The fan-out.

    def _carry_out(self, plan: Plan) -> None:
        hooks = Hooks(on_result=self._take_result, on_stuck=self._take_stuck, pause=self._pause)
        if self._order.max_failures is not None:
            self._failure_limit = self._order.max_failures.of(plan.executions)
        executor = self._executor = self._parts.executor(plan, hooks)
        if self._is_ending():
            executor.drain()
        self._parts.events.emit(
            RunPlanned(
                run=self._run,
                tenants=len(plan.visits),
                executions=plan.executions,
                concurrency=executor.concurrency,
            )
        )
        try:
            self._set_aside(plan)
            self._prepare(plan, executor)
            canary, rest = plan.visits[: self._order.canary], plan.visits[self._order.canary :]
            if canary:
                self._visit_all(canary, executor)
                self._judge_canary()
            self._visit_all([*_fleet_visits(plan), *rest], executor)
            self._summarize(plan, executor)
        finally:
            executor.close()

    def _set_aside(self, plan: Plan) -> None:
        """Record what is planned and not done; what closes its claim takes it first."""
        closing = {self._key(each.job, each.tenant): each for each in plan.set_aside if each.closes}
        claims = self._claim(list(closing))
        self._count_refused(claims)
        for key, fence in claims.granted.items():
            with self._tally.lock:
                self._tally.open[key] = closing[key].tenant
            self._end(self._request(key, fence), Outcome.SKIPPED, closing[key].reason)
        for each in plan.set_aside:
            if not each.closes:
                self._leave_out(each.tenant, each.job, each.reason)

    def _prepare(self, plan: Plan, executor: Executor) -> None:
        """Run the ``prepare`` of every planned job; note the jobs whose prepare failed."""
        prepared = {job.name: job.prepare_name for job in self._order.jobs if job.prepare}
        wanted = {pair for pair in self._planned_slots(plan) if pair[0] in prepared}
        waiting = [Key(job=prepared[n], tenant=FLEET, slot_key=slot) for n, slot in sorted(wanted)]
        while waiting and not self._is_ending():
            claims = self._claim(waiting)
            self._submit([(FLEET_TENANT, [key]) for key in claims.granted], claims, executor)
            self._settle(executor)
            waiting = list(claims.held)
            if waiting:
                # Another run is preparing for all: its value is awaited, not made twice.
                executor.wait(_TICK_SECONDS)
        if self._ledger_lost:
            return
        self._unprepared |= {pair for pair in wanted if not self._parts.is_prepared(*pair)}

    def _planned_slots(self, plan: Plan) -> set[tuple[str, str]]:
        """Return (job, slot key) of all that is planned."""
        visits = [*plan.visits, *_fleet_visits(plan)]
        keys = (self._key(name, visit.tenant) for visit in visits for name in visit.jobs)
        return {(key.job, key.slot_key) for key in keys}

    def _key(self, job: str, tenant: Tenant) -> Key:
        slot = self._order.slot_of(job, tenant)
        self._slots[slot.key] = slot.at
        return Key(job=job, tenant=tenant.name, slot_key=slot.key)

    def _visit_all(self, visits: Sequence[Visit], executor: Executor) -> None:
        """Feed visits to the executor, server by server, a little ahead of it."""
        waiting: dict[str, deque[Visit]] = defaultdict(deque)
        for visit in visits:
            waiting[visit.tenant.server].append(visit)
        while any(waiting.values()) and not self._is_ending():
            share = max(2, 2 * executor.concurrency // len(waiting))
            chunk: list[Visit] = []
            for server, queue in waiting.items():
                queued = executor.queued(server)
                room = share - queued if queued <= share // 2 else 0
                chunk += [queue.popleft() for _ in range(min(room, len(queue)))]
            waiting = {server: queue for server, queue in waiting.items() if queue}
            if chunk:
                self._begin(chunk, executor)
            else:
                executor.wait(_TICK_SECONDS)
        self._wait_for_overlapped(executor)
        # What runs may go on meanwhile: for a large fleet this takes as long as the grace.
        for visit in (each for queue in waiting.values() for each in queue):
            for name in visit.jobs:
                self._leave_out(visit.tenant, name, self._ending or Reason.DRAINED)
        self._settle(executor)

    def _judge_canary(self) -> None:
        if self._tally.failures and not self._is_ending():
            self._errors.append(f"stopped: {self._tally.failures} failed among the canaries")
            self._end_early(Reason.STOPPED, "canary")

    def _begin(self, visits: Sequence[Visit], executor: Executor) -> None:
        """Claim the executions of some visits and hand over those that were granted."""
        wanted: list[tuple[Tenant, list[Key]]] = []
        for visit in visits:
            keys = [self._key(name, visit.tenant) for name in visit.jobs]
            for key in keys:
                if (key.job, key.slot_key) in self._unprepared:
                    self._leave_out(visit.tenant, key.job, Reason.PREPARE_FAILED)
            ready = [key for key in keys if (key.job, key.slot_key) not in self._unprepared]
            wanted.append((visit.tenant, ready))
        self._begin_keys(wanted, executor)

    def _begin_keys(
        self, wanted: Sequence[tuple[Tenant, Sequence[Key]]], executor: Executor
    ) -> None:
        claims = self._claim([key for _, keys in wanted for key in keys])
        self._count_refused(claims)
        for tenant, key in ((tenant, key) for tenant, keys in wanted for key in keys):
            self._overlapped.pop(key, None)
            if key in claims.overlapping:
                self._take_overlapping(tenant, key, claims.overlapping[key])
            elif not claims.answers(key):
                self._leave_out_key(tenant, key, Reason.LEDGER_LOST)
        self._submit(wanted, claims, executor)

    def _take_overlapping(self, tenant: Tenant, key: Key, holder: Holder) -> None:
        """Let what overlaps wait, or leave it out and say for whom."""
        if self._overlaps[key.job] is Overlap.WAIT:
            self._overlapped[key] = tenant
            return
        since = f"{holder.since:%Y-%m-%dT%H:%M:%SZ}"
        reason = f"{Reason.OVERLAP}: run {holder.run} is at work on it since {since}"
        self._leave_out_key(tenant, key, reason)

    def _wait_for_overlapped(self, executor: Executor) -> None:
        """Begin what waits for earlier slots as soon as they have ended; no thread waits."""
        while self._overlapped and not self._is_ending():
            executor.wait(_OVERLAP_SECONDS)
            self._begin_keys([(t, [key]) for key, t in self._overlapped.items()], executor)
        for key, tenant in self._overlapped.items():
            self._leave_out_key(tenant, key, self._ending or Reason.DRAINED)
        self._overlapped.clear()

    def _count_refused(self, claims: Claims) -> None:
        self._tally.duplicates += len(claims.duplicates)
        self._tally.held += len(claims.held)

    def _claim(self, keys: Sequence[Key]) -> Claims:
        """Take what can be had; nothing at all when the ledger is lost meanwhile."""
        none = Claims(granted={}, duplicates={}, held={})
        if not keys:
            return none
        alone = frozenset(name for name, how in self._overlaps.items() if how is not Overlap.ALLOW)
        try:
            claims = self._parts.ledger.claim(keys, repeat=self._order.repeat, alone=alone)
        except LedgerError:
            if not self._ledger_lost:
                raise
            return none
        for refused, held in ((claims.duplicates, False), (claims.held, True)):
            for key, holder in refused.items():
                self._parts.events.emit(ClaimRefused(key=key, holder=holder, held=held))
        return claims

    def _submit(
        self, wanted: Iterable[tuple[Tenant, Sequence[Key]]], claims: Claims, executor: Executor
    ) -> None:
        visits: list[VisitRequest] = []
        for tenant, keys in wanted:
            requests = tuple(
                self._request(key, claims.granted[key]) for key in keys if key in claims.granted
            )
            if requests:
                visits.append(VisitRequest(tenant=tenant, requests=requests))
        with self._tally.lock:
            self._tally.open.update(
                (request.key, visit.tenant) for visit in visits for request in visit.requests
            )
        executor.submit(visits)

    def _request(self, key: Key, fence: int) -> Request:
        run, slot = self._run, self._slots[key.slot_key]
        return Request(key=key, run=run.id, slot=slot, attempt=1, fence=fence, dry_run=run.dry_run)

    def _settle(self, executor: Executor) -> None:
        """Wait for what was handed over; after a signal, for the grace only."""
        while not self._is_ending() and not executor.idle():
            executor.wait(_TICK_SECONDS)
        if self._is_ending():
            self._drain(executor)

    def _drain(self, executor: Executor) -> None:
        _, begun = executor.left()
        if not self._draining:
            self._draining = True
            self._parts.events.emit(RunDraining(signal=self._ended_by, running=len(begun)))
        grace = math.inf if self._ledger_lost else self._order.grace.total_seconds()
        while self._ending_at + grace > time.monotonic() and not executor.idle():
            if self._parts.ledger.is_lease_over():
                break
            executor.wait(_TICK_SECONDS)
        if not executor.idle():
            self._parts.cancel()
            cancelled = time.monotonic()
            while time.monotonic() < cancelled + _CANCEL_SECONDS and not executor.idle():
                executor.wait(_TICK_SECONDS)
        never_began, begun = executor.left()
        for request in never_began:
            self._end(request, Outcome.SKIPPED, self._ending or Reason.DRAINED)
        for request in begun:
            self._end(request, Outcome.INTERRUPTED, Reason.GRACE_EXPIRED, State.RUNNING)

    def _summarize(self, plan: Plan, executor: Executor) -> None:
        """Run each ``summarize`` whose tenants are all closed; never for a part of the fleet.

        A discovery that failed or shrank gave a part of it.
        """
        if not self._order.fleet or self._discovery_failed:
            return
        self._parts.ledger.flush()
        jobs = {job.name: job for job in self._order.jobs if job.summarize}
        # Also of those of which nothing is left but the summary.
        slots = {(name, self._key(name, FLEET_TENANT).slot_key) for name in jobs}
        slots |= self._planned_slots(plan)
        keys = [
            Key(job=jobs[name].summarize_name, tenant=FLEET, slot_key=slot)
            for name, slot in sorted(slots - self._unprepared)
            if name in jobs and self._parts.is_closed(jobs[name], slot)
        ]
        if self._is_ending():
            for key in keys:
                self._leave_out_key(FLEET_TENANT, key, self._ending or Reason.DRAINED)
            return
        claims = self._claim(keys)
        self._submit([(FLEET_TENANT, [key]) for key in claims.granted], claims, executor)
        self._settle(executor)

    def _pause(self, delay: timedelta) -> None:
        self._signalled.wait(delay.total_seconds())

    # Results.

    def _take_result(self, result: Result, state: State = State.RUNNING) -> None:
        """Record a result, once: after the grace the runner itself has recorded one."""
        check_transition(state, result.outcome)
        key = result.request.key
        delay = self._delay_before_next(result)
        with self._tally.lock:
            tenant = self._tally.open.get(key)
            if tenant is None:
                return
            if delay is None:
                del self._tally.open[key]
                self._tally.add(result)
            self._heed_failures()
        if delay is not None:
            self._repeat(result, tenant, delay)
            return
        job, _, hook = key.job.partition(":")
        if result.value is not None:
            self._parts.ledger.keep_prepared(job, key.slot_key, result.value)
        elif hook == "prepare":
            # Also with --again, when an earlier value of the slot is there.
            self._unprepared.add((job, key.slot_key))
        self._parts.ledger.record(result)
        self._parts.events.emit(ExecutionFinished(result=result))

    def _heed_failures(self) -> None:
        """Stop at the limit of failures, once. The caller holds the tally's lock."""
        limit = self._failure_limit
        if limit is not None and self._tally.failures >= limit and self._ending is None:
            self._errors.append(f"stopped: {limit} failures are the limit")
            self._end_early(Reason.STOPPED, "failure limit")

    def _delay_before_next(self, result: Result) -> timedelta | None:
        """Return when a failed attempt is repeated, ``None`` for never."""
        if not result.transient or result.outcome is not Outcome.FAILED or self._is_ending():
            return None
        policy = result.policy or RetryPolicy()
        return delay_before_next(
            policy, result.request.attempt, asked=result.retry_after, rng=self._parts.rng
        )

    def _repeat(self, result: Result, tenant: Tenant, delay: timedelta) -> None:
        """Make another attempt new work, behind the others; no thread waits for it."""
        self._parts.ledger.record(replace(result, final=False))
        self._parts.events.emit(AttemptFailed(result=result, delay=delay))
        request = replace(result.request, attempt=result.request.attempt + 1)
        if self._executor is not None:
            visit = VisitRequest(tenant=tenant, requests=(request,))
            self._executor.submit([visit], delay=delay)

    def _take_stuck(self, result: Result) -> None:
        """Record an attempt that cannot be ended, and go on without its thread."""
        executor = self._executor
        if executor is None:
            return
        try:
            self._take_result(result)
        except LedgerError as error:
            # The watchdog's thread must live; the runner hears of it.
            executor.fail(error)
        finally:
            executor.abandon(result.request)

    def _leave_out(self, tenant: Tenant, job: str, reason: str) -> None:
        """Record that a planned execution was never claimed."""
        self._leave_out_key(tenant, self._key(job, tenant), reason)

    def _leave_out_key(self, tenant: Tenant, key: Key, reason: str) -> None:
        request = self._request(key, fence=0)
        with self._tally.lock:
            self._tally.open[key] = tenant
        self._end(request, Outcome.SKIPPED, reason)

    def _end(
        self, request: Request, outcome: Outcome, reason: str, state: State = State.CLAIMED
    ) -> None:
        """Give an outcome to an execution that has none of its own."""
        self._take_result(
            Result(
                request=request,
                server=self._tally.open.get(request.key, FLEET_TENANT).server,
                outcome=outcome,
                reason=str(reason),
                started_at=self._parts.clock(),
                duration_seconds=0.0,
                cause=str(reason) if outcome is Outcome.INTERRUPTED else None,
            ),
            state,
        )

    # After the fan-out.

    def _close(self, plan: Plan, *, forced: int | None = None) -> Report:
        self._parts.ledger.flush()
        report = self._report(plan, forced)
        for event in self._parts.ledger.finish_run(report, discovered=self._discovered):
            self._parts.events.emit(event)
        self._parts.events.emit(RunFinished(report=report))
        return report

    def _leave(self, plan: Plan, error: LedgerError) -> Spooled | None:
        """Close the run where its outcomes are: in the spool, if there is one."""
        self._errors.append(str(error))
        report = self._report(plan, ExitCode.RUNNER)
        spooled = self._parts.ledger.leave(report, discovered=self._discovered)
        if spooled is not None:
            self._parts.events.emit(OutcomesSpooled(run=self._run.id, spooled=spooled))
        return spooled

    def _report(self, plan: Plan, forced: int | None) -> Report:
        tally = self._tally
        return Report(
            run=self._run,
            finished_at=self._parts.clock(),
            duration_seconds=time.monotonic() - self._started,
            tenants=len(plan.visits),
            planned=plan.executions,
            outcomes=dict(tally.outcomes),
            duplicates=tally.duplicates,
            held=tally.held,
            errors=tuple(map(self._parts.redact, self._errors)),
            causes=tally.cause_counts(),
            unwell_tenants=len(tally.unwell),
            slowest=tally.slowest(),
            skips=dict(tally.skips),
            discovery_failed=self._discovery_failed,
            broken_jobs=len(self._order.broken),
            drained=self._ending is Reason.DRAINED and tally.left > 0,
            stopped=self._ending is Reason.STOPPED,
            forced=forced,
        )


def _fleet_visits(plan: Plan) -> list[Visit]:
    return [Visit(tenant=FLEET_TENANT, jobs=(name,)) for name in plan.fleet_jobs]
