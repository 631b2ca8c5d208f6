"""What the parts of an execution cost: CPU of this process, in milliseconds per execution."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

from sqlalchemy import make_url

from benchmarks.fleet import STATEMENT, Fleet
from benchmarks.measuring import cpu_milliseconds
from cronrunner import logs
from cronrunner.app import App, RunOptions
from cronrunner.databases import Endpoint
from cronrunner.events import ExecutionFinished
from cronrunner.ledger import Ledger, open_engine
from cronrunner.model import ExitCode, Key, Outcome, Request, Result, Run, Slot, Tenant
from cronrunner.planning import Selection

#: Claims taken together: what a run with 16 threads takes when it is busy.
_GROUP = 16
_NUMBERS = count()


class Parts:
    """Each method measures one part, once."""

    def __init__(self, fleet: Fleet, folder: Path, output: TextIO) -> None:
        environ = {**os.environ, **fleet.environ}
        self._app = App(fleet.folder / "tenants.yaml", environ, log_to=output)
        self._tenants = [Tenant(name=name, server="main", database=name) for name in fleet.tenants]
        url = make_url("sqlite:///ledger.db")
        engine = open_engine(Endpoint(name="ledger", url=url, folder=folder))
        self._ledger = Ledger(engine, clock=_now)
        self._log = logs.LogListener()

    def close(self) -> None:
        """Close what was opened."""
        self._ledger.close()
        self._app.close()

    def measure(self) -> Mapping[str, float]:
        """Measure the whole and its parts, one after another."""
        return {
            "run": self._of_all(self._run),
            "driver": self._of_all(self._drive),
            "ledger": self._of_all(self._record),
            "log": self._of_all(self._write_lines),
        }

    def _of_all(self, work: Callable[[], None]) -> float:
        return cpu_milliseconds(work, len(self._tenants))

    def _run(self) -> None:
        """Run all of it, as the command does."""
        options = RunOptions(command="benchmark")
        report = self._app.run(Selection(), options, listeners=[self._log])
        if report.exit_code != ExitCode.OK:
            raise RuntimeError(f"a run did not go well: {report.causes}")

    def _drive(self) -> None:
        """Connect, execute, commit, disconnect: what no runner can do without."""
        parts = self._app.engines.server("main")
        for tenant in self._tenants:
            session = parts.kind.connect(parts, tenant.database)
            with session.cursor() as cursor:
                cursor.execute(STATEMENT)
                cursor.fetchone()
            session.commit()
            session.close()

    def _record(self) -> None:
        """Claim in groups and hand over an outcome for each, until all is durable."""
        run = _new_run()
        self._ledger.begin_run(run, fleet=True, selection={})
        for start in range(0, len(self._tenants), _GROUP):
            self._record_group(run, self._tenants[start : start + _GROUP])
        self._ledger.flush()

    def _record_group(self, run: Run, tenants: Sequence[Tenant]) -> None:
        keys = [_key(run, tenant.name) for tenant in tenants]
        for key, fence in self._ledger.claim(keys).granted.items():
            self._ledger.record(_result(_request(run, key.tenant, fence=fence)))

    def _write_lines(self) -> None:
        run = _new_run()
        for tenant in self._tenants:
            result = _result(_request(run, tenant.name, fence=1))
            self._log.on(ExecutionFinished(result=result))


def measure_parts(fleet: Fleet, rounds: int) -> list[Mapping[str, float]]:
    """Measure the parts, round by round."""
    with TemporaryDirectory() as folder, Path(os.devnull).open("w") as output:
        parts = Parts(fleet, Path(folder), output)
        try:
            parts.measure()
            return [parts.measure() for _ in range(rounds)]
        finally:
            parts.close()


def _now() -> datetime:
    return datetime.now(UTC)


def _new_run() -> Run:
    name, now = f"bench-{next(_NUMBERS)}", _now()
    return Run(
        id=name,
        command="benchmark",
        started_at=now,
        scheduled_at=None,
        host="",
        boot="",
        pid=os.getpid(),
        pid_started=0,
        slot=Slot.of_run(name, now),
    )


def _key(run: Run, tenant: str) -> Key:
    return Key(job="bench.count", tenant=tenant, slot_key=run.slot.key)


def _request(run: Run, tenant: str, *, fence: int) -> Request:
    return Request(key=_key(run, tenant), run=run.id, slot=run.slot.at, attempt=1, fence=fence)


def _result(request: Request) -> Result:
    return Result(
        request=request,
        server="main",
        outcome=Outcome.SUCCEEDED,
        started_at=_now(),
        duration_seconds=0.01,
        counters={"items": 3},
    )
