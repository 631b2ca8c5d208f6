"""Settings to wired objects: the only module which knows all kinds.

An ``App`` belongs to one command. It opens the ledger when it is first needed and closes what
it has opened.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cronrunner import logs, planning
from cronrunner.app.catalogue import Catalogue
from cronrunner.app.checks import find_errors, find_warnings, warn_ledger_in_container
from cronrunner.app.endpoints import (
    default_concurrency,
    endpoint_of,
    ledger_endpoint,
    visits_at_once,
)
from cronrunner.config import Settings, load
from cronrunner.databases import ServerParts, describe
from cronrunner.discovery import discover, find_shrink
from cronrunner.engines import Engines
from cronrunner.errors import ConfigError, LedgerError, Problem
from cronrunner.events import Dispatcher, Listener, Warned
from cronrunner.execution import Performer, Work
from cronrunner.executors import Executor, ThreadExecutor
from cronrunner.ledger import ExecutionFilter, Ledger, Queries, open_engine
from cronrunner.ledger.liveness import boot, host, started
from cronrunner.metrics.listener import MetricsListener
from cronrunner.model import (
    FLEET,
    WELL,
    Job,
    LedgerSnapshot,
    Outcome,
    Plan,
    Repeat,
    Report,
    Request,
    Run,
    Scope,
    Shrink,
    Slot,
    Source,
    Statistics,
    Tenant,
)
from cronrunner.planning import Selection
from cronrunner.redaction import Redactor, secret_values
from cronrunner.registry import Found, find_jobs
from cronrunner.runner import FailureLimit, Hooks, Order, Parts, Runner
from cronrunner.watchdog import Pulse, Watchdog

if TYPE_CHECKING:
    from cronrunner.metrics.server import MetricsServer

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the command line says of a run, beyond the selection."""

    command: str
    scheduled_at: datetime | None = None
    concurrency: int | None = None
    again: bool = False
    #: Names a run whose open work is to be done, or whose failures are to be repeated.
    resume: str | None = None
    only_failed: str | None = None
    accept_shrink: bool = False
    metrics_port: int | None = None
    deadline: timedelta | None = None
    max_failures: FailureLimit | None = None
    canary: int = 0


