"""One statement on many tenants, by hand: the visits of a run, and nothing of it in the ledger."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from cronrunner.context import JobContext
from cronrunner.databases.reading import read_only
from cronrunner.events import Dispatcher
from cronrunner.execution import Performer, Work
from cronrunner.executors import Breakers, ThreadExecutor
from cronrunner.model import (
    FLEET,
    Job,
    Key,
    Outcome,
    Plan,
    Request,
    Result,
    Slot,
    Tenant,
    Visit,
    VisitRequest,
    format_duration,
)
from cronrunner.watchdog import Watchdog

if TYPE_CHECKING:
    from cronrunner.app import App
    from cronrunner.sqltext import Pieces

#: What takes the place of a job's name; nobody sees it.
_NAME: Final = "sql"
_TICK_SECONDS: Final = 0.1
#: How long cancelled statements may take to end, when somebody does not wait any longer.
_CANCEL_SECONDS: Final = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be asked of each tenant."""

    statement: Pieces
    timeout: timedelta
    #: Rows that are kept of each tenant.
    limit: int
    #: It may change something, and is committed.
    writes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one tenant answered."""

    tenant: Tenant
    columns: tuple[str, ...] = ()
    rows: Sequence[Sequence[Any]] = ()
    #: There were more rows than are kept.
    is_cut: bool = False
    #: Scrubbed; ``None`` if all went well.
    error: str | None = None


def ask(
    app: App, tenants: Sequence[Tenant], question: Question, *, concurrency: int | None = None
) -> list[Answer]:
    """Ask all of ``tenants``; return their answers in the same order."""
    asking = _Asking(app, question)
    try:
        return asking.run(tenants, concurrency)
    finally:
        asking.close()


@dataclass(slots=True)
class _Asking:
    app: App
    question: Question
    _answers: dict[str, Answer] = field(default_factory=dict)
    _results: dict[str, Result] = field(default_factory=dict)
    _watchdog: Watchdog = field(init=False)

    def __post_init__(self) -> None:
        self._watchdog = Watchdog(grace=self.app.settings.runner.grace)

    def run(self, tenants: Sequence[Tenant], concurrency: int | None) -> list[Answer]:
        """Visit them all."""
        executor = self._executor(tenants, concurrency)
        try:
            executor.submit([self._visit(tenant) for tenant in tenants])
            while not executor.idle():
                executor.wait(_TICK_SECONDS)
        except KeyboardInterrupt:
            executor.drain()
            self._watchdog.cancel_all()
            until = time.monotonic() + _CANCEL_SECONDS
            while time.monotonic() < until and not executor.idle():
                executor.wait(_TICK_SECONDS)
            raise
        finally:
            executor.close()
        return [self._answer(tenant) for tenant in tenants]

    def close(self) -> None:
        """End the watch."""
        self._watchdog.close()

    def _executor(self, tenants: Sequence[Tenant], concurrency: int | None) -> ThreadExecutor:
        app = self.app
        plan = Plan(visits=tuple(Visit(tenant=each, jobs=(_NAME,)) for each in tenants))
        wanted = app.concurrency(plan, concurrency)
        servers = sorted({tenant.server for tenant in tenants})
        configured = app.settings.servers

        def stuck(result: Result) -> None:
            executor.abandon(result.request)
            self._take(result)

        def reached(tenant: Tenant) -> None:
            executor.reached(tenant)

        performer = Performer(
            resolve=lambda *_: Work(job=self._job(), call=self._ask),
            engines=app.engines,
            events=Dispatcher(),
            redactor=app.redactor,
            clock=app.clock,
            watchdog=self._watchdog,
            grace=app.settings.runner.grace,
            pause=lambda _: None,
            on_stuck=stuck,
            on_reached=reached,
        )
        executor = ThreadExecutor(
            performer,
            self._take,
            concurrency=wanted,
            permits={FLEET: wanted} | {name: app.permits(name) for name in servers},
            breakers=Breakers(
                {name: configured[name].connect_timeout for name in servers},
                rng=random.Random(),  # noqa: S311 - jitter, no secret
                clock=app.clock,
                emit=app.events.emit,
            ),
        )
        return executor

    def _job(self) -> Job:
        return Job(name=_NAME, call=self._ask, origin="", timeout=self.question.timeout)

    def _visit(self, tenant: Tenant) -> VisitRequest:
        slot = Slot.of_run(_NAME, self.app.clock())
        key = Key(job=_NAME, tenant=tenant.name, slot_key=slot.key)
        request = Request(key=key, run=_NAME, slot=slot.at, attempt=1, fence=1)
        return VisitRequest(tenant=tenant, requests=(request,))

    def _ask(self, ctx: JobContext) -> None:
        """Do it on one tenant; what only reads is rolled back as well."""
        most = self.question.limit
        if not self.question.writes:
            read_only(ctx.connection, most=most + 1)
        result = ctx.execute(self.question.statement)
        if result.returns_rows:
            rows = result.fetchmany(most + 1)
            answer = Answer(
                tenant=ctx.tenant,
                columns=tuple(result.keys()),
                rows=rows[:most],
                is_cut=len(rows) > most,
            )
        else:
            changed = max(result.rowcount, 0)
            answer = Answer(tenant=ctx.tenant, columns=("rows",), rows=[(changed,)])
        result.close()
        if not self.question.writes:
            ctx.connection.rollback()
        self._answers[ctx.tenant.name] = answer

    def _take(self, result: Result) -> None:
        self._results.setdefault(result.request.key.tenant, result)

    def _answer(self, tenant: Tenant) -> Answer:
        result, found = self._results.get(tenant.name), self._answers.get(tenant.name)
        if result is not None and result.outcome is Outcome.SUCCEEDED and found is not None:
            return found
        return Answer(tenant=tenant, error=self._error(result))

    def _error(self, result: Result | None) -> str:
        if result is None:
            return "it was not asked"
        if result.outcome in {Outcome.TIMED_OUT, Outcome.STUCK}:
            return f"it took longer than {format_duration(self.question.timeout)}"
        return result.error or result.reason or str(result.outcome)


def united(answers: Sequence[Answer]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Put the rows of all tenants below each other: the tenant's name comes first.

    A column that a tenant does not have is empty there; names that are there twice are numbered.
    """
    places: dict[str, int] = {"tenant": 0}
    named = [replace(each, columns=_numbered(each.columns)) for each in answers]
    for each in named:
        for name in each.columns:
            places.setdefault(name, len(places))
    rows = [
        _row(places, each.tenant.name, dict(zip(each.columns, row, strict=True)))
        for each in named
        for row in each.rows
    ]
    return tuple(places), rows


def _row(places: Mapping[str, int], tenant: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
    return (tenant, *(values.get(name) for name in list(places)[1:]))


def _numbered(columns: Sequence[str]) -> tuple[str, ...]:
    taken = {"tenant", *columns}
    given = {"tenant"}
    found = []
    for name in columns:
        free = (f"{name}_{number}" for number in count(2))
        found.append(
            name if name not in given else next(each for each in free if each not in taken)
        )
        given.add(name)
        taken.add(found[-1])
    return tuple(found)
