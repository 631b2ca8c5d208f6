"""Counts what only events know."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Final

from cronrunner.events import (
    BreakerOpened,
    DiscoveryFailed,
    Event,
    ExecutionFinished,
    SlotsMissed,
)

BREAKER_OPENINGS: Final = "cronrunner_breaker_openings_total"
DB_ERRORS: Final = "cronrunner_db_errors_total"
SLOTS_MISSED: Final = "cronrunner_slots_missed_total"
DISCOVERY_ERRORS: Final = "cronrunner_discovery_errors_total"


class MetricsListener:
    """Collects increments of counters until somebody takes them to the ledger."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deltas: Counter[tuple[str, str]] = Counter()

    def on(self, event: Event) -> None:
        """Count ``event`` if a counter is made of it."""
        match event:
            case ExecutionFinished(result=result) if result.code is not None:
                self._add(DB_ERRORS, result.code)
            case DiscoveryFailed(reason=reason):
                self._add(DISCOVERY_ERRORS, reason)
            case SlotsMissed(job=job, slots=slots):
                self._add(SLOTS_MISSED, job, slots)
            case BreakerOpened(server=server, failed_probes=0):
                self._add(BREAKER_OPENINGS, server)
            case _:
                pass

    def drain(self) -> Mapping[tuple[str, str], float]:
        """Return the increments since the last call, by metric name and label value."""
        with self._lock:
            deltas, self._deltas = self._deltas, Counter()
        return {key: float(value) for key, value in deltas.items()}

    def _add(self, name: str, label: str, count: int = 1) -> None:
        with self._lock:
            self._deltas[name, label] += count
