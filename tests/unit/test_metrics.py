"""The metric families, made of a reading of the ledger."""

import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from cronrunner import __version__
from cronrunner.events import (
    BreakerOpened,
    DiscoveryFailed,
    ExecutionFinished,
    TenantsDiscovered,
)
from cronrunner.metrics.families import age, collect, dropped, render
from cronrunner.metrics.listener import MetricsListener
from cronrunner.model import (
    DURATION_BUCKETS,
    Key,
    LedgerSnapshot,
    Outcome,
    Request,
    Result,
    Run,
    RunSummary,
    Slot,
    Statistics,
)

ROOT = Path(__file__).parent.parent.parent
AT = datetime(2026, 11, 21, 0, 0, 0, tzinfo=UTC)
NOW = AT + timedelta(seconds=90)
ODD_TENANT = 'a"b\\c\nd é'


def statistics(tenant: str, job: str = "compliance.overdue", **given: object) -> Statistics:
    pair = Statistics(
        job=job,
        tenant=tenant,
        totals={Outcome.SUCCEEDED: 5, Outcome.FAILED: 2, Outcome.STUCK: 0},
        last_outcome=Outcome.FAILED,
        last_run_at=AT,
        last_success_at=AT - timedelta(days=1),
        last_duration_seconds=0.25,
        consecutive_failures=2,
        smoothed_seconds=0.3,
    )
    return replace(pair, **given)  # type: ignore[arg-type] # the fields of Statistics


def run(exit_code: int, *, late: timedelta | None = timedelta(seconds=7)) -> RunSummary:
    return RunSummary(
        run=Run(
            id="01JD8",
            command="run",
            started_at=AT,
            scheduled_at=None if late is None else AT - late,
            host="h",
            boot="b",
            pid=1,
            pid_started=1,
            slot=Slot.scheduled(AT),
        ),
        finished_at=AT + timedelta(seconds=12),
        exit_code=exit_code,
        duration_seconds=12.0,
    )


EMPTY = LedgerSnapshot(
    taken_at=AT,
    statistics=(),
    job_totals={},
    durations={},
    last_completed=None,
    last_succeeded=None,
    tenants={},
    counters={},
)
FULL = replace(
    EMPTY,
    statistics=(statistics("acme"), statistics(ODD_TENANT, last_success_at=None)),
    job_totals={("compliance.overdue", "succeeded"): 10, ("compliance.overdue", "failed"): 4},
    durations={"compliance.overdue": ([2, *[0] * 14, 1, 1], 5000.5)},
    last_completed=run(1),
    last_succeeded=run(0),
    tenants={"main": 2, "other": 0},
    counters={
        ("cronrunner_db_errors_total", "1146"): 3,
        ("cronrunner_discovery_errors_total", "unreachable"): 2,
        ("cronrunner_slots_missed_total", "cleanup.rows"): 5,
        ("cronrunner_breaker_openings_total", "main"): 1,
        ("cronrunner_breaker_open", "main"): 1,
        ("cronrunner_skips_total", "paused"): 4,
        ("cronrunner_duplicates_total", "cleanup.rows"): 6,
        ("cronrunner_retries_total", "cleanup.rows"): 7,
        ("cronrunner_kills_total", "statement"): 8,
        ("cronrunner_lease_losses_total", ""): 9,
    },
)


def parsed(text: bytes) -> dict[str, Metric]:
    """By the name in the text format, which has `_total` on counters."""
    families = text_string_to_metric_families(text.decode())
    return {family.name + "_total" * (family.type == "counter"): family for family in families}


def series(family: Metric) -> Mapping[tuple[str, ...], float]:
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


def full(**given: object) -> dict[str, Metric]:
    return parsed(render(replace(FULL, **given), series_limit=100, now=NOW))  # type: ignore[arg-type]


def contract(families: Mapping[str, Metric]) -> str:
    """Write name, type and label names of each family."""
    lines = []
    for name, family in sorted(families.items()):
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        lines.append(" ".join([name, family.type, ",".join(labels) or "-"]))
    return "\n".join(lines) + "\n"


def rows(text: str) -> Iterable[tuple[str, str, str]]:
    return re.findall(r"^\| `(cronrunner_\w+)` \| (\w+) \| (.*?) \|", text, re.MULTILINE)


# The contract


