"""One run, put together: what it is to do, and the parts that it works with."""

from __future__ import annotations

import os
import random
import secrets
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from cronrunner import planning
from cronrunner.affinity import OneCpu, allowed_cpus
from cronrunner.app import dry, visiting
from cronrunner.app.asking import Asked, alerting, read_asked, remembered
from cronrunner.app.checks import warn_ledger_in_container
from cronrunner.app.choosing import choose_jobs
from cronrunner.app.delivering import Delivery
from cronrunner.app.due import Due, MissedSlots
from cronrunner.app.layout import lay_out
from cronrunner.app.pruning import prune_a_while
from cronrunner.app.run_options import RunOptions, refuse_contradictions, refuse_dry
from cronrunner.app.selections import selection_document, selection_of
from cronrunner.app.spreading import Spreading
from cronrunner.context import Shared
from cronrunner.events import DeadlineEnforced, Dispatcher, Listener, Warned
from cronrunner.execution import Isolated, Performer, Work
from cronrunner.executors import Executor
from cronrunner.ledger import ExecutionFilter
from cronrunner.ledger.dry import DryLedger
from cronrunner.ledger.liveness import boot, host, started
from cronrunner.limiting import Limits
from cronrunner.metrics.listener import MetricsListener
from cronrunner.model import (
    FLEET_TENANT,
    WELL,
    Job,
    Outcome,
    Plan,
    Reason,
    Repeat,
    Report,
    Request,
    Run,
    Slot,
    Source,
    Tenant,
)
from cronrunner.planning import Selection
from cronrunner.processes import Processes
from cronrunner.runner import Hooks, Order, Parts, Runner
from cronrunner.watchdog import Pulse, Watchdog

if TYPE_CHECKING:
    from cronrunner.app import App


def start_run(
    app: App,
    selection: Selection,
    options: RunOptions,
    *,
    listeners: Iterable[Listener],
    on_runner: Callable[[Runner], None] = lambda _: None,
) -> Report:
    """Run the selected jobs now. Raises ``ConfigError`` and ``LedgerError``.

    ``listeners`` get every event; the log is one of them. ``on_runner`` is given the runner
    before it starts, for whoever may have to drain it.
    """
    app.refuse_errors()
    counting, missed = MetricsListener(), MissedSlots()
    events = app.events = Dispatcher([counting, missed, *listeners])
    delivery = Delivery(app, events, counting)
    start = _Start(app, selection, options, events, missed)
    runner = Runner(start.order(), start.parts())
    on_runner(runner)
    with ExitStack() as stack:
        if app.settings.runner.one_cpu and app.settings.runner.processes == 1:
            stack.enter_context(OneCpu())
        stack.enter_context(Pulse(grace=app.settings.runner.grace, file=sys.__stderr__))
        stack.callback(start.close)
        delivery.serve(stack, port=options.metrics_port)
        report = runner.run()
        missed.tell(events)
        if not options.dry_run:
            delivery.keep()
            delivery.deliver()
            prune_a_while(app)
    return report


