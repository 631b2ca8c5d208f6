"""What is remembered: runs, claims, statistics, and what metrics are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from cronrunner.model.durations import format_instant
from cronrunner.model.life import WELL, ExitCode, Outcome
from cronrunner.model.work import EMPTY, Key, Slot, Tenant


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
    #: Skips in a row because an earlier slot was still at work.
    overlaps_in_a_row: int = 0
    #: Runs in a row in which the pair failed and the job succeeded elsewhere.
    failures_apart: int = 0
    quarantined_at: datetime | None = None
    #: The slot for which a quarantined pair was last tried.
    probed_at: datetime | None = None
    #: What the job's code was when the pair was quarantined.
    code_digest: str | None = None


class Pair(NamedTuple):
    """What a plan is made of: that part of the ``Statistics`` of a (job, tenant) pair.

    A tuple, since a fleet has as many as it has tenants, times jobs, and each is made of a row.
    """

    job: str
    tenant: str
    last_run_at: datetime | None = None
    last_success_at: datetime | None = None
    consecutive_failures: int = 0
    smoothed_seconds: float | None = None
    overlaps_in_a_row: int = 0
    quarantined_at: datetime | None = None
    probed_at: datetime | None = None
    code_digest: str | None = None


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
class Pause:
    """What somebody has paused, why, and for how long. An empty name stands for all."""

    job: str
    tenant: str
    server: str
    #: Without secrets, on one line.
    reason: str
    paused_at: datetime
    #: ``None`` until somebody ends it.
    until: datetime | None = None

    @property
    def names(self) -> tuple[str, str, str]:
        """What identifies it: job, tenant, server."""
        return self.job, self.tenant, self.server

    @property
    def text(self) -> str:
        """Its reason and its end, for people."""
        return self.reason + (f", until {format_instant(self.until)}" if self.until else "")


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
    #: Nothing that it does stays.
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who is at work on a (job, tenant) pair, and since when."""

    run: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What the ledger answered to a request for claims."""

    #: Granted, with the fence number to work under.
    granted: Mapping[Key, int]
    #: Done already: the run that did it.
    duplicates: Mapping[Key, str]
    #: Held by a live run.
    held: Mapping[Key, str]
    #: Not claimed, because an earlier slot of the pair is at work.
    overlapping: Mapping[Key, Holder] = field(default_factory=dict)
    #: The duplicates that did not end well.
    unwell: frozenset[Key] = frozenset()

    def answers(self, key: Key) -> bool:
        """Tell whether the ledger answered: it may have been lost meanwhile."""
        parts = (self.granted, self.duplicates, self.held, self.overlapping)
        return any(key in part for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseCount:
    """A cause of failure and the tenants that met it."""

    cause: str
    count: int
    tenant_names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwell:
    """A tenant, and the jobs that did not go well there."""

    tenant: str
    jobs: tuple[str, ...]


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
    #: Skipped executions by whose doing it was: a ``Reason``, or the job's own.
    skips: Mapping[str, int] = field(default_factory=lambda: EMPTY)
    #: A tenant that met the commonest cause, to be tried again.
    example: Unwell | None = None
    #: Run -> how many of the duplicates did not end well in it.
    unwell_duplicates: Mapping[str, int] = field(default_factory=lambda: EMPTY)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """What a run has left in a file, since its ledger was lost."""

    path: str
    outcomes: int
    #: Outcomes for which there was no room.
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One row of the runs table, as metrics and history need it."""

    run: Run
    finished_at: datetime | None
    exit_code: int | None
    duration_seconds: float | None


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
    #: Pauses in force.
    pauses: int = 0
    #: What dead runs have left in the spools of this host, in bytes.
    spool_bytes: int = 0


DURATION_BUCKETS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0, 300.0, 900.0, 3600.0,
)  # fmt: skip
"""Upper bounds, in seconds, of the duration histogram: a trivial statement to an hour."""

SPOOL_IMPORTED: Final = "cronrunner_spool_imported_total"
"""The counter of outcomes that were imported from a spool: the ledger counts, metrics show it."""
