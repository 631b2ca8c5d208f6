"""What results are as rows of the ledger's tables."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from cronrunner.model import (
    DURATION_BUCKETS,
    WELL,
    Outcome,
    Reason,
    Report,
    Result,
    Run,
)

_NO_TOTALS: Final = {each.value: 0 for each in Outcome}


def selection_text(selection: Mapping[str, Any]) -> str:
    """Write what was asked for: equal selections make equal texts."""
    return json.dumps(selection, sort_keys=True)


def run_row(
    run: Run, now: datetime, lease: timedelta, *, fleet: bool, selection: Mapping[str, Any]
) -> dict[str, Any]:
    """Make the row of a run that begins."""
    return {
        "run": run.id,
        "command": run.command,
        "started_at": run.started_at,
        "scheduled_at": run.scheduled_at,
        "slot": run.slot.at,
        "slot_key": run.slot.key,
        "host": run.host,
        "boot": run.boot,
        "pid": run.pid,
        "pid_started": run.pid_started,
        "heartbeat_at": now,
        "lease_until": now + lease,
        "fleet": fleet,
        "selection": selection_text(selection),
    }


def run_end(report: Report, discovered: Mapping[str, int]) -> dict[str, Any]:
    """Make what the row of a run gets at its end."""
    return {
        "finished_at": report.finished_at,
        "planned": report.planned,
        "duplicates": report.duplicates,
        "exit_code": report.exit_code,
        "discovered": json.dumps(discovered, sort_keys=True),
        "errors": json.dumps(report.errors),
        "outcomes": json.dumps({str(k): n for k, n in report.outcomes.items() if n}),
    }


def counter_rows(numbers: Mapping[tuple[str, str], float]) -> list[dict[str, Any]]:
    return [{"name": name, "label": label, "value": v} for (name, label), v in numbers.items()]


def execution_row(result: Result) -> dict[str, Any]:
    request = result.request
    return {
        "run": request.run,
        "job": request.key.job,
        "tenant": request.key.tenant,
        "server": result.server,
        "slot": request.slot,
        "slot_key": request.key.slot_key,
        "outcome": result.outcome.value,
        "reason": result.reason,
        "error": result.error,
        "cause": result.cause,
        "code": result.code,
        "attempts": request.attempt if result.attempted else request.attempt - 1,
        "fence": request.fence,
        "started_at": result.started_at,
        "duration_seconds": result.duration_seconds,
        "counters": json.dumps(dict(result.counters)) if result.counters else None,
        "note": result.note,
    }


def attempt_row(result: Result) -> dict[str, Any]:
    return {
        "run": result.request.run,
        "job": result.request.key.job,
        "tenant": result.request.key.tenant,
        "attempt": result.request.attempt,
        "outcome": result.outcome.value,
        "error": result.error,
        "code": result.code,
        "started_at": result.started_at,
        "duration_seconds": result.duration_seconds,
    }


def claim_end(result: Result, now: datetime) -> dict[str, Any]:
    closes = result.closes_claim
    key = result.request.key
    return {
        "job": key.job,
        "tenant": key.tenant,
        "slot_key": key.slot_key,
        "run": result.request.run,
        "fence": result.request.fence,
        "state": "closed" if closes else "open",
        "outcome": result.outcome.value,
        "claimed_at": result.started_at,
        "closed_at": now if closes else None,
    }


def ran(result: Result) -> bool:
    """Tell whether a result says something of the job: not if the runner left it out."""
    if result.outcome in {Outcome.SKIPPED, Outcome.CANCELLED}:
        return result.by_job
    return result.outcome is not Outcome.INTERRUPTED


def overlaps(result: Result) -> bool:
    """Tell whether a result says that an earlier slot was still at work."""
    return result.reason is not None and result.reason.startswith(Reason.OVERLAP)


def statistics_row(execution: Mapping[str, Any], result: Result | None) -> dict[str, Any]:
    """Make the statistics of one execution; those of its pair are folded by the database."""
    outcome = Outcome(execution["outcome"])
    counted = {
        "job": execution["job"],
        "tenant": execution["tenant"],
        **_NO_TOTALS,
        outcome.value: 1,
        "consecutive_failures": 0,
    }
    if result is None:
        # The job did not run: of its last run there is nothing to say.
        return counted
    finished_at = result.started_at + timedelta(seconds=result.duration_seconds)
    return counted | {
        "last_outcome": outcome.value,
        "last_run_at": finished_at,
        "last_success_at": finished_at if outcome is Outcome.SUCCEEDED else None,
        "last_duration_seconds": result.duration_seconds,
        "consecutive_failures": int(outcome not in WELL),
        "smoothed_seconds": result.duration_seconds,
    }


def histogram_rows(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Count the group's durations per job and bucket: few rows, whatever the group's size."""
    counts: Counter[tuple[str, int]] = Counter()
    seconds: defaultdict[tuple[str, int], float] = defaultdict(float)
    for each in results:
        if ran(each):
            key = (each.request.key.job, _bucket(each.duration_seconds))
            counts[key] += 1
            seconds[key] += each.duration_seconds
    return [
        {"job": job, "bucket": bucket, "executions": count, "seconds": seconds[job, bucket]}
        for (job, bucket), count in sorted(counts.items())
    ]


def taken_back(job: str, tenant: str) -> dict[str, Any]:
    """Make the statistics that take back an interruption which was none."""
    none = {"job": job, "tenant": tenant, **_NO_TOTALS, "consecutive_failures": 0}
    return none | {Outcome.INTERRUPTED.value: -1}


def _bucket(seconds: float) -> int:
    for position, bound in enumerate(DURATION_BUCKETS):
        if seconds <= bound:
            return position
    return len(DURATION_BUCKETS)