class _Start:
    """Puts one run together."""

    def __init__(
        self,
        app: App,
        selection: Selection,
        options: RunOptions,
        events: Dispatcher,
        missed: MissedSlots,
    ) -> None:
        self._app = app
        self._options = options
        self._events = events
        self._missed = missed
        refuse_contradictions(options)
        earlier = options.resume or options.only_failed
        #: The run that is to be resumed or repeated.
        self._earlier = None if earlier is None else app.find_run(earlier, with_work=True)
        refuse_dry(self._earlier)
        if self._earlier is not None and selection == Selection():
            selection = selection_of(self._earlier["selection"])
        self._selection = selection
        # Part of the start, as all imports are, and not of what is measured as the run.
        app.engines.load_drivers()
        self._run = self._make_run()
        #: Says the slot of each job and tenant; without it the run has one slot.
        self._due = None
        if self._is_due():
            whose = None if self._earlier is None else self._earlier["run"]
            at, now = self._run.slot.at, self._run.started_at
            self._due = Due(app.catalogue, app.queries, at, now=now, earlier=whose)
        self._jobs = choose_jobs(app.catalogue.jobs, app.found, selection.jobs)
        app.catalogue.ask(self._asked())
        if options.dry_run:
            for text in dry.refused(self._jobs, selection.jobs):
                events.emit(Warned(subject="dry_run", text=text))
        #: Of a dry run: writes nothing but the run.
        self._dry_ledger = DryLedger(app.ledger, app.queries) if options.dry_run else None
        self._watchdog = Watchdog(
            grace=app.settings.runner.grace,
            on_kill=lambda server, killed: events.emit(
                DeadlineEnforced(server=server, killed=killed)
            ),
        )
        # Asked before this process is kept on one CPU.
        cpus = allowed_cpus()
        self._processes = Processes(visiting.perform, cpus=cpus)
        self._limits = Limits()
        # Made here, before threads could each make one.
        self._fleet_engine = app.fleet_engine
        self._spreading = Spreading(
            app=app,
            events=events,
            processes=self._processes,
            cpus=cpus,
            watched=options.watched,
            prepared=self._prepared,
            limits=self._limits.path,
        )
        self._prepared_values: dict[tuple[str, str], str] = {}
        self._found: list[Tenant] = []
        #: (job, tenant) pairs that nobody waits for.
        self._quarantined: frozenset[tuple[str, str]] = frozenset()

    def _asked(self) -> Asked:
        """Say what options the command line gives; whoever repeats a run keeps that run's."""
        kept = {} if self._earlier is None else self._earlier["selection"].get("options", {})
        typed = [*remembered(kept, self._jobs), *self._options.options]
        if self._options.alert:
            typed += alerting(self._jobs)
        catalogue, redact = self._app.catalogue, self._app.redactor.text
        return read_asked(typed, catalogue.jobs, self._selection.jobs, redact=redact)

    def order(self) -> Order:
        """Say what is to be run."""
        options = self._options
        repeat = Repeat.EVERYTHING if options.again else Repeat.NOTHING
        return Order(
            run=self._run,
            jobs=self._jobs,
            broken=tuple(str(problem) for problem in self._app.found.problems),
            # What a dry run does is not there for `summarize`, and no run of the fleet.
            fleet=not self._selection.narrows_tenants and not options.dry_run,
            selection=selection_document(
                self._selection,
                due=self._due is not None,
                dry_run=options.dry_run,
                options=self._app.catalogue.asked,
            ),
            grace=self._app.settings.runner.grace,
            slot_of=self._slot_of,
            repeat=Repeat.UNWELL if options.only_failed else repeat,
            accept_shrink=options.accept_shrink,
            deadline=options.deadline or self._app.settings.runner.deadline,
            max_failures=options.max_failures,
            canary=options.canary,
        )

    def _is_due(self) -> bool:
        """Tell whether each job has its own slots; whoever repeats such a run keeps them."""
        if self._earlier is None:
            return self._options.due
        return bool(self._earlier["selection"].get("due"))

    def _slot_of(self, job: str, tenant: Tenant) -> Slot:
        return self._run.slot if self._due is None else self._due.slot_of(job, tenant)

    def _make_run(self) -> Run:
        now, at = self._app.clock(), self._options.scheduled_at
        name = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        if self._options.due:
            # What it does has slots of its own.
            slot = Slot.of_run(name, at or now)
        else:
            slot = Slot.of_run(name, now) if at is None else Slot.scheduled(at)
        if self._earlier is not None:
            at = self._earlier["scheduled_at"]
            slot = Slot(at=self._earlier["slot"], key=self._earlier["slot_key"])
        return Run(
            id=name,
            command=self._options.command,
            started_at=now,
            scheduled_at=at,
            host=host(),
            boot=boot(),
            pid=os.getpid(),
            pid_started=started(os.getpid()),
            slot=slot,
            dry_run=self._options.dry_run,
        )

    def parts(self) -> Parts:
        """Give the run what it works with."""
        app = self._app
        if text := warn_ledger_in_container(app.settings):
            self._events.emit(Warned(subject="ledger", text=text))
        confined = self._failed_pairs()
        return Parts(
            ledger=self._dry_ledger or app.ledger,
            events=self._events,
            clock=app.clock,
            discover=self._discover,
            shrink=app.shrink,
            plan=lambda tenants: self._plan(tenants, confined),
            is_closed=self._is_closed,
            is_prepared=lambda job, slot: self._read_prepared(job, slot) is not None,
            executor=self._executor,
            redact=app.redactor.text,
            rng=random.Random(),  # noqa: S311 - jitter, no secret
            cancel=self._cancel,
        )

    def _plan(self, tenants: Sequence[Tenant], confined: frozenset[tuple[str, str]] | None) -> Plan:
        # Shards share what is done once for the fleet by sharing a slot.
        alone = self._selection.shard is not None and self._options.scheduled_at is None
        resumes = self._earlier is not None
        aside = dry.set_aside if self._options.dry_run else planning.set_nothing_aside
        plan = lay_out(
            self._app,
            self._jobs,
            tenants,
            self._selection,
            confined,
            at=self._run.slot.at,
            due=self._due,
            fleet=resumes or not alone,
            setting_aside=aside,
        )
        if self._due is not None and self._dry_ledger is None:
            pairs = [(name, visit.tenant) for visit in plan.visits for name in visit.jobs]
            pairs += [(name, FLEET_TENANT) for name in plan.fleet_jobs]
            pairs += [(each.job, each.tenant) for each in plan.set_aside]
            self._missed.plan(self._due, pairs)
            self._see_jobs()
        self._quarantined = frozenset(
            (each.job, each.tenant.name)
            for each in plan.set_aside
            if each.reason.startswith(Reason.QUARANTINED)
        )
        return plan

    def _see_jobs(self) -> None:
        self._app.ledger.see_jobs(job.name for job in self._jobs if job.is_scheduled)

    def _failed_pairs(self) -> frozenset[tuple[str, str]] | None:
        """Return the (job, tenant) pairs to which the run is confined; ``None`` for no limit.

        What a failed ``prepare`` kept from running is to be repeated together with it.
        """
        if self._options.only_failed is None or self._earlier is None:
            return None
        rows = self._app.queries.executions(ExecutionFilter(run=self._earlier["run"]))
        return frozenset(
            (row["job"].partition(":")[0], row["tenant"])
            for row in rows
            if Outcome(row["outcome"]) not in WELL or row["reason"] == Reason.PREPARE_FAILED
        )

    def _discover(self) -> list[Source]:
        sources = self._app.discover(self._selection)
        for source in sources:
            if (text := self._app.unencrypted(source.server)) is not None:
                self._events.emit(Warned(subject="tls", text=text))
            self._found.extend(source.tenants)
        return sources

    def _is_closed(self, job: Job, slot_key: str) -> bool:
        """Tell whether every tenant that a job is for has closed its claim of a slot.

        A job that is paused is not summarized either, though an earlier run may have closed all.
        """
        if self._app.setting_aside(job, FLEET_TENANT) is not None:
            return False
        veto = self._app.catalogue.veto
        wanted = {
            tenant.name
            for tenant in self._found
            if veto(job, tenant) is None
            and (job.name, tenant.name) not in self._quarantined
            and self._slot_of(job.name, tenant).key == slot_key
        }
        claims = self._app.queries.outcomes_of_slot(job.name, slot_key)
        return bool(wanted) and all(
            name in claims and claims[name][0] == "closed" for name in wanted
        )

    def _executor(self, plan: Plan, hooks: Hooks) -> Executor:
        def reached(tenant: Tenant) -> None:
            executor.reached(tenant)

        executor = self._spreading.executor(
            plan,
            hooks,
            self._performer(hooks, reached),
            concurrency=self._app.concurrency(plan, self._options.concurrency),
        )
        return executor

    def _cancel(self) -> None:
        self._watchdog.cancel_all()
        self._spreading.cancel()

    def _performer(self, hooks: Hooks, on_reached: Callable[[Tenant], None]) -> Performer:
        return Performer(
            resolve=self._resolve,
            engines=self._app.engines,
            events=self._events,
            redactor=self._app.redactor,
            clock=self._app.clock,
            watchdog=self._watchdog,
            grace=self._app.settings.runner.grace,
            pause=hooks.pause,
            on_stuck=hooks.on_stuck,
            on_reached=on_reached,
            isolated=self._isolated(),
            shared=Shared(limits=self._limits, fleet_engine=lambda: self._fleet_engine),
        )

    def _isolated(self) -> Isolated:
        app = self._app
        return Isolated(
            processes=self._processes,
            engines=app.engines,
            watchdog=self._watchdog,
            clock=app.clock,
            config=str(app.settings.path.absolute()),
            digest=app.settings.digest,
            options=app.catalogue.asked,
            limits=self._limits.path,
        )

    def _resolve(self, request: Request, tenant: Tenant) -> Work:
        results = self._app.queries.executions_of_slot
        return self._app.catalogue.work(request, tenant, self._prepared, results)

    def _prepared(self, job: str, slot_key: str) -> str | None:
        """Read a prepared value once for all tenants: it does not change once it is there."""
        if (job, slot_key) not in self._prepared_values:
            found = self._read_prepared(job, slot_key)
            if found is None:
                return None
            self._prepared_values[job, slot_key] = found
        return self._prepared_values[job, slot_key]

    def _read_prepared(self, job: str, slot_key: str) -> str | None:
        return (self._dry_ledger or self._app.queries).prepared(job, slot_key)

    def close(self) -> None:
        """End the watch over deadlines, and the processes: nothing is awaited any more."""
        self._watchdog.close()
        self._processes.close()
        self._limits.close()
