"""One run: discover, plan, claim, execute, record, report.

The runner owns the run's place in the ledger and writes its outcomes; whoever carries out
visits only returns results. It knows what is to be done and what was done; what a job is,
and how a tenant is reached, it does not know: ``app`` hands in functions for that.

The order of a run: every ``prepare`` first, then tenants and fleet-scope jobs side by side,
then every ``summarize`` whose tenants are all closed. Claims run a little ahead of the threads,
so that they can be taken in groups (``pacing``).

A drain (a signal) stops the claiming, and nothing new begins. What runs may go on for the
grace; what still runs then is recorded as interrupted, and what never began as skipped: in
the end every planned execution has one outcome, or is counted as a duplicate or as held.

A ledger that is lost ends the run in the same way, but that running work may go on until the
lease is over: after that it may be another run's. The ledger's spool takes the outcomes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cronrunner.errors import ConfigError, LedgerError
from cronrunner.events import (
    DiscoveryFailed,
    DiscoveryShrank,
    JobFileBroken,
    OutcomesSpooled,
    RunFinished,
    RunInterruptedFound,
    RunPlanned,
    RunStarted,
    TenantRefused,
    TenantsDiscovered,
    Warned,
)
from cronrunner.executors import Executor
from cronrunner.model import ExitCode, Plan, Reason, Report, Source, Tenant
from cronrunner.runner.ending import Ending
from cronrunner.runner.fanout import FanOut
from cronrunner.runner.orders import Hooks, Order, Parts, RunLost
from cronrunner.runner.results import Results
from cronrunner.runner.texts import shrink_text, spooled_text


class Runner:
    """Carries out one order."""

    def __init__(self, order: Order, parts: Parts) -> None:
        self._order = order
        self._parts = parts
        self._run = order.run
        self._errors: list[str] = []
        self._discovered: dict[str, int] = {}
        self._discovery_failed = False
        self._ending = Ending(order.deadline, parts.ledger.is_lease_over)
        self._results = Results(parts, self._ending, self._errors)

    def drain(self, signal: str) -> None:
        """Begin nothing more. Takes no lock: it is called from a signal handler."""
        self._ending.begin(Reason.DRAINED, signal)

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
            raise self._lost(plan, error) from error

    # Before the fan-out.

    def _open(self) -> None:
        run, emit = self._run, self._parts.events.emit
        left = self._parts.ledger.begin_run(
            run,
            fleet=self._order.fleet,
            selection=self._order.selection,
            on_lost=self._ending.lose_ledger,
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
        executor = self._executor(plan)
        self._parts.events.emit(
            RunPlanned(
                run=self._run,
                tenants=len(plan.visits),
                executions=plan.executions,
                concurrency=executor.concurrency,
                visits=plan.visits,
            )
        )
        fan_out = FanOut(self._order, self._parts, self._ending, self._results, plan, executor)
        canaries = self._order.canary
        try:
            fan_out.prepare()
            if canaries and plan.visits:
                fan_out.visit(plan.visits[:canaries])
                self._judge_canaries()
            fan_out.visit_fleet(plan.visits[canaries:])
            # A discovery that failed or shrank gave a part of the fleet.
            if self._order.fleet and not self._discovery_failed:
                fan_out.summarize()
        finally:
            executor.close()

    def _executor(self, plan: Plan) -> Executor:
        results, limit = self._results, self._order.max_failures
        hooks = Hooks(on_result=results.take, on_stuck=results.take_stuck, pause=self._ending.wait)
        executor = self._parts.executor(plan, hooks)
        failure_limit = None if limit is None else limit.of(plan.executions)
        results.go_to(executor, failure_limit=failure_limit)
        self._ending.drains(executor)
        return executor

    def _judge_canaries(self) -> None:
        failures = self._results.tally.failures
        if failures and not self._ending.has_begun():
            self._errors.append(f"stopped: {failures} failed among the canaries")
            self._ending.begin(Reason.STOPPED, "canary")

    # After the fan-out.

    def _close(self, plan: Plan, *, forced: int | None = None) -> Report:
        self._parts.ledger.flush()
        report = self._report(plan, forced)
        for event in self._parts.ledger.finish_run(report, discovered=self._discovered):
            self._parts.events.emit(event)
        self._parts.events.emit(RunFinished(report=report))
        return report

    def _lost(self, plan: Plan, error: LedgerError) -> RunLost:
        """Close the run where its outcomes are: in the spool, if there is one."""
        self._errors.append(str(error))
        report = self._report(plan, ExitCode.RUNNER)
        spooled = self._parts.ledger.leave(report, discovered=self._discovered)
        if spooled is None:
            return RunLost(str(error), report)
        self._parts.events.emit(OutcomesSpooled(run=self._run.id, spooled=spooled))
        text = f"{error}; {spooled_text(spooled)}"
        return RunLost(text, replace(report, errors=(*report.errors[:-1], text)))

    def _report(self, plan: Plan, forced: int | None) -> Report:
        tally, ending = self._results.tally, self._ending
        return Report(
            run=self._run,
            finished_at=self._parts.clock(),
            duration_seconds=ending.elapsed_seconds,
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
            example=tally.example(),
            unwell_duplicates=dict(tally.unwell_duplicates.most_common()),
            discovery_failed=self._discovery_failed,
            broken_jobs=len(self._order.broken),
            drained=ending.reason is Reason.DRAINED and tally.left > 0,
            stopped=ending.reason is Reason.STOPPED,
            forced=forced,
        )
