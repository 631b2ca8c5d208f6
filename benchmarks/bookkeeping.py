"""What it costs to know what ran: CPU per execution, in one thread, without any tenant.

The runner carries out a plan with the real ledger, watchdog, log and metrics, and an executor
whose visits have succeeded as soon as they are submitted. The same with none of the four says
what the runner's own turns cost; the difference is the bookkeeping.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import make_url

from benchmarks.fleet import Fleet
from benchmarks.measuring import cpu_milliseconds
from benchmarks.records import log_to_nowhere, new_run, now, result_of
from cronrunner import logs
from cronrunner.affinity import OneCpu
from cronrunner.cli.opening import begin_tidying
from cronrunner.databases import Endpoint
from cronrunner.events import Dispatcher, Event, ExecutionStarted, VisitFinished
from cronrunner.ledger import open_engine
from cronrunner.ledger.store import Ledger
from cronrunner.metrics.listener import MetricsListener
from cronrunner.model import (
    Claims,
    Job,
    Key,
    Plan,
    Repeat,
    Report,
    Request,
    Result,
    Run,
    Spooled,
    Tenant,
    Visit,
    VisitRequest,
)
from cronrunner.runner import Hooks, Order, Parts, Runner
from cronrunner.watchdog import Watchdog

_GRACE = timedelta(seconds=20)
_THREADS = 8
_DATABASE = "ledger_of_bench"
_JOB = Job(name="bench.count", call=lambda _: None, origin="bench.py:1")


class NoLedger:
    """Grants everything and keeps nothing."""

    def begin_run(
        self, run: Run, *, fleet: bool, selection: Mapping[str, Any], on_lost: Callable[[], None]
    ) -> Mapping[str, int]:
        del run, fleet, selection, on_lost
        return {}

    def reserve_spool(self, executions: int) -> None:
        del executions

    def is_lease_over(self) -> bool:
        return False

    def claim(
        self,
        keys: Sequence[Key],
        *,
        repeat: Repeat = Repeat.NOTHING,
        alone: Container[str] = (),
    ) -> Claims:
        del repeat, alone
        return Claims(granted=dict.fromkeys(keys, 1), duplicates={}, held={})

    def done(self, keys: Sequence[Key], *, repeat: Repeat = Repeat.NOTHING) -> Mapping[Key, str]:
        del keys, repeat
        return {}

    def record(self, result: Result) -> None:
        del result

    def accept_tenants(self, server: str, names: Iterable[str]) -> None:
        del server, names

    def keep_prepared(self, job: str, slot_key: str, value: str) -> None:
        del job, slot_key, value

    def flush(self) -> None:
        pass

    def finish_run(self, report: Report, *, discovered: Mapping[str, int]) -> Sequence[Event]:
        del report, discovered
        return ()

    def leave(self, report: Report, *, discovered: Mapping[str, int]) -> Spooled | None:
        del report, discovered
        return None


@dataclass(slots=True, kw_only=True)
class Immediate:
    """An executor whose visits succeed in the moment in which they are submitted."""

    hooks: Hooks
    events: Dispatcher
    #: ``None`` for a run without any bookkeeping.
    watchdog: Watchdog | None
    concurrency: int = _THREADS

    def submit(self, visits: Sequence[VisitRequest], *, delay: timedelta | None = None) -> None:
        del delay
        for visit in visits:
            for request in visit.requests:
                if self.watchdog is None:
                    self.hooks.on_result(result_of(request, server=visit.tenant.server))
                else:
                    self._attempt(request, visit.tenant, self.watchdog)
            if self.watchdog is not None:
                self.events.emit(VisitFinished(tenant=visit.tenant.name, seconds=0.01))

    def _attempt(self, request: Request, tenant: Tenant, watchdog: Watchdog) -> None:
        """Do what an attempt has done about itself: two deadlines, its words in the log."""
        with logs.bound(request, tenant):
            self.events.emit(ExecutionStarted(request=request, tenant=tenant))
            for limit in (_JOB.timeout, _GRACE):
                watchdog.arm(tenant.server, limit, None, lambda: None).disarm()
            self.hooks.on_result(result_of(request, server=tenant.server))

    def queued(self, server: str) -> int:
        del server
        return 0

    def wait(self, timeout_seconds: float) -> None:
        del timeout_seconds

    def drain(self) -> None:
        pass

    def idle(self) -> bool:
        return True

    def reached(self, tenant: Tenant) -> None:
        del tenant

    def abandon(self, request: Request) -> None:
        del request

    def fail(self, error: BaseException) -> None:
        raise error

    def left(self) -> tuple[list[Request], list[Request]]:
        return [], []

    def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What is measured: the same runner with each of its ledgers, and with none."""

    executions: int
    ledgers: Mapping[str, Ledger]

    def measure(self) -> Mapping[str, float]:
        """Return the milliseconds of CPU per execution, without those of the runner itself."""
        runner = self._run(NoLedger(), Dispatcher(), None)
        costs = {name: self._run_with(ledger) - runner for name, ledger in self.ledgers.items()}
        return {**costs, "runner": runner}

    def _run_with(self, ledger: Ledger) -> float:
        watchdog = Watchdog(grace=_GRACE)
        try:
            events = Dispatcher([MetricsListener(), logs.LogListener()])
            return self._run(ledger, events, watchdog)
        finally:
            watchdog.close()

    def _run(
        self, ledger: Ledger | NoLedger, events: Dispatcher, watchdog: Watchdog | None
    ) -> float:
        run = new_run()
        order = Order(
            run=run,
            jobs=(_JOB,),
            broken=(),
            fleet=True,
            selection={},
            grace=_GRACE,
            slot_of=lambda *_: run.slot,
        )
        runner = Runner(order, self._parts(ledger, events, watchdog))
        done: list[Report] = []
        spent = cpu_milliseconds(lambda: done.append(runner.run()), self.executions)
        if sum(done[0].outcomes.values()) != self.executions:
            raise RuntimeError(f"a run did not go well: {done[0]}")
        return spent

    def _parts(
        self, ledger: Ledger | NoLedger, events: Dispatcher, watchdog: Watchdog | None
    ) -> Parts:
        names = [f"bench_{number:05d}" for number in range(self.executions)]
        tenants = [Tenant(name=name, server="main", database=name) for name in names]
        plan = Plan(visits=tuple(Visit(tenant=each, jobs=(_JOB.name,)) for each in tenants))
        return Parts(
            ledger=ledger,
            events=events,
            clock=now,
            discover=list,
            shrink=lambda _: None,
            plan=lambda _: plan,
            is_closed=lambda *_: False,
            is_prepared=lambda *_: False,
            executor=lambda _, hooks: Immediate(hooks=hooks, events=events, watchdog=watchdog),
            redact=str,
            rng=random.Random(0),
            cancel=lambda: None,
        )


@contextmanager
def open_books(fleet: Fleet, executions: int) -> Iterator[Books]:
    """Open a ledger of each kind."""
    fleet.server.create_databases([_DATABASE])
    with TemporaryDirectory() as name, ExitStack() as stack:
        stack.enter_context(log_to_nowhere(fleet.server.password))
        # As the threads of a run, and with garbage collected as there.
        stack.enter_context(OneCpu())
        begin_tidying()
        urls = {"sqlite": "sqlite:///ledger.db", "mariadb": fleet.server.url(database=_DATABASE)}
        ledgers = {kind: _open(url, Path(name)) for kind, url in urls.items()}
        for ledger in ledgers.values():
            stack.callback(ledger.close)
        yield Books(executions=executions, ledgers=ledgers)
    fleet.server.drop_databases(_DATABASE)


def _open(url: str, folder: Path) -> Ledger:
    endpoint = Endpoint(name="ledger", url=make_url(url), folder=folder)
    return Ledger(open_engine(endpoint), clock=now)
