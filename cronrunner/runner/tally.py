"""What the results of a run come to."""

from __future__ import annotations

import heapq
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Final

from cronrunner.model import (
    WELL,
    CauseCount,
    Key,
    Outcome,
    Reason,
    Result,
    Tenant,
    Unwell,
    whose_skip,
)

#: Reasons for which an execution is left to the next run.
_LEFT: Final = frozenset({Reason.DRAINED.value, Reason.STOPPED.value})
#: Tenants named for each cause, and slowest tenants named, in a report.
_NAMED: Final = 10
_SLOWEST: Final = 5


@dataclass(slots=True)
class Tally:
    """What the results of a run come to; one lock over all of it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    #: Cause -> its first tenants, each once; a dictionary keeps their order.
    names: defaultdict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    #: Tenants with any cause, and the jobs that had one there.
    unwell: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    #: What has no outcome yet, and its tenant.
    open: dict[Key, Tenant] = field(default_factory=dict)
    duplicates: int = 0
    #: Run -> how many of the duplicates did not end well in it.
    unwell_duplicates: Counter[str] = field(default_factory=Counter)
    #: Left to the next run by a drain or a stop.
    left: int = 0
    failures: int = 0
    held: int = 0
    #: Whose doing it was -> skipped executions.
    skips: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result) -> None:
        """Fold one result in. The caller holds the lock."""
        tenant = result.request.key.tenant
        self.outcomes[result.outcome] += 1
        self.left += result.outcome is Outcome.INTERRUPTED or result.reason in _LEFT
        self.failures += result.outcome not in WELL
        if result.outcome is Outcome.SKIPPED:
            self.skips[whose_skip(result.reason)] += 1
        self.seconds[tenant] += result.duration_seconds
        if result.cause is not None:
            self.causes[result.cause] += 1
            self.unwell[tenant].append(result.request.key.job)
            if len(self.names[result.cause]) < _NAMED:
                self.names[result.cause][tenant] = None

    def slowest(self) -> tuple[tuple[str, float], ...]:
        """Return the tenants that took longest, and their seconds."""
        of_tenants = ((tenant, taken) for tenant, taken in self.seconds.items() if tenant)
        return tuple(heapq.nlargest(_SLOWEST, of_tenants, key=lambda each: each[1]))

    def example(self) -> Unwell | None:
        """Return the first tenant that met the commonest cause, with all that failed there."""
        names = (name for cause, _ in self.causes.most_common() for name in self.names[cause])
        tenant = next((name for name in names if name), None)
        if tenant is None:
            return None
        return Unwell(tenant=tenant, jobs=tuple(self.unwell[tenant]))

    def cause_counts(self) -> tuple[CauseCount, ...]:
        """Return the causes of failure, the commonest first."""
        return tuple(
            CauseCount(cause=cause, count=count, tenant_names=tuple(self.names[cause]))
            for cause, count in self.causes.most_common()
        )
