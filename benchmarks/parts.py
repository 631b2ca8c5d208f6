"""What parts of an execution cost, each alone: CPU of this process, in ms per execution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import make_url

from benchmarks.fleet import Fleet
from benchmarks.jobs import STATEMENT
from benchmarks.measuring import cpu_milliseconds
from benchmarks.records import log_to_nowhere, new_run, now, result_of
from cronrunner import logs
from cronrunner.databases import Endpoint, kind_of
from cronrunner.events import ExecutionFinished
from cronrunner.ledger import open_engine
from cronrunner.ledger.store import Ledger
from cronrunner.model import Key, Request, Run

#: Claims taken together: what a run with 16 threads takes when it is busy.
_GROUP = 16


class Parts:
    """Each method measures one part, once."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self._log = logs.LogListener()
        self._tenants = fleet.tenants
        url = make_url(fleet.server.url())
        self._server = kind_of("mysql").prepare(Endpoint(name="main", url=url))
        url = make_url("sqlite:///ledger.db")
        engine = open_engine(Endpoint(name="ledger", url=url, folder=folder))
        self._ledger = Ledger(engine, clock=now)

    def close(self) -> None:
        """Close what was opened."""
        self._ledger.close()

    def measure(self) -> Mapping[str, float]:
        """Measure all parts, one after another."""
        return {
            "driver": self._of_all(self._drive),
            "ledger": self._of_all(self._record),
            "log": self._of_all(self._write_lines),
        }

    def _of_all(self, work: Callable[[], None]) -> float:
        return cpu_milliseconds(work, len(self._tenants))

    def _drive(self) -> None:
        """Connect, execute, commit, disconnect: what no runner can do without."""
        for tenant in self._tenants:
            session = self._server.kind.connect(self._server, tenant)
            with session.cursor() as cursor:
                cursor.execute(STATEMENT)
                cursor.fetchone()
            session.commit()
            session.close()

    def _record(self) -> None:
        """Claim in groups and hand over an outcome for each, until all is durable."""
        run = new_run()
        self._ledger.begin_run(run, fleet=True, selection={})
        for start in range(0, len(self._tenants), _GROUP):
            self._record_group(run, self._tenants[start : start + _GROUP])
        self._ledger.flush()

    def _record_group(self, run: Run, tenants: Sequence[str]) -> None:
        keys = [_key(run, tenant) for tenant in tenants]
        for key, fence in self._ledger.claim(keys).granted.items():
            self._ledger.record(result_of(_request(run, key.tenant, fence=fence)))

    def _write_lines(self) -> None:
        run = new_run()
        for tenant in self._tenants:
            result = result_of(_request(run, tenant, fence=1))
            self._log.on(ExecutionFinished(result=result))
        logs.flush()


def measure_parts(fleet: Fleet, rounds: int) -> list[Mapping[str, float]]:
    """Measure the parts, round by round."""
    with TemporaryDirectory() as folder, log_to_nowhere(fleet.server.password):
        parts = Parts(fleet, Path(folder))
        try:
            parts.measure()
            return [parts.measure() for _ in range(rounds)]
        finally:
            parts.close()


def _key(run: Run, tenant: str) -> Key:
    return Key(job="bench.count", tenant=tenant, slot_key=run.slot.key)


def _request(run: Run, tenant: str, *, fence: int) -> Request:
    return Request(key=_key(run, tenant), run=run.id, slot=run.slot.at, attempt=1, fence=fence)