class App:
    """The parts of cronrunner, put together for one command."""

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        *,
        clock: Callable[[], datetime] = utc_now,
        log_to: TextIO | None = None,
    ) -> None:
        """Read the configuration and find the jobs. Raises ``ConfigError`` with all mistakes."""
        self.settings: Settings = load(path, environ)
        self.clock = clock
        self.redactor = Redactor(secret_values(environ, self.settings.secrets))
        logs.configure(
            format=self.settings.log.format,
            level=self.settings.log.level,
            redactor=self.redactor,
            describe=describe,
            stream=log_to,
        )
        self.found: Found = find_jobs(self.settings.folder / self.settings.job_folder)
        self.catalogue = Catalogue(self.settings, self.found.jobs)

    def check(self) -> tuple[list[Problem], list[Problem]]:
        """Return all errors and all warnings; broken job files are errors."""
        errors = [*find_errors(self.settings, self.found), *self.found.problems]
        return self._safe(errors), self._safe(find_warnings(self.settings, self.found))

    def _safe(self, problems: Iterable[Problem]) -> list[Problem]:
        """Hide secrets: a problem quotes the value of an option, which may be one."""
        return [replace(each, text=self.redactor.text(each.text)) for each in problems]

    def refuse_errors(self) -> None:
        """Raise ``ConfigError`` with every mistake that keeps a command from running."""
        if errors := find_errors(self.settings, self.found):
            raise ConfigError(self._safe(errors))

    # Parts, made when they are first needed.

    @cached_property
    def engines(self) -> Engines:
        """The tenants' engines."""
        return Engines({name: endpoint_of(self.settings, name) for name in self.settings.servers})

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger's write side. Raises ``LedgerError`` when it cannot be used."""
        runner = self.settings.runner
        return Ledger(
            self._ledger_engine, clock=self.clock, heartbeat=runner.heartbeat, lease=runner.lease
        )

    @cached_property
    def queries(self) -> Queries:
        """The ledger's read side. Opens the ledger, which may be an empty one."""
        _ = self.ledger
        return Queries(self._ledger_engine)

    @cached_property
    def _ledger_engine(self):  # type: ignore[no-untyped-def] # noqa: ANN202 - sqlalchemy.Engine
        try:
            return open_engine(ledger_endpoint(self.settings))
        except Exception as error:
            text = self.redactor.text(describe(error))
            raise LedgerError(f"the ledger cannot be used: {text}") from error

    def close(self) -> None:
        """Close what was opened."""
        if "ledger" in self.__dict__:
            self.ledger.close()

    def snapshot(self) -> LedgerSnapshot:
        """Read from the ledger what metrics are made of."""
        return self.queries.snapshot(self.clock)

    # Discovery and planning, for every command that wants them.

    def discover(self, selection: Selection = Selection()) -> list[Source]:  # noqa: B008 - frozen
        """Ask the servers that the selection wants for their tenants."""
        wanted = [
            name
            for name in self.settings.servers
            if not selection.servers or planning.matches_any(name, selection.servers)
        ]
        if not wanted:
            text = f"no server {', '.join(selection.servers)}; " + planning.nearest(
                selection.servers[0], self.settings.servers
            )
            raise ConfigError([Problem(text=text)])
        return discover(self.settings, wanted, self.engines.control)

    def unknown_tenants(self, found: Iterable[str]) -> list[str]:
        """Return the tenants that the configuration names and discovery did not find."""
        known = set(found)
        names = self.settings.tenants
        return [name for name in names if not planning.is_glob(name) and name not in known]

    def shrink(self, source: Source) -> Shrink | None:
        """Compare a source with its last accepted discovery."""
        limits = self.settings.runner.shrink
        accepted = self._accepted.get(source.server, frozenset())
        return find_shrink(source, accepted, percent=limits.percent, tenants=limits.tenants)

    @cached_property
    def _accepted(self) -> Mapping[str, frozenset[str]]:
        return self.queries.accepted_tenants()

    def plan(
        self,
        jobs: Sequence[Job],
        tenants: Sequence[Tenant],
        selection: Selection,
        confined: frozenset[tuple[str, str]] | None = None,
    ) -> Plan:
        """Lay out a run over what discovery found; ``confined`` to (job, tenant) pairs.

        Raises ``ConfigError``.
        """

        def veto(job: Job, tenant: Tenant) -> str | None:
            if confined is not None and (job.name, tenant.name) not in confined:
                return "did not fail in the run that is repeated"
            return self.catalogue.veto(job, tenant)

        if confined is not None:
            jobs = [j for j in jobs if j.scope is Scope.TENANT or (j.name, FLEET) in confined]
        return planning.make_plan(
            jobs,
            planning.select_tenants(tenants, selection),
            veto=veto,
            statistics=self.statistics,
            fleet=not selection.narrows_tenants,
        )

    @cached_property
    def statistics(self) -> Mapping[tuple[str, str], Statistics]:
        """What the ledger remembers of each (job, tenant) pair."""
        return self.queries.statistics()

    def concurrency(self, plan: Plan, asked: int | None = None) -> int:
        """Return how many visits of a plan go on at once."""
        configured = asked or self.settings.runner.concurrency
        servers = {visit.tenant.server for visit in plan.visits}
        permits = sum(self._permits(server) for server in servers)
        return configured or default_concurrency(max(permits, len(plan.fleet_jobs), 1))

    def _permits(self, server: str) -> int:
        return visits_at_once(self.settings, server, self._parts(server))

    def _parts(self, server: str) -> ServerParts | None:
        """Return what is known of a server that may not have answered."""
        try:
            return self.engines.server(server)
        except Exception:  # noqa: BLE001 - its visits report it
            return None

    # A run.

    def run(
        self,
        selection: Selection,
        options: RunOptions,
        *,
        listeners: Iterable[Listener],
        on_runner: Callable[[Runner], None] = lambda _: None,
    ) -> Report:
        """Run the selected jobs now. Raises ``ConfigError`` and ``LedgerError``.

        ``listeners`` get every event; the log is one of them. ``on_runner`` is given the
        runner before it starts, for whoever may have to drain it.
        """
        self.refuse_errors()
        earlier = self._earlier(options)
        if earlier is not None and selection == Selection():
            selection = _selection_of(earlier["selection"])
        jobs = planning.select_jobs(self.catalogue.jobs, selection.jobs)
        counting = MetricsListener()
        events = Dispatcher([counting, *listeners])
        runner = Runner(
            self._order(selection, options, jobs, earlier),
            self._run_parts(selection, options, jobs, events, self._failed_pairs(options, earlier)),
        )
        on_runner(runner)
        self.ledger.forget_servers(self.settings.servers)
        with ExitStack() as stack:
            stack.enter_context(Pulse(grace=self.settings.runner.grace, file=sys.__stderr__))
            port = options.metrics_port
            if port is None:
                port = self.settings.metrics.port
            if port is not None:
                self._serve(self.settings.metrics.host, port, events, stack)
            report = runner.run()
            self.ledger.add_counters(counting.drain())
            self._deliver(events)
        return report

    def _serve(self, host: str, port: int, events: Dispatcher, stack: ExitStack) -> None:
        """Serve metrics while the run lasts; a port that is taken is no reason not to run."""
        try:
            stack.enter_context(self.serving(host, port, events))
        except OSError as error:
            text = f"/metrics is not served on {host}:{port}: {error.strerror or error}"
            events.emit(Warned(subject="metrics", text=text))

    def _earlier(self, options: RunOptions) -> Mapping[str, Any] | None:
        """Return the run that is to be resumed or repeated."""
        name = options.resume or options.only_failed
        return None if name is None else self.find_run(name)

    def find_run(self, name: str) -> Mapping[str, Any]:
        """Return a run by its id, the beginning of it, or ``last``. Raises ``ConfigError``."""
        found = self.queries.find_run(name)
        if found is None:
            text = f"no run {name!r}; `cronrunner history --runs` lists them, `last` is the newest"
            raise ConfigError([Problem(text=text)])
        return found

    def _failed_pairs(
        self, options: RunOptions, earlier: Mapping[str, Any] | None
    ) -> frozenset[tuple[str, str]] | None:
        """Return the (job, tenant) pairs to which the run is confined; ``None`` for no limit."""
        if options.only_failed is None or earlier is None:
            return None
        rows = self.queries.executions(ExecutionFilter(run=earlier["run"]))
        unwell = (row for row in rows if Outcome(row["outcome"]) not in WELL)
        return frozenset((row["job"].partition(":")[0], row["tenant"]) for row in unwell)

    def _order(
        self,
        selection: Selection,
        options: RunOptions,
        jobs: Sequence[Job],
        earlier: Mapping[str, Any] | None,
    ) -> Order:
        now = self.clock()
        name = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        at = options.scheduled_at if earlier is None else earlier["scheduled_at"]
        slot = Slot.of_run(name, now) if at is None else Slot.scheduled(at)
        if earlier is not None:
            slot = Slot(at=earlier["slot"], key=earlier["slot_key"])
        repeat = Repeat.EVERYTHING if options.again else Repeat.NOTHING
        run = Run(
            id=name,
            command=options.command,
            started_at=now,
            scheduled_at=at,
            host=host(),
            boot=boot(),
            pid=os.getpid(),
            pid_started=started(os.getpid()),
            slot=slot,
        )
        return Order(
            run=run,
            jobs=tuple(jobs),
            broken=tuple(str(problem) for problem in self.found.problems),
            fleet=not selection.narrows_tenants,
            selection=_selection_document(selection),
            grace=self.settings.runner.grace,
            repeat=Repeat.UNWELL if options.only_failed else repeat,
            accept_shrink=options.accept_shrink,
            deadline=options.deadline or self.settings.runner.deadline,
            max_failures=options.max_failures,
            canary=options.canary,
        )

    def _run_parts(
        self,
        selection: Selection,
        options: RunOptions,
        jobs: Sequence[Job],
        events: Dispatcher,
        confined: frozenset[tuple[str, str]] | None,
    ) -> Parts:
        self._warn_of_ledger(events)
        found: list[Tenant] = []

        def discovered() -> list[Source]:
            sources = self.discover(selection)
            for source in sources:
                self._warn_of_tls(source.server, events)
                found.extend(source.tenants)
            return sources

        watchdog = Watchdog(grace=self.settings.runner.grace)

        def executor(plan: Plan, hooks: Hooks) -> Executor:
            concurrency = self.concurrency(plan, options.concurrency)
            permits = {visit.tenant.server: 0 for visit in plan.visits}
            return ThreadExecutor(
                self._performer(events, watchdog, hooks),
                hooks.on_result,
                concurrency=concurrency,
                permits={"": concurrency} | {name: self._permits(name) for name in permits},
            )

        def is_closed(job: Job, slot_key: str) -> bool:
            wanted = {t.name for t in found if self.catalogue.veto(job, t) is None}
            claims = self.queries.outcomes_of_slot(job.name, slot_key)
            return all(name in claims and claims[name][0] == "closed" for name in wanted)

        return Parts(
            ledger=self.ledger,
            events=events,
            clock=self.clock,
            discover=discovered,
            shrink=self.shrink,
            plan=lambda tenants: self.plan(jobs, tenants, selection, confined),
            is_closed=is_closed,
            is_prepared=lambda job, slot: self.queries.prepared(job, slot) is not None,
            executor=executor,
            rng=random.Random(),  # noqa: S311 - jitter, no secret
            cancel=watchdog.cancel_all,
        )

    def _performer(self, events: Dispatcher, watchdog: Watchdog, hooks: Hooks) -> Performer:
        def resolve(request: Request, tenant: Tenant) -> Work:
            return self.catalogue.work(
                request, tenant, self._prepared, self.queries.executions_of_slot
            )

        return Performer(
            resolve=resolve,
            engines=self.engines,
            events=events,
            redactor=self.redactor,
            clock=self.clock,
            watchdog=watchdog,
            grace=self.settings.runner.grace,
            pause=hooks.pause,
            on_stuck=hooks.on_stuck,
        )

    def _prepared(self, job: str, slot_key: str) -> str | None:
        """Read a prepared value once for all tenants: it does not change once it is there."""
        if (job, slot_key) not in self._prepared_values:
            found = self.queries.prepared(job, slot_key)
            if found is None:
                return None
            self._prepared_values[job, slot_key] = found
        return self._prepared_values[job, slot_key]

    @cached_property
    def _prepared_values(self) -> dict[tuple[str, str], str]:
        return {}

    # Warnings and metrics of a run.

    def _warn_of_ledger(self, events: Dispatcher) -> None:
        if text := warn_ledger_in_container(self.settings):
            events.emit(Warned(subject="ledger", text=text))

    def _warn_of_tls(self, server: str, events: Dispatcher) -> None:
        """Say once for each server that its sessions are not encrypted, if nobody chose that."""
        if (text := self.unencrypted(server)) is not None:
            events.emit(Warned(subject="tls", text=text))

    def unencrypted(self, server: str) -> str | None:
        """Say that a server off this machine offers no TLS and is used all the same."""
        parts = self._parts(server)
        if parts is None or parts.tls is not False or parts.endpoint.tls != "auto":
            return None
        if parts.endpoint.url.host in _LOOPBACK:
            return None
        return f"server {server} offers no TLS; its sessions, passwords included, are not encrypted"

    def _deliver(self, events: Dispatcher) -> None:
        """Bring the metrics to the configured sinks; none can fail the run or hold it up."""
        metrics = self.settings.metrics
        if metrics.pushgateway is None and metrics.textfile is None:
            return
        from cronrunner.metrics import sinks  # noqa: PLC0415 - a run without sinks does not pay
        from cronrunner.metrics.families import Payload, dropped  # noqa: PLC0415

        wanted: list[sinks.MetricsSink] = []
        if metrics.pushgateway is not None:
            url, group = metrics.pushgateway.reveal(), metrics.pushgateway_job
            wanted.append(sinks.Pushgateway(url=url, timeout=metrics.timeout, job=group))
        if metrics.textfile is not None:
            path = self.settings.folder / metrics.textfile
            wanted.append(sinks.Textfile(path=path, timeout=metrics.timeout))
        payload = Payload(snapshot=self.snapshot(), series_limit=metrics.series_limit)
        if warning := dropped(payload.snapshot, series_limit=metrics.series_limit):
            events.emit(warning)
        for failed in sinks.deliver(wanted, payload):
            events.emit(replace(failed, error=self.redactor.text(failed.error)))

    @contextmanager
    def serving(self, host: str, port: int, events: Dispatcher) -> Iterator[MetricsServer]:
        """Answer /metrics and /health from the ledger as long as the context lasts."""
        from cronrunner.metrics.server import MetricsServer  # noqa: PLC0415 - an HTTP server

        with MetricsServer(
            self.snapshot,
            host=host,
            port=port,
            series_limit=self.settings.metrics.series_limit,
            emit=events.emit,
            describe=lambda error: self.redactor.text(describe(error)),
            note=logs.request_logger(),
            clock=self.clock,
        ) as server:
            yield server


def _selection_of(document: Mapping[str, Any]) -> Selection:
    """Read what `_selection_document` wrote."""
    shard = document["shard"]
    return Selection(
        jobs=tuple(document["jobs"]),
        tenants=tuple(document["tenants"]),
        exclude_tenants=tuple(document["exclude_tenants"]),
        labels=document["labels"],
        servers=tuple(document["servers"]),
        shard=None if shard is None else (shard[0], shard[1]),
    )


def _selection_document(selection: Selection) -> Mapping[str, object]:
    return {
        "jobs": selection.jobs,
        "tenants": selection.tenants,
        "exclude_tenants": selection.exclude_tenants,
        "labels": dict(selection.labels),
        "servers": selection.servers,
        "shard": selection.shard,
    }
