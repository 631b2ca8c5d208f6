"""The ledger of a dry run: it remembers the run, and nothing that the run does.

It grants whatever the real one would have to grant: work that is done already is a duplicate
here as well. What another run holds is granted, since this one does not do it. Values of
``prepare`` stay in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

from cronrunner.events import Event
from cronrunner.ledger.arbitration import is_repeated
from cronrunner.ledger.queries import Queries
from cronrunner.ledger.store import Ledger
from cronrunner.model import Claims, Key, Repeat, Report, Result, Run, Spooled


class DryLedger:
    """Answers a dry run as the ledger would, and writes its row of ``runs`` only."""

    def __init__(self, ledger: Ledger, queries: Queries) -> None:
        self._ledger = ledger
        self._queries = queries
        self._prepared: dict[tuple[str, str], str] = {}
        #: (job, slot key) -> tenant -> (the run that closed its claim, outcome).
        self._closed: dict[tuple[str, str], Mapping[str, tuple[str, str]]] = {}

    def begin_run(
        self,
        run: Run,
        *,
        fleet: bool,
        selection: Mapping[str, Any],
        on_lost: Callable[[], None],
    ) -> Mapping[str, int]:
        """Open the run. What dead runs left is left to the next real one."""
        return self._ledger.begin_run(run, fleet=fleet, selection=selection, on_lost=on_lost)

    def reserve_spool(self, executions: int) -> None:
        """Reserve nothing: there are no outcomes to be kept."""

    def is_lease_over(self) -> bool:
        """Tell whether the run counts as dead by now."""
        return self._ledger.is_lease_over()

    def claim(
        self,
        keys: Sequence[Key],
        *,
        repeat: Repeat = Repeat.NOTHING,
        alone: Container[str] = (),
    ) -> Claims:
        """Say which of the work is to be done, and claim none of it.

        What another slot is at work on is done here as well: it is rolled back.
        """
        del alone
        duplicates = self.done(keys, repeat=repeat)
        granted = {key: 1 for key in keys if key not in duplicates}
        return Claims(granted=granted, duplicates=duplicates, held={})

    def done(self, keys: Sequence[Key], *, repeat: Repeat = Repeat.NOTHING) -> Mapping[Key, str]:
        """Return the run that has done it for each of ``keys`` that is done."""
        closed = {key: found for key in keys if (found := self._closing(key)) is not None}
        return {
            key: run for key, (run, outcome) in closed.items() if not is_repeated(outcome, repeat)
        }

    def _closing(self, key: Key) -> tuple[str, str] | None:
        of_slot = key.job, key.slot_key
        if of_slot not in self._closed:
            self._closed[of_slot] = self._queries.closed_claims(*of_slot)
        return self._closed[of_slot].get(key.tenant)

    def record(self, result: Result) -> None:
        """Forget an outcome: whoever wants to know has heard of it."""

    def accept_tenants(self, server: str, names: Iterable[str]) -> None:
        """Leave the last accepted discovery as it is."""

    def keep_prepared(self, job: str, slot_key: str, value: str) -> None:
        """Keep what a ``prepare`` returned for as long as the run lasts."""
        self._prepared[job, slot_key] = value

    def prepared(self, job: str, slot_key: str) -> str | None:
        """Return what this run has prepared, or a real run of the slot."""
        own = self._prepared.get((job, slot_key))
        return self._queries.prepared(job, slot_key) if own is None else own

    def flush(self) -> None:
        """Do nothing: there is nothing to write."""

    def finish_run(self, report: Report, *, discovered: Mapping[str, int]) -> Sequence[Event]:
        """Close the run."""
        return self._ledger.finish_run(report, discovered=discovered)

    def leave(self, report: Report, *, discovered: Mapping[str, int]) -> Spooled | None:
        """Leave the run as it is: nothing of it is missing."""
        del report, discovered
        return None
