"""What is due: for each job and tenant the newest slot that nobody has done yet.

A slot is due when it is not later than the moment that the trigger says, not earlier than its job
and its tenant were first seen, and neither it nor a newer one is closed. Older slots that nobody
did are missed: they are counted, and never done one by one. A due slot that is later than the
job's ``catch_up`` is missed as well; that is recorded, so that it is said once.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Final

from cronrunner.app.catalogue import Catalogue
from cronrunner.events import Dispatcher, Event, ExecutionFinished, SlotsMissed
from cronrunner.ledger import Queries
from cronrunner.model import FLEET, FLEET_TENANT, Job, Scope, Slot, Tenant, format_instant

#: More missed slots of one pair are not counted.
_MISSED: Final = 10_000


class Due:
    """Which slots are due at a moment."""

    def __init__(
        self,
        catalogue: Catalogue,
        queries: Queries,
        at: datetime,
        *,
        now: datetime,
        earlier: str | None = None,
    ) -> None:
        """``earlier`` is a run of which the rest is done, in the slots that it had."""
        self._is_rest = earlier is not None
        self._kept = {} if earlier is None else queries.slots_of_run(earlier)
        #: What that run did not come to has no slot in the ledger.
        self._kept_of_jobs = _common(self._kept)
        self._catalogue = catalogue
        self._at = at
        #: Since when what was never seen counts: the ledger will remember the same.
        self._first_seen = min(now, at)
        self._jobs_seen = queries.jobs_seen()
        self._tenants_seen = queries.tenants_seen()
        self._newest_closed = queries.newest_closed_slots()
        # Of thousands of tenants nearly all share a few schedules.
        self._newest = cache(lambda schedule: schedule.newest(at))
        self._between = cache(
            lambda schedule, since, slot: schedule.count_between(since, slot, limit=_MISSED)
        )
        self._closed = cache(
            lambda job, slot_key: {
                tenant
                for tenant, (state, _) in queries.outcomes_of_slot(job, slot_key).items()
                if state == "closed"
            }
        )

    def slot_of(self, job: str, tenant: Tenant) -> Slot:
        """Return the newest slot of a job on a tenant; of a job without slots, the moment."""
        if kept := self._kept.get((job, tenant.name)) or self._kept_of_jobs.get(job):
            return kept
        newest = self._newest(self._catalogue.schedule(self._catalogue.jobs[job], tenant))
        return Slot.scheduled(self._at if newest is None else newest)

    def veto(self, job: Job, tenant: Tenant) -> str | None:
        """Say why nothing is due."""
        if not self._catalogue.schedule(job, tenant).is_set:
            return "has no schedule"
        slot = self.slot_of(job.name, tenant)
        if slot.at < self._seen_at(job.name, tenant.name):
            return f"not due: the slot {slot.key} is older than what is known of it"
        if tenant.name in self._closed(job.name, slot.key):
            return f"not due: the slot {slot.key} is done"
        newer = self._newest_closed.get((job.name, tenant.name), slot.at)
        if newer > slot.at and not self._is_rest:
            # A trigger that was overtaken: the slot was counted as missed.
            return (
                f"not due: the slot {slot.key} is older than {format_instant(newer)}, which is done"
            )
        return None

    def is_missed(self, job: Job, tenant: Tenant) -> bool:
        """Tell whether what is due is too late."""
        late = self._at - self.slot_of(job.name, tenant).at
        return late > self._catalogue.catch_up(job, tenant)

    def jobs(self, jobs: Sequence[Job]) -> list[Job]:
        """Leave out fleet-scope jobs that are not due; the others depend on the tenant."""
        return [
            job for job in jobs if job.scope is Scope.TENANT or self.veto(job, FLEET_TENANT) is None
        ]

    def missed(self, job: str, tenant: Tenant) -> int:
        """Count the slots of a due pair that are older and that nobody did and nobody will."""
        schedule = self._catalogue.schedule(self._catalogue.jobs[job], tenant)
        done = self._newest_closed.get((job, tenant.name))
        since = done or self._seen_at(job, tenant.name)
        count: int = self._between(schedule, since, self.slot_of(job, tenant).at)
        return count

    def _seen_at(self, job: str, tenant: str) -> datetime:
        """Return from when on slots count: both are seen now if they were never seen before."""
        first = self._first_seen
        seen = self._jobs_seen.get(job, first)
        return seen if tenant == FLEET else max(seen, self._tenants_seen.get(tenant, first))


def _common(slots: Mapping[tuple[str, str], Slot]) -> Mapping[str, Slot]:
    """Return the slots of jobs that have the same one on all tenants."""
    of_jobs: dict[str, set[Slot]] = defaultdict(set)
    for (job, _), slot in slots.items():
        of_jobs[job].add(slot)
    return {job: next(iter(each)) for job, each in of_jobs.items() if len(each) == 1}


class MissedSlots:
    """Counts missed slots when they are given up for good: a newer slot of the pair is closed.

    As long as that is open, paused for example, the next ``due`` will count them as well.
    """

    def __init__(self) -> None:
        self._pending: dict[tuple[str, str], int] = {}
        self._given_up: Counter[str] = Counter()
        self._lock = threading.Lock()

    def plan(self, due: Due, pairs: Iterable[tuple[str, Tenant]]) -> None:
        """Take note of what pairs that are due have missed."""
        counts = {(job, tenant.name): due.missed(job, tenant) for job, tenant in pairs}
        self._pending = {pair: count for pair, count in counts.items() if count}

    def hears(self, kind: type[Event]) -> bool:
        """Hear of what has ended."""
        return kind is ExecutionFinished

    def on(self, event: Event) -> None:
        """Take note that a slot was closed."""
        if isinstance(event, ExecutionFinished) and event.result.closes_claim:
            key = event.result.request.key
            if count := self._pending.pop((key.job, key.tenant), 0):
                with self._lock:
                    self._given_up[key.job] += count

    def tell(self, events: Dispatcher) -> None:
        """Tell of it when the run has ended."""
        for job, slots in sorted(self._given_up.items()):
            events.emit(SlotsMissed(job=job, slots=slots))
