"""The words of cronrunner: frozen values, and the life of an execution.

Standard library only, no input or output. The words themselves are explained in
``docs/glossary.md``; this module is where code gets them from.

The life of an execution
------------------------

::

    claimed ──> running ──> succeeded | failed | timed_out | stuck | skipped
       │           │        | cancelled | interrupted | tenant_gone
       │           └──> waiting ──> running          (a retry: a not-before time)
       └──> skipped | cancelled | interrupted        (it never began)

``TRANSITIONS`` is that picture as a table. A claim is the right to do
``(job, tenant, slot key)``; it is durable before the job begins, and it ends open or
closed. ``closes_claim`` says which outcomes close it: a closed claim makes the same slot a
duplicate, an open one may be taken over, with a higher fence, once its holder is gone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Self

from cronrunner.errors import DurationError

#: The tenant name under which fleet-scope work is claimed and recorded.
FLEET: Final = ""

EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


class Outcome(StrEnum):
    """How an execution ended. The set is closed: every execution gets exactly one."""

    #: The job returned and its transaction, if it has one, was committed.
    SUCCEEDED = "succeeded"
    #: The job raised, or its tenant could not be reached.
    FAILED = "failed"
    #: The deadline passed and the work was cancelled.
    TIMED_OUT = "timed_out"
    #: The deadline passed and the work could not be cancelled.
    STUCK = "stuck"
    #: Nothing was done, on purpose; the reason says whose.
    SKIPPED = "skipped"
    #: Ended on purpose after it began, by the job itself or by a drain.
    CANCELLED = "cancelled"
    #: The process that held it died, or was told to end before it could finish.
    INTERRUPTED = "interrupted"
    #: The tenant's database vanished between discovery and connect.
    TENANT_GONE = "tenant_gone"


class State(StrEnum):
    """Where an execution is before it has an outcome."""

    #: The run holds the claim; the job has not begun.
    CLAIMED = "claimed"
    #: An attempt is under way.
    RUNNING = "running"
    #: An attempt failed in a way worth repeating; the next has a not-before time.
    WAITING = "waiting"


WELL: Final = frozenset({Outcome.SUCCEEDED, Outcome.SKIPPED})
"""The outcomes that leave the exit code at 0."""

_CLOSING: Final = frozenset(
    {Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.TENANT_GONE}
)

TRANSITIONS: Final[Mapping[State, frozenset[State | Outcome]]] = MappingProxyType(
    {
        # Work that never began can only be left out or cut off.
        State.CLAIMED: frozenset(
            {State.RUNNING, Outcome.SKIPPED, Outcome.CANCELLED, Outcome.INTERRUPTED}
        ),
        # An attempt ends in any outcome, or waits for the next one.
        State.RUNNING: frozenset({State.WAITING, *Outcome}),
        # A retry may be overtaken by a drain, a pause, or the death of the process.
        State.WAITING: frozenset(
            {State.RUNNING, Outcome.SKIPPED, Outcome.CANCELLED, Outcome.INTERRUPTED}
        ),
    }
)
"""The legal transitions. An outcome has none: history is never overwritten."""


def closes_claim(outcome: Outcome, *, by_job: bool) -> bool:
    """Tell whether ``outcome`` closes the claim of its execution.

    ``by_job`` is true for a ``Skip`` or ``Cancel`` that the job itself asked for: that is an
    answer and closes. A skip or cancel by the runner (drain, pause, a failed ``prepare``)
    leaves the work to whoever comes next, and so do ``stuck`` and ``interrupted``.
    """
    if outcome in {Outcome.SKIPPED, Outcome.CANCELLED}:
        return by_job
    return outcome in _CLOSING


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


class Reason(StrEnum):
    """Why the runner itself skipped, cancelled or interrupted an execution."""

    PREPARE_FAILED = "prepare failed"
    DRAINED = "drained"
    STOPPED = "stopped"
    RECOVERED = "recovered"
    GRACE_EXPIRED = "grace expired"
    RUNNER_DIED = "the runner died"
    RUNNER_FAILED = "the runner failed"


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


@dataclass(frozen=True, slots=True)
class Option:
    """A setting of a job: its default, whose type is the option's type, and its bounds.

    ``environment`` names a variable that stands behind the configuration: command line,
    tenant, job, environment, default is the order of precedence.
    """

    default: bool | int | float | str | tuple[Any, ...]
    help: str = ""
    environment: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    #: The allowed values; for a list, of each of its members.
    choices: tuple[Any, ...] = ()

    def read(self, raw: object) -> Any:  # noqa: ANN401 - one of the types of ``default``
        """Return ``raw`` as this option's type.

        Text is accepted for every type, since that is what an environment variable and the
        command line give; a list is then separated by commas and an empty one means the
        default. Raises ``ValueError`` saying what was expected.
        """
        value = self._canonical(_read_option(self.default, raw))
        if self.default != () and value == ():
            return self.default
        for member in value if isinstance(value, tuple) else (value,):
            self._check(member)
        return value

    def _canonical(self, value: Any) -> Any:  # noqa: ANN401 - one of the types of ``default``
        """Write texts as the choices do, whatever their case."""
        known = {choice.lower(): choice for choice in self.choices if isinstance(choice, str)}
        if isinstance(value, tuple):
            return tuple(known.get(str(each).lower(), each) for each in value)
        return known.get(value.lower(), value) if isinstance(value, str) else value

    def _check(self, value: Any) -> None:  # noqa: ANN401 - one of the types of ``default``
        if self.choices and value not in self.choices:
            expected = "one of " + ", ".join(map(str, self.choices))
        elif self.minimum is not None and value < self.minimum:
            expected = f"at least {self.minimum:g}"
        elif self.maximum is not None and value > self.maximum:
            expected = f"at most {self.maximum:g}"
        else:
            return
        msg = f"expected {expected}, got {value!r}"
        raise ValueError(msg)


_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})


def _read_option(default: object, raw: object) -> Any:  # noqa: ANN401 - as ``default``
    text = raw.strip() if isinstance(raw, str) else None
    found: object
    match default:
        case bool():
            found, expected = _read_bool(raw, text), "true or false"
        case int():
            found, expected = _read_int(raw, text), "a whole number"
        case float():
            found, expected = _read_float(raw), "a number"
        case str():
            found, expected = text, "text"
        case _:
            found, expected = _read_list(raw, text), "a list"
    if found is None:
        msg = f"expected {expected}, got {raw!r}"
        raise ValueError(msg)
    return found


def _read_bool(raw: object, text: str | None) -> bool | None:
    if text is not None and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    return raw if isinstance(raw, bool) else None


def _read_int(raw: object, text: str | None) -> int | None:
    if text is not None:
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else None
    return raw if isinstance(raw, int) and not isinstance(raw, bool) else None


def _read_float(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return None
    try:
        number = float(raw)
    except ValueError:
        return None
    # Not a number and infinity are within no bounds.
    return number if math.isfinite(number) else None


def _read_list(raw: object, text: str | None) -> tuple[Any, ...] | None:
    if text is not None:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return tuple(raw) if isinstance(raw, Sequence) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A definition: what to run, how often, and on whom."""

    name: str
    call: Callable[[Any], Any]
    #: Where it was found: ``compliance.py:12`` relative to the job folder.
    origin: str
    description: str = ""
    schedule: str | None = None
    timeout: timedelta = timedelta(minutes=5)
    retry: RetryPolicy = RetryPolicy()
    scope: Scope = Scope.TENANT
    transaction: Transaction = Transaction.TENANT
    tenants: TenantFilter = TenantFilter()
    options: Mapping[str, Option] = field(default_factory=lambda: EMPTY)
    prepare: Callable[[Any], Any] | None = None
    summarize: Callable[[Any], Any] | None = None
    #: Writes a marker into the tenant's database, in the job's transaction.
    exactly_once: bool = False
    enabled: bool = True

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
        at = as_utc(at)
        timespec = "microseconds" if at.microsecond else "seconds"
        return cls(at=at, key=at.isoformat(timespec=timespec).replace("+00:00", "Z"))

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A tenant or a (job, tenant) pair that the plan does not visit, and why."""

    tenant: str
    job: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The ordered visits of a run: pure data."""

    visits: tuple[Visit, ...]
    #: Names of fleet-scope jobs.
    fleet_jobs: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def executions(self) -> int:
        """How many executions the plan comes to, fleet-scope ones included."""
        return len(self.fleet_jobs) + sum(len(visit.jobs) for visit in self.visits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
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
    #: What a ``prepare`` returned: JSON text.
    value: str | None = None
    #: The job's own ``Skip`` or ``Cancel``.
    by_job: bool = False
    #: The error is worth repeating.
    transient: bool = False
    #: The delay that the job gave to ``Retry``.
    retry_after: timedelta | None = None
    #: False for an attempt after which there is another one.
    final: bool = True

    @property
    def closes_claim(self) -> bool:
        """Tell whether this result closes the claim of its execution."""
        return closes_claim(self.outcome, by_job=self.by_job)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What the ledger remembers of a (job, tenant) pair, beyond the pruning of history."""

    job: str
    tenant: str
    totals: Mapping[Outcome, int]
    #: ``None``, as the times and durations below, while the job never ran on the tenant.
    last_outcome: Outcome | None
    last_run_at: datetime | None
    last_success_at: datetime | None
    last_duration_seconds: float | None
    consecutive_failures: int
    smoothed_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What one way of finding tenants gave: the tenants, or why there are none."""

    server: str
    tenants: tuple[Tenant, ...] = ()
    #: A word of a closed set for metrics: ``unreachable``, ``empty``, ``query`` and so on.
    failure: str | None = None
    error: str | None = None
    #: Names that were found and cannot be used, each with its reason.
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrink:
    """A source that lost more tenants than it may without anybody agreeing to it."""

    server: str
    accepted: int
    found: int
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One invocation of the runner."""

    id: str
    command: str
    started_at: datetime
    scheduled_at: datetime | None
    host: str
    #: Changes with every start of the machine or container: a pid means nothing across it.
    boot: str
    pid: int
    #: When the process started, in clock ticks since boot: pids are used again.
    pid_started: int
    slot: Slot


class Repeat(StrEnum):
    """Which closed claims a run takes up again."""

    NOTHING = "nothing"
    #: Those that did not go well.
    UNWELL = "unwell"
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What the ledger answered to a request for claims."""

    #: Granted, with the fence number to work under.
    granted: Mapping[Key, int]
    #: Done already: the run that did it.
    duplicates: Mapping[Key, str]
    #: Held by a live run.
    held: Mapping[Key, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseCount:
    """A cause of failure and the tenants that met it."""

    cause: str
    count: int
    tenant_names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The folded outcomes of a run; decides the exit code."""

    run: Run
    finished_at: datetime
    duration_seconds: float
    tenants: int
    planned: int
    outcomes: Mapping[Outcome, int]
    #: Executions whose slot was done already, by this or another run.
    duplicates: int
    #: Executions that another live run holds.
    held: int
    errors: tuple[str, ...]
    causes: tuple[CauseCount, ...]
    #: Tenants that met any cause of failure.
    unwell_tenants: int
    #: The longest visits: tenant and seconds.
    slowest: tuple[tuple[str, float], ...]
    discovery_failed: bool = False
    broken_jobs: int = 0
    drained: bool = False
    #: Stopped by the limit of failures, or by a canary.
    stopped: bool = False
    #: ``ExitCode.USAGE`` or ``ExitCode.RUNNER`` when that is how the run ended.
    forced: int | None = None

    @property
    def exit_code(self) -> int:
        """The exit code, by precedence 70, 75, 5, 4, 1, 3, 0; 2 before anything ran."""
        all_held = self.held and self.held + self.duplicates == self.planned
        not_well = any(self.outcomes.get(each) for each in Outcome if each not in WELL)
        by_precedence = (
            (self.forced is not None, self.forced),
            (self.drained, ExitCode.DRAINED),
            (self.stopped, ExitCode.STOPPED),
            (self.discovery_failed, ExitCode.DISCOVERY),
            (self.broken_jobs or not_well, ExitCode.NOT_WELL),
            (all_held, ExitCode.HELD),
        )
        return next((code for met, code in by_precedence if met and code is not None), ExitCode.OK)


class ExitCode:
    """The exit codes: an interface, and frozen."""

    #: All well, or nothing was due, or this slot was already done.
    OK = 0
    #: Some execution did not go well, or a job file is broken.
    NOT_WELL = 1
    #: Usage or configuration.
    USAGE = 2
    #: A live run holds all of the work.
    HELD = 3
    #: Discovery failed or shrank.
    DISCOVERY = 4
    #: Stopped by the failure limit.
    STOPPED = 5
    #: The runner itself failed.
    RUNNER = 70
    #: Drained by a signal with work left.
    DRAINED = 75


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One row of the runs table, as metrics and history need it."""

    run: Run
    finished_at: datetime | None
    exit_code: int | None
    duration_seconds: float | None
    #: Discovered tenants by server.
    discovered: Mapping[str, int] = field(default_factory=lambda: EMPTY)
    outcomes: Mapping[str, int] = field(default_factory=lambda: EMPTY)
    duplicates: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSnapshot:
    """All that metrics are made of, read from the ledger at one instant."""

    taken_at: datetime
    #: Pairs of tenants that the last accepted discovery knows, fleet-scope ones included.
    statistics: Sequence[Statistics]
    #: (job, outcome) over all tenants that ever were.
    job_totals: Mapping[tuple[str, str], int]
    #: job -> (count per bucket of ``DURATION_BUCKETS`` and +Inf, not cumulative; sum).
    durations: Mapping[str, tuple[Sequence[int], float]]
    #: The newest fleet run (one without a tenant selection) that completed, and succeeded.
    last_completed: RunSummary | None
    last_succeeded: RunSummary | None
    #: Tenants of the last accepted discovery, by server.
    tenants: Mapping[str, int]
    #: (metric name, label value) -> value, for counters that only events know.
    counters: Mapping[tuple[str, str], float]


DURATION_BUCKETS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0, 300.0, 900.0, 3600.0,
)  # fmt: skip
"""Upper bounds, in seconds, of the duration histogram: a trivial statement to an hour."""


def as_utc(moment: datetime) -> datetime:
    """Return ``moment`` in UTC; a naive one is refused with ``ValueError``."""
    if moment.tzinfo is None:
        msg = f"expected a datetime with a time zone, got {moment.isoformat()}"
        raise ValueError(msg)
    return moment.astimezone(UTC)


_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNITS: Final = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


def parse_duration(text: str) -> timedelta:
    """Read a duration as it is written everywhere in cronrunner: ``30s``, ``5m``, ``1h30m``.

    Raises ``DurationError`` for anything else, zero included.
    """
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise DurationError(text)
    total = sum((float(number) * _UNITS[unit] for number, unit in parts), timedelta())
    if total <= timedelta():
        raise DurationError(text)
    return total


def format_duration(duration: timedelta) -> str:
    """Write a duration the way ``parse_duration`` reads it."""
    milliseconds = round(duration / _UNITS["ms"])
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    if milliseconds or not parts:
        parts.append(f"{milliseconds}ms")
    return "".join(parts)
