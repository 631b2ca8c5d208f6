"""Counts what only events know."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Final

from cronrunner.events import (
    AttemptFailed,
    BreakerClosed,
    BreakerOpened,
    ClaimRefused,
    DeadlineEnforced,
    DiscoveryFailed,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    RunInterruptedFound,
    SlotsMissed,
    TenantsDiscovered,
    VisitFinished,
)
from cronrunner.model import Outcome, Result, whose_skip

BREAKER_OPEN: Final = "cronrunner_breaker_open"
BREAKER_OPENINGS: Final = "cronrunner_breaker_openings_total"
DB_ERRORS: Final = "cronrunner_db_errors_total"
DISCOVERY_ERRORS: Final = "cronrunner_discovery_errors_total"
DUPLICATES: Final = "cronrunner_duplicates_total"
KILLS: Final = "cronrunner_kills_total"
LEASE_LOSSES: Final = "cronrunner_lease_losses_total"
RETRIES: Final = "cronrunner_retries_total"
SKIPS: Final = "cronrunner_skips_total"
SLOTS_MISSED: Final = "cronrunner_slots_missed_total"


class MetricsListener:
    """Collects what counters grew by, and what gauges are, until somebody asks for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deltas: Counter[tuple[str, str]] = Counter()
        self._states: dict[tuple[str, str], float] = {}

    def hears(self, kind: type[Event]) -> bool:
        """Leave out two of three events of a run."""
        return kind not in {ExecutionStarted, VisitFinished}

    def on(self, event: Event) -> None:  # noqa: C901 - one case for each event
        """Take note of ``event`` if a counter or a gauge is made of it."""
        match event:
            case ExecutionFinished(result=result):
                self._add_result(result)
            case AttemptFailed(result=result):
                self._add(RETRIES, result.request.key.job)
            case ClaimRefused(key=key, held=False):
                self._add(DUPLICATES, key.job)
            case DeadlineEnforced(killed=killed):
                self._add(KILLS, killed)
            case RunInterruptedFound():
                self._add(LEASE_LOSSES, "")
            case DiscoveryFailed(reason=reason):
                self._add(DISCOVERY_ERRORS, reason)
            case SlotsMissed(job=job, slots=slots):
                self._add(SLOTS_MISSED, job, slots)
            case TenantsDiscovered(server=server):
                self._set(BREAKER_OPEN, server, 0)
            case BreakerOpened(server=server, failed_probes=probes):
                self._set(BREAKER_OPEN, server, 1)
                self._add(BREAKER_OPENINGS, server, int(probes == 0))
            case BreakerClosed(server=server):
                self._set(BREAKER_OPEN, server, 0)
            case _:
                pass

    def drain(self) -> Mapping[tuple[str, str], float]:
        """Return what counters grew by since the last call, by metric name and label value."""
        with self._lock:
            deltas, self._deltas = self._deltas, Counter()
        return {key: float(value) for key, value in deltas.items() if value}

    def states(self) -> Mapping[tuple[str, str], float]:
        """Return what gauges are by now, by metric name and label value."""
        with self._lock:
            return dict(self._states)

    def _add_result(self, result: Result) -> None:
        if result.code is not None:
            self._add(DB_ERRORS, result.code)
        if result.outcome is Outcome.SKIPPED:
            self._add(SKIPS, whose_skip(result.reason))

    def _add(self, name: str, label: str, count: int = 1) -> None:
        with self._lock:
            self._deltas[name, label] += count

    def _set(self, name: str, label: str, value: float) -> None:
        with self._lock:
            self._states[name, label] = value
