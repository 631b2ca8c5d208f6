"""Claims: what is this run's to do, what is another's, and what waits for an earlier slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from cronrunner.errors import LedgerError
from cronrunner.events import ClaimRefused
from cronrunner.model import (
    FLEET,
    Claims,
    Holder,
    Key,
    Overlap,
    Reason,
    Request,
    SetAside,
    Tenant,
    Visit,
    VisitRequest,
)
from cronrunner.runner.ending import Ending
from cronrunner.runner.orders import Order, Parts
from cronrunner.runner.results import Results

#: A tenant's visit, as the keys of what is to be claimed for it.
Wanted = tuple[Tenant, Sequence[Key]]


class Claiming:
    """Takes the claims of one run."""

    def __init__(self, order: Order, parts: Parts, ending: Ending, results: Results) -> None:
        self._order = order
        self._parts = parts
        self._ending = ending
        self._results = results
        self._overlaps = {job.name: job.overlap for job in order.jobs}
        self._alone = frozenset(
            name for name, how in self._overlaps.items() if how is not Overlap.ALLOW
        )
        #: Slot key -> its instant.
        self._slots: dict[str, datetime] = {}
        #: What waits for an earlier slot to end.
        self.overlapped: dict[Key, Tenant] = {}
        #: What waits for a ``prepare`` that is to be tried again.
        self.held_back: list[Visit] = []
        self._prepares = {job.name: job.prepare_name for job in order.jobs if job.prepare}

    def key(self, job: str, tenant: Tenant) -> Key:
        """Return what a job's execution on a tenant is claimed by."""
        slot = self._order.slot_of(job, tenant)
        self._slots[slot.key] = slot.at
        return Key(job=job, tenant=tenant.name, slot_key=slot.key)

    def ready(self, visit: Visit) -> Wanted:
        """Return what is to be claimed of a visit.

        What was not prepared is left out, and what is not prepared yet is held back.
        """
        ready: list[Key] = []
        for name in visit.jobs:
            key = self.key(name, visit.tenant)
            if (name, key.slot_key) in self._results.unprepared:
                self.leave_out(visit.tenant, key, Reason.PREPARE_FAILED)
            elif self._is_late(key):
                self.held_back.append(replace(visit, jobs=(name,)))
            else:
                ready.append(key)
        return visit.tenant, ready

    def _is_late(self, key: Key) -> bool:
        if key.job not in self._prepares:
            return False
        prepare = Key(job=self._prepares[key.job], tenant=FLEET, slot_key=key.slot_key)
        return self._results.is_repeated(prepare)

    def take(self, wanted: Sequence[Wanted]) -> list[VisitRequest]:
        """Claim what can be had, and return it as visits to be made; the rest is counted.

        What overlaps waits in ``overlapped``, or is left out.
        """
        claims = self.claim([key for _, keys in wanted for key in keys])
        self._count_refused(claims)
        for tenant, key in ((tenant, key) for tenant, keys in wanted for key in keys):
            self.overlapped.pop(key, None)
            if key in claims.overlapping:
                self._take_overlapping(tenant, key, claims.overlapping[key])
            elif not claims.answers(key):
                self.leave_out(tenant, key, Reason.LEDGER_LOST)
        return self.granted(wanted, claims)

    def granted(self, wanted: Sequence[Wanted], claims: Claims) -> list[VisitRequest]:
        """Return the visits that were granted; their results are expected from now on."""
        visits: list[VisitRequest] = []
        for tenant, keys in wanted:
            requests = tuple(
                self._request(key, claims.granted[key]) for key in keys if key in claims.granted
            )
            if requests:
                visits.append(VisitRequest(tenant=tenant, requests=requests))
        self._results.expect(visits)
        return visits

    def claim(self, keys: Sequence[Key]) -> Claims:
        """Take what can be had; nothing at all when the ledger is lost meanwhile."""
        none = Claims(granted={}, duplicates={}, held={})
        if not keys:
            return none
        try:
            claims = self._parts.ledger.claim(keys, repeat=self._order.repeat, alone=self._alone)
        except LedgerError:
            if not self._ending.ledger_lost:
                raise
            return none
        self._tell_refused(claims.duplicates, held=False)
        self._tell_refused(claims.held, held=True)
        return claims

    def _done(self, keys: Sequence[Key]) -> Mapping[Key, str]:
        """Return what of this is done already, and by which run."""
        if not keys:
            return {}
        try:
            done = self._parts.ledger.done(keys, repeat=self._order.repeat)
        except LedgerError:
            if not self._ending.ledger_lost:
                raise
            return {}
        self._tell_refused(done, held=False)
        return done

    def _tell_refused(self, refused: Mapping[Key, str], *, held: bool) -> None:
        for key, holder in refused.items():
            self._parts.events.emit(ClaimRefused(key=key, holder=holder, held=held))

    def set_aside(self, given: Sequence[SetAside]) -> None:
        """Record what is planned and not done; what closes its claim takes it first."""
        closing = {self.key(each.job, each.tenant): each for each in given if each.closes}
        claims = self.claim(list(closing))
        self._count_refused(claims)
        for key, fence in claims.granted.items():
            self._results.leave_out(
                closing[key].tenant, self._request(key, fence), closing[key].reason
            )
        left = {self.key(each.job, each.tenant): each for each in given if not each.closes}
        done = self._done(list(left))
        self._results.tally.duplicates += len(done)
        for key, each in left.items():
            if key not in done:
                self.leave_out(each.tenant, key, each.reason)

    def leave_out(self, tenant: Tenant, key: Key, reason: str) -> None:
        """Record that a planned execution was never claimed."""
        self._results.leave_out(tenant, self._request(key, fence=0), reason)

    def _request(self, key: Key, fence: int) -> Request:
        run, slot = self._order.run, self._slots[key.slot_key]
        return Request(key=key, run=run.id, slot=slot, attempt=1, fence=fence, dry_run=run.dry_run)

    def _take_overlapping(self, tenant: Tenant, key: Key, holder: Holder) -> None:
        """Let what overlaps wait, or leave it out and say for whom."""
        if self._overlaps[key.job] is Overlap.WAIT:
            self.overlapped[key] = tenant
            return
        since = f"{holder.since:%Y-%m-%dT%H:%M:%SZ}"
        reason = f"{Reason.OVERLAP}: run {holder.run} is at work on it since {since}"
        self.leave_out(tenant, key, reason)

    def _count_refused(self, claims: Claims) -> None:
        self._results.tally.duplicates += len(claims.duplicates)
        runs = (run for key, run in claims.duplicates.items() if key in claims.unwell)
        self._results.tally.unwell_duplicates.update(runs)
        self._results.tally.held += len(claims.held)