def test_names_types_and_labels_are_those_of_the_golden_file() -> None:
    assert contract(full()) == (ROOT / "tests/golden/metrics.txt").read_text()


def test_every_family_of_the_golden_file_is_documented_with_type_and_labels() -> None:
    documented = {
        f"{name} {kind} {','.join(sorted(re.findall('`([a-z]+)`', labels))) or '-'}"
        for name, kind, labels in rows((ROOT / "docs/metrics.md").read_text())
    }
    assert documented == set((ROOT / "tests/golden/metrics.txt").read_text().splitlines())


def test_every_family_is_there_when_the_ledger_is_empty() -> None:
    assert parsed(render(EMPTY, series_limit=100, now=NOW)).keys() == full().keys()


def test_openmetrics_can_be_read_as_openmetrics() -> None:
    text = render(FULL, series_limit=100, now=NOW, encoder=openmetrics.generate_latest).decode()
    families = list(openmetrics_parser.text_string_to_metric_families(text))
    assert {family.name for family in families} == {name.removesuffix("_total") for name in full()}


def test_a_run_without_metrics_does_not_pay_for_their_library() -> None:
    code = (
        "import sys, cronrunner.metrics, cronrunner.metrics.listener\n"
        "sys.exit('prometheus_client' in sys.modules or 'http.server' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# What the families say


def test_a_known_job_has_every_outcome_from_the_beginning() -> None:
    found = series(full()["cronrunner_job_executions_total"])
    assert found == {
        ("compliance.overdue", outcome): {"succeeded": 10, "failed": 4}.get(outcome, 0)
        for outcome in Outcome
    }


def test_the_histogram_is_cumulative_and_ends_in_the_count() -> None:
    samples = full()["cronrunner_job_duration_seconds"].samples
    buckets = {s.labels["le"]: s.value for s in samples if s.name.endswith("_bucket")}
    assert len(buckets) == len(DURATION_BUCKETS) + 1
    assert (buckets["0.005"], buckets["900.0"], buckets["3600.0"], buckets["+Inf"]) == (2, 2, 3, 4)
    rest = {s.name.rpartition("_")[2]: s.value for s in samples if "le" not in s.labels}
    assert rest == {"count": 4, "sum": 5000.5}


def test_a_tenants_series_are_those_of_its_statistics() -> None:
    families = full()
    acme = ("acme", "compliance.overdue")

    def one(name: str) -> float:
        (sample,) = (
            sample
            for sample in families[f"cronrunner_tenant_job_{name}"].samples
            if sample.labels == {"tenant": acme[0], "job": acme[1]}
        )
        return sample.value

    assert one("last_duration_seconds") == 0.25
    assert one("last_run_timestamp_seconds") == AT.timestamp()
    assert one("last_success_timestamp_seconds") == AT.timestamp() - 86_400
    assert one("consecutive_failures") == 2
    outcomes = {
        sample.labels["outcome"]: sample.value
        for sample in families["cronrunner_tenant_job_executions_total"].samples
        if sample.labels["tenant"] == "acme"
    }
    assert outcomes == {"succeeded": 5, "failed": 2}


def test_a_tenant_that_never_succeeded_has_no_time_of_success() -> None:
    samples = full()["cronrunner_tenant_job_last_success_timestamp_seconds"].samples
    assert [sample.labels["tenant"] for sample in samples] == ["acme"]


def test_any_name_of_a_tenant_is_escaped() -> None:
    samples = full()["cronrunner_tenant_job_consecutive_failures"].samples
    assert [sample.labels["tenant"] for sample in samples] == ["acme", ODD_TENANT]


def test_the_run_families_are_of_the_last_runs() -> None:
    def value(name: str, **given: object) -> list[float]:
        return [sample.value for sample in full(**given)[f"cronrunner_run_{name}"].samples]

    earlier = replace(run(0), finished_at=AT - timedelta(days=2))
    assert value("duration_seconds") == [12]
    assert value("last_completion_timestamp_seconds") == [AT.timestamp() + 12]
    assert value("last_success_timestamp_seconds", last_succeeded=earlier) == [
        AT.timestamp() - 2 * 86_400
    ]
    assert value("start_lateness_seconds") == [7]
    assert value("start_lateness_seconds", last_completed=run(0, late=None)) == []
    assert value("last_success_timestamp_seconds", last_succeeded=None) == []


def test_tenants_are_counted_by_server_and_errors_by_code_and_reason() -> None:
    families = full()
    assert series(families["cronrunner_tenants_discovered"]) == {("main",): 2, ("other",): 0}
    assert series(families["cronrunner_db_errors_total"]) == {("1146",): 3}
    assert series(families["cronrunner_discovery_errors_total"]) == {("unreachable",): 2}


def test_build_info_has_the_versions() -> None:
    (sample,) = full()["cronrunner_build_info"].samples
    assert (sample.value, sample.labels["version"]) == (1, __version__)


def test_the_age_is_of_the_reading_and_only_where_answers_are_asked_for() -> None:
    assert series(full()["cronrunner_metrics_age_seconds"]) == {(): 90}
    assert "cronrunner_metrics_age_seconds" not in parsed(render(FULL, series_limit=100))
    assert math.isinf(age(math.inf).samples[0].value)


def test_another_label_can_stand_for_the_job() -> None:
    families = collect(FULL, series_limit=100, job_label="exported_job")
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    assert "exported_job" in labels
    assert "job" not in labels


# The limit


def test_a_family_over_the_limit_is_left_out_as_a_whole_and_counted() -> None:
    pairs = [statistics(f"t{number}") for number in range(3)]
    families = parsed(render(replace(FULL, statistics=pairs), series_limit=5))
    # Three gauges each, and two outcomes for each of the three.
    assert families["cronrunner_tenant_job_executions_total"].samples == []
    assert len(families["cronrunner_tenant_job_consecutive_failures"].samples) == 3
    assert series(families["cronrunner_tenant_series_dropped"]) == {(): 6}
    assert series(full()["cronrunner_tenant_series_dropped"]) == {(): 0}


def test_a_warning_names_the_families_that_are_left_out() -> None:
    pairs = [statistics(f"t{number}") for number in range(3)]
    warning = dropped(replace(FULL, statistics=pairs), series_limit=5)
    assert warning is not None
    assert warning.subject == "metrics"
    assert warning.text == (
        "families of more than 5 series are left out: cronrunner_tenant_job_executions_total"
    )
    assert dropped(replace(FULL, statistics=pairs), series_limit=6) is None


def test_a_hundred_thousand_series_are_rendered_well_within_a_scrape() -> None:
    pairs = [
        statistics(f"agency_{number:05}", f"job_{job}", totals={Outcome.SUCCEEDED: 1})
        for number in range(2000)
        for job in range(10)
    ]
    started = time.process_time()
    text = render(replace(FULL, statistics=pairs), series_limit=50_000)
    # It takes 0.4 s; a scrape may take 10 s.
    assert time.process_time() - started < 5
    assert text.count(b"\ncronrunner_tenant_job_") == 100_000


# What only events know

RESULT = Result(
    request=Request(
        key=Key(job="j", tenant="t", slot_key="s"), run="r", slot=AT, attempt=1, fence=1
    ),
    server="main",
    outcome=Outcome.FAILED,
    started_at=AT,
    duration_seconds=1,
    code="1205",
)


def test_errors_are_counted_until_they_are_taken() -> None:
    listener = MetricsListener()
    for code in ("1205", "1146", "1205", None):
        listener.on(ExecutionFinished(result=replace(RESULT, code=code)))
    listener.on(DiscoveryFailed(server="main", reason="empty", error="none"))
    listener.on(TenantsDiscovered(server="main", tenants=1))
    for probes in range(3):
        # One that stays open was opened once.
        listener.on(BreakerOpened(server="main", failed_probes=probes, wait=timedelta(seconds=1)))

    assert listener.drain() == {
        ("cronrunner_db_errors_total", "1205"): 2,
        ("cronrunner_db_errors_total", "1146"): 1,
        ("cronrunner_discovery_errors_total", "empty"): 1,
        ("cronrunner_breaker_openings_total", "main"): 1,
    }
    assert listener.drain() == {}


def test_no_count_is_lost_between_threads() -> None:
    listener = MetricsListener()
    taken: list[float] = []

    def count() -> None:
        for _ in range(2000):
            listener.on(ExecutionFinished(result=RESULT))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken += listener.drain().values()
    taken += listener.drain().values()
    assert sum(taken) == 8000
