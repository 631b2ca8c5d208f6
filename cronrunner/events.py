"""Typed events, and the dispatcher which gives them to listeners.

Events are an interface: `docs/events.md` lists them, and a test keeps that list complete.
A listener may fail or be slow on its own account; it can never change an outcome.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

from cronrunner.model import (
    Key,
    Killed,
    Report,
    Request,
    Result,
    Run,
    Shrink,
    Spooled,
    Tenant,
    Visit,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """The ledger knows the run; discovery is next."""

    run: Run
    #: Start minus scheduled time; ``None`` for a run that nobody scheduled.
    lateness: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlanned(Event):
    """Discovery and planning are over; visits are next."""

    run: Run
    tenants: int
    executions: int
    concurrency: int
    #: In their order.
    visits: Sequence[Visit] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """All outcomes are in the ledger."""

    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDraining(Event):
    """A signal came: nothing new starts."""

    signal: str
    running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInterruptedFound(Event):
    """An earlier run died; what it left was recorded as interrupted."""

    run: str
    executions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantsDiscovered(Event):
    """A source gave its tenants."""

    server: str
    tenants: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryFailed(Event):
    """A source failed or found nothing: nothing of it runs."""

    server: str
    reason: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryShrank(Event):
    """A source lost more tenants than it may; what was found runs."""

    shrink: Shrink


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRefused(Event):
    """A database was found whose name cannot be a tenant's."""

    server: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFileBroken(Event):
    """A job file could not be loaded; its jobs are disabled."""

    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsMissed(Event):
    """Slots of a job, on all tenants together, that nobody did and nobody will do."""

    job: str
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRefused(Event):
    """Another run has done this work, or is doing it."""

    key: Key
    holder: str
    #: True while the holder lives and has not finished it.
    held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStarted(Event):
    """An attempt begins."""

    request: Request
    tenant: Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionFinished(Event):
    """An execution has its outcome."""

    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed(Event):
    """An attempt failed in a way worth repeating; the next one is ``delay`` away."""

    result: Result
    delay: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStuck(Event):
    """An attempt went on after its deadline and the grace; its thread is left behind."""

    request: Request
    server: str
    #: Where the thread is: frames only, no values.
    stack: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineEnforced(Event):
    """A deadline, or the grace of a drain, was over, and what went on was ended."""

    server: str
    killed: Killed


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitFinished(Event):
    """A tenant's turn is over."""

    tenant: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOpened(Event):
    """A server refuses its visits: the others wait until one was let through as a probe."""

    server: str
    #: Probes that were refused since it opened first; 0 when it opens.
    failed_probes: int
    #: Until the next probe.
    wait: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerClosed(Event):
    """A probe has reached its server: the visits that waited go on."""

    server: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairQuarantined(Event):
    """A job failed on a tenant in many runs in a row: it is left out there, but for probes."""

    job: str
    tenant: str
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PairReleased(Event):
    """A job has succeeded on a tenant where it was quarantined, or its code has changed."""

    job: str
    tenant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned(Event):
    """Something that an operator should know and that stops nothing.

    ``subject`` is a word of a closed set: ``ledger``, ``tls``, ``limits``, ``metrics``,
    ``server_lock``, ``connections``, ``processes``, ``dry_run``.
    """

    subject: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerPruned(Event):
    """History that is too old was removed from the ledger."""

    #: Of all its tables.
    rows: int
    before: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomesSpooled(Event):
    """The ledger is lost; what it could not take is in a file, for the next command."""

    run: str
    spooled: Spooled


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolImported(Event):
    """The ledger has got what an earlier run had to leave in a file."""

    run: str
    #: Those that were not there already.
    outcomes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkFailed(Event):
    """Metrics could not be delivered; the run goes on."""

    sink: str
    error: str


class Listener(Protocol):
    """Something that wants to know."""

    def on(self, event: Event) -> None:
        """Take note of ``event``. Called from any thread, also from several at once."""


@runtime_checkable
class ChoosyListener(Listener, Protocol):
    """One that is not given all events: most of a run's are of few kinds."""

    def hears(self, kind: type[Event]) -> bool:
        """Tell whether events of this kind are for it. Asked once for each kind."""


class Dispatcher:
    """Gives each event to each listener; a failing listener is reported once and kept apart."""

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self._listeners = tuple(listeners)
        #: Kind of event -> whom it is for.
        self._hearing: dict[type[Event], tuple[Listener, ...]] = {}
        self._failed: set[int] = set()

    def emit(self, event: Event) -> None:
        """Give ``event`` to every listener that hears its kind, in order."""
        kind = type(event)
        hearing = self._hearing.get(kind)
        if hearing is None:
            hearing = self._hearing[kind] = tuple(
                each
                for each in self._listeners
                if not isinstance(each, ChoosyListener) or each.hears(kind)
            )
        for listener in hearing:
            try:
                listener.on(event)
            except Exception as error:  # noqa: BLE001 - an observer can never break the work
                self._report(listener, error)

    def _report(self, listener: Listener, error: Exception) -> None:
        if id(listener) in self._failed:
            return
        self._failed.add(id(listener))
        name = type(listener).__name__
        sys.stderr.write(f"cronrunner: listener {name} failed: {type(error).__name__}\n")
