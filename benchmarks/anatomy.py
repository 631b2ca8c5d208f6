"""Where the CPU time of an execution goes, inside a real run.

``python -m benchmarks.anatomy`` runs jobs on many tenants with a stopwatch around the parts of
cronrunner, of SQLAlchemy and of the driver. A stopwatch counts the CPU time of its thread, less
what stopwatches within it count. What the parts take here is about twice of what each takes alone
in a loop: with threads that take turns hardly anything is in the processor's caches.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import click

# ruff: noqa: PLC0415 - what is measured is imported in the process that does it
from benchmarks.fleet import Fleet, Setting, make_fleet
from benchmarks.jobs import MANY, Work
from benchmarks.measuring import ROOT, python, run
from benchmarks.ways import loop
from cronrunner.model import Visit

_THREADS: Final = 8
_REST: Final = "everything else: visit, attempt, context, result"
_SERVER: Final = "the server, on the other CPU"


class Stopwatches:
    """Adds up the CPU time of parts, over all threads."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._inner = threading.local()

    def wrap(self, owner: type, name: str, part: str) -> None:
        """Count what a method takes for ``part``."""
        method = getattr(owner, name)

        def measured(*args: object, **kwargs: object) -> object:
            with self.part(part):
                return method(*args, **kwargs)

        setattr(owner, name, measured)

    @contextmanager
    def part(self, part: str) -> Iterator[None]:
        """Count what is done meanwhile for ``part``, without what is counted for others."""
        outer = getattr(self._inner, "seconds", 0.0)
        self._inner.seconds = 0.0
        began = time.thread_time()
        try:
            yield
        finally:
            taken = time.thread_time() - began
            with self._lock:
                self.seconds[part] += taken - self._inner.seconds
            self._inner.seconds = outer + taken


def _inside(config: str, jobs: str) -> None:
    """Run cronrunner in this process, and print what its parts took."""
    watches = Stopwatches()
    _wrap_all(watches)
    from cronrunner import cli
    from cronrunner.runner.fanout import FanOut

    visit = FanOut.visit
    whole: list[float] = []

    def measured(fan_out: FanOut, visits: Sequence[Visit]) -> None:
        began = time.process_time()
        visit(fan_out, visits)
        whole.append(time.process_time() - began)

    setattr(FanOut, "visit", measured)  # noqa: B010 - as the other methods that are measured
    try:
        cli.main(["run", jobs, f"--config={config}", f"--concurrency={_THREADS}"])
    except SystemExit as ended:
        if ended.code:
            raise
    parts: dict[str, float] = dict(watches.seconds)
    parts[_REST] = sum(whole) - sum(parts.values())
    print(json.dumps(parts))


def _wrap_all(watches: Stopwatches) -> None:
    from sqlalchemy.engine import Connection, Engine

    from cronrunner.databases.mysql_session import Session
    from cronrunner.engines.visiting import TenantEngine
    from cronrunner.ledger.writing import Writer
    from cronrunner.logs import LogListener
    from cronrunner.logs.setup import Output
    from cronrunner.runner.claiming import Claiming
    from cronrunner.watchdog import Deadline, Watchdog

    driver = "the driver: statement, commit, reset and entry"
    alchemy = "SQLAlchemy: engine, pool, connection, execute, result"
    for owner, name, part in (
        (Session, "query", driver),
        (Session, "commit", driver),
        (Session, "enter", driver),
        (Session, "connect", driver),
        (TenantEngine, "_make_engine", alchemy),
        (Engine, "connect", alchemy),
        (Connection, "execute", alchemy),
        (Connection, "commit", alchemy),
        (Connection, "close", alchemy),
        (Writer, "_transact", "the ledger"),
        (Claiming, "take", "the ledger"),
        (LogListener, "on", "the log line"),
        (Output, "flush", "the log line"),
        (Watchdog, "arm", "the watchdog"),
        (Deadline, "disarm", "the watchdog"),
    ):
        watches.wrap(owner, name, part)


def _measure(fleet: Fleet, work: Work) -> Mapping[str, float]:
    """Return the microseconds that each part takes for an execution."""
    config = fleet.configure(Setting(connections="reset"), "bench_*", "anatomy")
    command = python("-m", "benchmarks.anatomy", "--config", config, "--jobs", work.jobs)
    before = _cpu_seconds(fleet.server.pid)
    done = run(command, folder=fleet.folder, PYTHONPATH=str(ROOT), **fleet.environ)
    parts = json.loads(done.output.splitlines()[-1])
    parts[_SERVER] = _cpu_seconds(fleet.server.pid) - before
    return {part: seconds / work.executions * 1e6 for part, seconds in parts.items()}


def _cpu_seconds(pid: int) -> float:
    """Return what a process has used so far, of itself and for itself."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def _report(title: str, rounds: list[Mapping[str, float]], raw: list[float]) -> None:
    parts = {part: median(each[part] for each in rounds) for part in rounds[0]}
    server = parts.pop(_SERVER)
    whole = sum(parts.values())
    print(f"\n{title}\n")
    print("| part | us of CPU per execution | share |\n|---|--:|--:|")
    for part, taken in sorted(parts.items(), key=lambda each: -each[1]):
        print(f"| {part} | {taken:.0f} | {taken / whole:.0%} |")
    print(f"| all | {whole:.0f} | |")
    print(f"| {_SERVER} | {server:.0f} | |")
    print(f"| raw PyMySQL for the same, 8 threads, elapsed | {median(raw):.0f} | |")


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--tenants", default=500, show_default=True, type=click.IntRange(1))
@click.option("--config", hidden=True)
@click.option("--jobs", hidden=True)
def main(rounds: int, tenants: int, config: str | None, jobs: str | None) -> None:
    """Show where the CPU time of an execution goes."""
    if config is not None and jobs is not None:
        _inside(config, jobs)
        return
    print(
        f"{tenants} tenants, {_THREADS} threads, {rounds} rounds; Python {sys.version.split()[0]}"
    )
    with make_fleet(tenants) as fleet:
        for work, key in (
            (Work(jobs="bench.count", tenants=tenants), "raw"),
            (Work(jobs="many.*", tenants=tenants, each=MANY), "raw-many"),
        ):
            way = loop(key, key, fleet, tenants=tenants, threads=_THREADS, each=work.each)
            # The first run makes the ledger.
            _measure(fleet, work)
            found = [(_measure(fleet, work), 1e6 / way.measure().rate) for _ in range(rounds)]
            title = "one job for each tenant" if work.each == 1 else f"{work.each} jobs each"
            _report(title, [parts for parts, _ in found], [raw for _, raw in found])


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.anatomy")
