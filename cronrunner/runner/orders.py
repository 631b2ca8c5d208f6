"""What a run is given: an order, the parts to carry it out with, and what it gives back."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from cronrunner.errors import LedgerError
from cronrunner.events import (
    Dispatcher,
    Event,
)
from cronrunner.executors import Executor
from cronrunner.executors.base import OnResult
from cronrunner.model import (
    Claims,
    Job,
    Key,
    Plan,
    Repeat,
    Report,
    Result,
    Run,
    Shrink,
    Slot,
    Source,
    Spooled,
    Tenant,
)


class RunLost(LedgerError):  # noqa: N818 - what became of the run
    """The ledger was lost while the run went on."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        #: Of what was done all the same.
        self.report = report


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a run gives to whoever carries out its visits."""

    on_result: OnResult
    #: Takes the result of an attempt that nothing could end.
    on_stuck: OnResult
    #: Waits, and returns early when the run drains.
    pause: Callable[[timedelta], None]


class RunLedger(Protocol):
    """What a run asks of the ledger's write side."""

    def begin_run(
        self,
        run: Run,
        *,
        fleet: bool,
        selection: Mapping[str, Any],
        on_lost: Callable[[], None],
    ) -> Mapping[str, int]:
        """Open the run; return what dead runs left behind.

        ``on_lost`` is called by any thread when nothing can be written any more.
        """

    def reserve_spool(self, executions: int) -> None:
        """Reserve room for so many outcomes that cannot be written. Raises ``OSError``."""

    def is_lease_over(self) -> bool:
        """Tell whether others may have taken over what the run holds."""

    def claim(
        self,
        keys: Sequence[Key],
        *,
        repeat: Repeat = Repeat.NOTHING,
        alone: Container[str] = (),
    ) -> Claims:
        """Take claims, durably; of jobs in ``alone`` only if no other slot is at work."""

    def done(self, keys: Sequence[Key], *, repeat: Repeat = Repeat.NOTHING) -> Mapping[Key, str]:
        """Return the run that has done it for each of ``keys`` that is done."""

    def record(self, result: Result) -> None:
        """Take an outcome."""

    def accept_tenants(self, server: str, names: Iterable[str]) -> None:
        """Remember a discovery."""

    def keep_prepared(self, job: str, slot_key: str, value: str) -> None:
        """Keep a prepared value."""

    def flush(self) -> None:
        """Make everything durable."""

    def finish_run(self, report: Report, *, discovered: Mapping[str, int]) -> Sequence[Event]:
        """Close the run; return what is to be told of it."""

    def leave(self, report: Report, *, discovered: Mapping[str, int]) -> Spooled | None:
        """Close the run where its outcomes are, if these could not be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureLimit:
    """At how many failures a run stops: a number, or a part of the planned executions."""

    count: int | None = None
    percent: float | None = None

    def of(self, planned: int) -> int:
        """Return the number of failures at which a run of ``planned`` executions stops."""
        if self.percent is not None:
            return max(1, math.ceil(planned * self.percent / 100))
        return max(1, self.count or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be run, and how."""

    run: Run
    #: The jobs that the command line names, or all enabled ones.
    jobs: tuple[Job, ...]
    #: Mistakes in job files that disable their jobs.
    broken: tuple[str, ...]
    #: The whole fleet, not a part that somebody chose.
    fleet: bool
    selection: Mapping[str, Any]
    grace: timedelta
    #: The slot of a job on a tenant; fleet-scope work has one as well.
    slot_of: Callable[[str, Tenant], Slot]
    repeat: Repeat = Repeat.NOTHING
    accept_shrink: bool = False
    #: When the run drains by itself.
    deadline: timedelta | None = None
    max_failures: FailureLimit | None = None
    #: So many tenants go first, and the others only if all is well with them.
    canary: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a run works with."""

    ledger: RunLedger
    events: Dispatcher
    clock: Callable[[], datetime]
    discover: Callable[[], Sequence[Source]]
    #: Compares a source with its last accepted discovery.
    shrink: Callable[[Source], Shrink | None]
    plan: Callable[[Sequence[Tenant]], Plan]
    #: Tells whether every tenant of a job's slot is closed.
    is_closed: Callable[[Job, str], bool]
    #: Whether a prepared value is there for a job's slot.
    is_prepared: Callable[[str, str], bool]
    #: Makes the executor for a plan, given who takes its results.
    executor: Callable[[Plan, Hooks], Executor]
    #: Removes secrets from errors that belong to no execution.
    redact: Callable[[str], str]
    #: Draws the jitter of retries.
    rng: random.Random
    #: Cancels at the servers whatever is running.
    cancel: Callable[[], None]
