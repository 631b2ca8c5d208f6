"""The metric families: names, types and labels are an interface, kept by a golden file.

Histograms and counters carry ``job`` and ``outcome``; the tenant label is on gauges and on one
counter from the ledger only. A family of those with more series than the limit is left out as
a whole, since half of a family would be a lie, and ``cronrunner_tenant_series_dropped`` says
how many series that were.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, product
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from cronrunner import __version__
from cronrunner.events import Warned
from cronrunner.metrics.listener import (
    BREAKER_OPEN,
    BREAKER_OPENINGS,
    DB_ERRORS,
    DISCOVERY_ERRORS,
    DUPLICATES,
    KILLS,
    LEASE_LOSSES,
    RETRIES,
    SKIPS,
    SLOTS_MISSED,
)
from cronrunner.model import (
    DURATION_BUCKETS,
    FLEET,
    SPOOL_IMPORTED,
    LedgerSnapshot,
    Outcome,
    Run,
    RunSummary,
)

#: Writes what a registry collects, in one of the formats of Prometheus.
Encoder = Callable[[Collector], bytes]

_AGE: Final = "cronrunner_metrics_age_seconds"
_BOUNDS: Final = (*map(floatToGoString, DURATION_BUCKETS), "+Inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A reading of the ledger that is ready to be written."""

    snapshot: LedgerSnapshot
    series_limit: int

    def collector(self, *, job_label: str = "job") -> Collector:
        """Return the families as prometheus_client takes them.

        ``job_label`` is for receivers which claim the label ``job`` for themselves.
        """
        return Given(collect(self.snapshot, series_limit=self.series_limit, job_label=job_label))


def render(
    snapshot: LedgerSnapshot,
    *,
    series_limit: int,
    now: datetime | None = None,
    encoder: Encoder = generate_latest,
) -> bytes:
    """Write the families of ``snapshot``, in the text format unless ``encoder`` has another.

    With ``now``, the age of the snapshot is one of them: it means something where answers are
    asked for, and nothing in a file or push.
    """
    families = collect(snapshot, series_limit=series_limit)
    if now is not None:
        families.append(age((now - snapshot.taken_at).total_seconds()))
    return encoder(Given(families))


class Given(Collector):
    """A collector of families that are there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return the families."""
        return self._families


def age(seconds: float) -> Metric:
    """Return the gauge that says how old an answer is; infinity when there is none yet."""
    return GaugeMetricFamily(_AGE, "Age of the reading of the ledger that this is.", seconds)


def build_info() -> Metric:
    """Return the gauge that says what runs here."""
    labels = ("version", "python")
    family = GaugeMetricFamily("cronrunner_build_info", "Versions, as labels.", labels=labels)
    family.add_metric((__version__, platform.python_version()), 1)
    return family


def dropped(snapshot: LedgerSnapshot, *, series_limit: int) -> Warned | None:
    """Return what to tell an operator when families are left out, ``None`` if none is."""
    names = [table.name for table in _tenant_tables(snapshot) if len(table.rows) > series_limit]
    if not names:
        return None
    text = f"families of more than {series_limit} series are left out: {', '.join(names)}"
    return Warned(subject="metrics", text=text)


def collect(snapshot: LedgerSnapshot, *, series_limit: int, job_label: str = "job") -> list[Metric]:
    """Return all families of ``snapshot`` but the age."""
    return [
        *_job_families(snapshot, job_label),
        *_tenant_families(snapshot, series_limit, job_label),
        _quarantine(snapshot, job_label),
        *_run_families(snapshot),
        *_event_families(snapshot, job_label),
        GaugeMetricFamily("cronrunner_pauses", "Pauses that are in force.", snapshot.pauses),
        GaugeMetricFamily(
            "cronrunner_spool_bytes",
            "Outcomes on this host that are not in the ledger yet.",
            snapshot.spool_bytes,
        ),
        build_info(),
    ]


def _job_families(snapshot: LedgerSnapshot, job_label: str) -> Iterator[Metric]:
    totals, durations = snapshot.job_totals, snapshot.durations
    executions = CounterMetricFamily(
        "cronrunner_job_executions_total",
        "Executions by outcome, over all tenants.",
        labels=(job_label, "outcome"),
    )
    # An outcome that never was is 0, so that its first increase is seen as one.
    for job, outcome in product(sorted({job for job, _ in totals}), Outcome):
        executions.add_metric((job, outcome), totals.get((job, outcome), 0))
    yield executions

    seconds = HistogramMetricFamily(
        "cronrunner_job_duration_seconds",
        "Duration of executions, over all tenants.",
        labels=(job_label,),
    )
    for job, (counts, total) in sorted(durations.items()):
        buckets = list(zip(_BOUNDS, accumulate(counts), strict=True))
        seconds.add_metric((job,), buckets, total)
    yield seconds


def _quarantine(snapshot: LedgerSnapshot, job_label: str) -> Metric:
    family = GaugeMetricFamily(
        "cronrunner_quarantined_pairs",
        "Tenants on which the job is quarantined.",
        labels=(job_label,),
    )
    of_tenants = [pair for pair in snapshot.statistics if pair.tenant != FLEET]
    counts = Counter(pair.job for pair in of_tenants if pair.quarantined_at is not None)
    for job in sorted({pair.job for pair in of_tenants}):
        family.add_metric((job,), counts[job])
    return family


