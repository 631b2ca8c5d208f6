"""What is to be done: tenants, jobs, slots, plans, requests and results."""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self

from cronrunner.model.durations import as_utc, format_instant
from cronrunner.model.life import Outcome, Reason, closes_claim
from cronrunner.model.options import Option

#: The tenant name under which fleet-scope work is claimed and recorded.
FLEET: Final = ""


EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


def _frozen(mapping: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(mapping)


# Python cannot pickle such a mapping, and requests and results go to other processes.
copyreg.pickle(MappingProxyType, lambda mapping: (_frozen, (dict(mapping),)))


class Scope(StrEnum):
    """How often a firing runs a job."""

    #: Once for each tenant.
    TENANT = "tenant"
    #: Once for the whole fleet.
    FLEET = "fleet"


class Transaction(StrEnum):
    """Who ends the job's transaction on the tenant's database."""

    #: One transaction: committed on return, rolled back on any exception.
    TENANT = "tenant"
    #: Each batch commits together with its checkpoint.
    BATCH = "batch"
    #: The job commits for itself.
    NONE = "none"


class Overlap(StrEnum):
    """What is done while an earlier slot of the job is still at work on the tenant."""

    #: Skip, and leave the slot open.
    SKIP = "skip"
    #: Do it when the other has ended.
    WAIT = "wait"
    #: Do both at once.
    ALLOW = "allow"


class Effects(StrEnum):
    """What a job does that no rollback undoes: it sends mail, calls a service, writes a file."""

    #: Nothing: all that it does is in its database.
    DATABASE = "database"
    #: Something, which a slot that is repeated repeats.
    EXTERNAL = "external"
    #: Something that the job itself keeps from being done anew: it claims messages of an outbox.
    REPEATABLE = "repeatable"


class Isolation(StrEnum):
    """Where a job's attempts are made."""

    #: In a thread of the run's own process.
    THREAD = "thread"
    #: In a process that can be killed, and may die, without harm to the others.
    PROCESS = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One customer's database. Holds no password."""

    name: str
    server: str
    #: The database name on the server, or the path of a SQLite file.
    database: str
    labels: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    #: An IANA zone name.
    timezone: str = "UTC"


FLEET_TENANT: Final = Tenant(name=FLEET, server="", database="")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to try an execution again.

    ``attempts`` counts the first try as well: 1 never retries. ``wait`` is the first delay;
    it doubles up to ``cap`` and is fully jittered. Transient errors of the database are
    repeated (a deadlock, a lock wait, a lost connection, a full server), ``Retry``, and what
    is in ``on``.
    """

    attempts: int = 1
    wait: timedelta = timedelta(seconds=30)
    cap: timedelta = timedelta(minutes=10)
    #: Further exceptions that are worth repeating.
    on: tuple[type[Exception], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantFilter:
    """Which tenants a job is for: name globs and labels; all of both must match."""

    names: tuple[str, ...] = ("*",)
    labels: Mapping[str, str] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A definition: what to run, how often, and on whom."""

    name: str
    call: Callable[[Any], Any]
    #: Where it was found: ``compliance.py:12`` relative to the job folder.
    origin: str
    description: str = ""
    #: A cron expression.
    schedule: str | None = None
    #: Instead of one: its slots are the multiples of this.
    every: timedelta | None = None
    #: The zone of the schedule: an IANA name, or ``tenant`` for each tenant's own.
    timezone: str = "UTC"
    #: A slot that is later than this is not done any more.
    catch_up: timedelta = timedelta(hours=24)
    timeout: timedelta = timedelta(minutes=5)
    retry: RetryPolicy = RetryPolicy()
    scope: Scope = Scope.TENANT
    transaction: Transaction = Transaction.TENANT
    overlap: Overlap = Overlap.SKIP
    #: Also holds a named lock of the tenant's server while it runs.
    server_lock: bool = False
    tenants: TenantFilter = TenantFilter()
    options: Mapping[str, Option] = field(default_factory=lambda: EMPTY)
    prepare: Callable[[Any], Any] | None = None
    summarize: Callable[[Any], Any] | None = None
    #: Writes a marker into the tenant's database, in the job's transaction.
    exactly_once: bool = False
    #: ``None``: as ``runner.isolation`` says.
    isolation: Isolation | None = None
    effects: Effects = Effects.DATABASE
    enabled: bool = True
    #: Of the file that the job was found in: it changes when the job's code does.
    code_digest: str = ""

    @property
    def is_scheduled(self) -> bool:
        """Tell whether it has slots of its own."""
        return self.schedule is not None or self.every is not None

    @property
    def prepare_name(self) -> str:
        """The name under which this job's ``prepare`` is claimed and recorded."""
        return f"{self.name}:prepare"

    @property
    def summarize_name(self) -> str:
        """The name under which this job's ``summarize`` is claimed and recorded."""
        return f"{self.name}:summarize"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The instant for which work was scheduled, and the key that identifies it."""

    at: datetime
    key: str

    @classmethod
    def scheduled(cls, at: datetime) -> Self:
        """Name the slot of a scheduled time, whoever triggers it and however often."""
        return cls(at=as_utc(at), key=format_instant(at))

    @classmethod
    def of_run(cls, run: str, started_at: datetime) -> Self:
        """Name the slot of a run that nobody scheduled."""
        # Whole seconds, as databases store them: Python and SQL then compare alike.
        return cls(at=as_utc(started_at).replace(microsecond=0), key=f"run:{run}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One tenant's turn: its engine is opened once and its jobs run one after another."""

    tenant: Tenant
    #: Job names, in the order in which they run.
    jobs: tuple[str, ...]
    #: What history says the visit takes; ``None`` when it was never run.
    expected_seconds: float | None = None
    #: Of jobs that history says something of, and others: the others.
    unknown: tuple[str, ...] = ()

    @property
    def unknown_jobs(self) -> tuple[str, ...]:
        """The jobs of which history does not say how long they take."""
        return self.jobs if self.expected_seconds is None else self.unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A tenant or a (job, tenant) pair that the plan does not visit, and why."""

    tenant: str
    job: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """A (job, tenant) pair that is planned and recorded as skipped: it is paused, or the like."""

    tenant: Tenant
    job: str
    #: Begins with a ``Reason``.
    reason: str
    #: Its claim is taken and closed: the slot is not done later either.
    closes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The ordered visits of a run: pure data."""

    visits: tuple[Visit, ...]
    #: Names of fleet-scope jobs.
    fleet_jobs: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    set_aside: tuple[SetAside, ...] = ()

    @property
    def executions(self) -> int:
        """How many outcomes the plan comes to: fleet-scope ones, and those set aside, included."""
        visited = sum(len(visit.jobs) for visit in self.visits)
        return len(self.fleet_jobs) + len(self.set_aside) + visited


class Key(NamedTuple):
    """What identifies work: one job on one tenant for one slot."""

    job: str
    tenant: str
    slot_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One attempt to be made: names only, so that it can be sent to another process."""

    key: Key
    run: str
    slot: datetime
    attempt: int
    #: Grows each time a claim changes hands.
    fence: int
    #: Whatever the attempt does is rolled back.
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitRequest:
    """The attempts to be made on one tenant, in order."""

    tenant: Tenant
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How one attempt ended. Every text in it is already scrubbed of secrets and row values."""

    request: Request
    server: str
    outcome: Outcome
    started_at: datetime
    duration_seconds: float
    #: Set for everything that is not ``succeeded`` and not ``failed`` by an exception.
    reason: str | None = None
    #: One line: the exception's type and message.
    error: str | None = None
    #: The error without what differs between tenants; failures are grouped by it.
    cause: str | None = None
    #: The driver's error code, for ``cronrunner_db_errors_total``.
    code: str | None = None
    traceback: str | None = None
    counters: Mapping[str, int] = field(default_factory=lambda: EMPTY)
    #: What the job has said of itself, in a few words.
    note: str | None = None
    #: Rows that a dry run has changed before it rolled back; 0 in every other run.
    rows_changed: int = 0
    #: What a ``prepare`` returned: JSON text.
    value: str | None = None
    #: The server refused the session, was silent, or is full: no fault of this one tenant.
    unreached: bool = False
    #: The job's own ``Skip`` or ``Cancel``.
    by_job: bool = False
    #: Its server could not be reached, or the connection was lost: no fault of the tenant.
    server_fault: bool = False
    #: False if the runner has left it out: the attempt of the request was never made.
    attempted: bool = True
    #: The error is worth repeating, as the job's policy on this tenant says.
    transient: bool = False
    policy: RetryPolicy | None = None
    #: The delay that the job gave to ``Retry``.
    retry_after: timedelta | None = None
    #: False for an attempt after which there is another one.
    final: bool = True

    @property
    def closes_claim(self) -> bool:
        """Tell whether this result closes the claim of its execution."""
        return closes_claim(self.outcome, by_job=self.by_job or self.reason == Reason.MISSED)