def _tenant_families(
    snapshot: LedgerSnapshot, series_limit: int, job_label: str
) -> Iterator[Metric]:
    left_out = 0
    for table in _tenant_tables(snapshot):
        labels = ("tenant", job_label, *table.labels)
        family = table.family(table.name, table.help, labels=labels)
        if len(table.rows) > series_limit:
            left_out += len(table.rows)
        else:
            for values, number in table.rows:
                family.add_metric(values, number)
        yield family
    yield GaugeMetricFamily(
        "cronrunner_tenant_series_dropped",
        "Series per tenant that are left out because their family is over the limit.",
        left_out,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A family with a series for each tenant, before it is decided whether it is shown."""

    name: str
    help: str
    rows: Sequence[tuple[tuple[str, ...], float]]
    family: type[CounterMetricFamily | GaugeMetricFamily] = GaugeMetricFamily
    #: Beyond tenant and job.
    labels: tuple[str, ...] = ()


def _tenant_tables(snapshot: LedgerSnapshot) -> Iterator[_Table]:
    known = snapshot.statistics
    yield _Table(
        name="cronrunner_tenant_job_executions_total",
        help="Executions by outcome; outcomes that never were have no series.",
        family=CounterMetricFamily,
        labels=("outcome",),
        rows=[
            ((pair.tenant, pair.job, outcome), count)
            for pair in known
            for outcome, count in pair.totals.items()
            if count
        ],
    )
    yield _Table(
        name="cronrunner_tenant_job_last_duration_seconds",
        help="Duration of the last execution.",
        rows=[
            ((pair.tenant, pair.job), pair.last_duration_seconds)
            for pair in known
            if pair.last_duration_seconds is not None
        ],
    )
    yield _Table(
        name="cronrunner_tenant_job_last_success_timestamp_seconds",
        help="When the job last succeeded; no series if it never did.",
        rows=[
            ((pair.tenant, pair.job), pair.last_success_at.timestamp())
            for pair in known
            if pair.last_success_at is not None
        ],
    )
    yield _Table(
        name="cronrunner_tenant_job_last_run_timestamp_seconds",
        help="When the job last ended, with whatever outcome.",
        rows=[
            ((pair.tenant, pair.job), pair.last_run_at.timestamp())
            for pair in known
            if pair.last_run_at is not None
        ],
    )
    yield _Table(
        name="cronrunner_tenant_job_consecutive_failures",
        help="Executions in a row that did not go well.",
        rows=[((pair.tenant, pair.job), pair.consecutive_failures) for pair in known],
    )


def _run_families(snapshot: LedgerSnapshot) -> Iterator[Metric]:
    completed, succeeded = snapshot.last_completed, snapshot.last_succeeded
    yield GaugeMetricFamily(
        "cronrunner_run_duration_seconds",
        "Duration of the last completed run of the fleet.",
        completed.duration_seconds if completed else None,
    )
    yield GaugeMetricFamily(
        "cronrunner_run_last_completion_timestamp_seconds",
        "When a run of the fleet last ended, whatever its exit code.",
        _ended(completed),
    )
    yield GaugeMetricFamily(
        "cronrunner_run_last_success_timestamp_seconds",
        "When a run of the fleet last ended with exit code 0.",
        _ended(succeeded),
    )
    yield GaugeMetricFamily(
        "cronrunner_run_start_lateness_seconds",
        "Start minus scheduled time of the last completed run of the fleet, if it had one.",
        _lateness(completed.run) if completed else None,
    )
    discovered = GaugeMetricFamily(
        "cronrunner_tenants_discovered",
        "Tenants of the last accepted discovery.",
        labels=("server",),
    )
    for server, tenants in sorted(snapshot.tenants.items()):
        discovered.add_metric((server,), tenants)
    yield discovered


def _event_families(snapshot: LedgerSnapshot, job_label: str) -> Iterator[Metric]:
    """Yield what only events know; without a label there is a number from the beginning."""
    for name, label, text in (
        (DISCOVERY_ERRORS, "reason", "Discoveries of a source that failed or found nothing."),
        (DB_ERRORS, "code", "Executions that ended with an error, by the database's code."),
        (KILLS, "killed", "What was ended because its time was over."),
        (RETRIES, job_label, "Attempts that failed and were repeated."),
        (SKIPS, "reason", "Executions that were skipped, by the reason."),
        (DUPLICATES, job_label, "Executions that were not repeated, as their slot was done."),
        (LEASE_LOSSES, None, "Runs that were found dead: their leases were over, or they were."),
        (SLOTS_MISSED, job_label, "Slots for which nothing was run, and nothing will be."),
        (BREAKER_OPENINGS, "server", "How often a server refused visits until the others waited."),
        (SPOOL_IMPORTED, None, "Outcomes that came to the ledger late, from the spool of a run."),
        (BREAKER_OPEN, "server", "1 if a server still refused its visits when its last run ended."),
    ):
        family_of = GaugeMetricFamily if name == BREAKER_OPEN else CounterMetricFamily
        family = family_of(name, text, labels=() if label is None else (label,))
        if label is None:
            family.add_metric((), snapshot.counters.get((name, ""), 0))
        else:
            for (counter, value), count in sorted(snapshot.counters.items()):
                if counter == name:
                    family.add_metric((value,), count)
        yield family


def _ended(run: RunSummary | None) -> float | None:
    return run.finished_at.timestamp() if run and run.finished_at else None


def _lateness(run: Run) -> float | None:
    if run.scheduled_at is None:
        return None
    return (run.started_at - run.scheduled_at).total_seconds()
