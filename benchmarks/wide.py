"""How long commands take on a long history and on a wide fleet: ``python -m benchmarks.wide``.

The ledger of the history has one run a night of each job on each tenant, and its claims. Of the
questions the time is that of the question alone, in a process that has asked before; of the
commands it is that of the whole process. The first one on each ledger is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from sqlalchemy import make_url

from benchmarks.measuring import installed, run
from benchmarks.tables import Row, table
from cronrunner.databases import Endpoint
from cronrunner.ledger import ExecutionFilter, Queries, open_engine
from cronrunner.ledger.store import Ledger
from tests.load.ledgers import LAST_NIGHT, Past, fill

_CONFIGURATION = """\
ledger: sqlite:///var/ledger.db
servers:
  main: {url: "sqlite://", discover: {directory: tenants}}
"""
_JOB = "from cronrunner import job\n\n\n@job(name='job.00')\ndef work(ctx):\n    pass\n"
_TENANT, _JOB_NAME = "agency_000077", "job.02"
_FILTERS: Mapping[str, dict[str, Any]] = {
    "the newest": {},
    "a job": {"job": _JOB_NAME},
    "jobs by a glob": {"job": "job*"},
    "a tenant": {"tenant": _TENANT},
    "ten tenants by a glob": {"tenant": "agency_00007*"},
    "a hundredth of the tenants by a glob": {"tenant": "*77"},
    "one outcome": {"outcomes": ("failed",)},
    "an outcome that never was": {"outcomes": ("stuck",)},
    "two outcomes": {"outcomes": ("failed", "timed_out")},
    "a job, and an outcome that never was": {"job": _JOB_NAME, "outcomes": ("stuck",)},
    "since the last night": {"since": LAST_NIGHT},
    "until half of the time": {"until": LAST_NIGHT - timedelta(days=50)},
}


def measure_history(past: Past, rounds: int) -> Iterator[Row]:
    """Ask for history, and remove some of it."""
    with TemporaryDirectory() as name:
        folder = _project(Path(name), past)
        yield from _questions(folder, rounds)
        for arguments in (
            ("history",),
            ("history", "--job", _JOB_NAME),
            ("history", "--tenant", _TENANT),
            ("history", "--outcome", "failed"),
        ):
            yield from _command(folder, rounds, *arguments)
        yield Row(name="`prune`, 1,000 rows", unit="ms", values=_prune(folder, rounds))


def measure_plan(tenants: int, rounds: int) -> Iterator[Row]:
    """Lay out a plan for a fleet of files, with a history of each."""
    with TemporaryDirectory() as name:
        folder = _project(Path(name), Past(tenants=tenants, jobs=1, runs=1))
        for number in range(tenants):
            (folder / "tenants" / f"agency_{number:06}.db").touch()
        for arguments in (("plan",), ("plan", "--json"), ("plan", "--tenant", _TENANT)):
            yield from _command(folder, rounds, *arguments)


def _project(folder: Path, past: Past) -> Path:
    for name in ("jobs", "tenants", "var"):
        (folder / name).mkdir()
    (folder / "tenants.yaml").write_text(_CONFIGURATION)
    (folder / "jobs" / "wide.py").write_text(_JOB)
    fill(folder / "var" / "ledger.db", past)
    return folder


def _endpoint(folder: Path) -> Endpoint:
    return Endpoint(name="ledger", url=make_url(f"sqlite:///{folder}/var/ledger.db"))


def _questions(folder: Path, rounds: int) -> Iterator[Row]:
    engine = open_engine(_endpoint(folder))
    ask = Queries(engine).executions
    for name, wanted in _FILTERS.items():
        newest = ExecutionFilter(**wanted, limit=50)
        yield Row(
            name=f"50 executions: {name}",
            unit="ms",
            values=_times(lambda: list(ask(newest)), rounds),  # noqa: B023 - called at once
        )
    last = ExecutionFilter(run=next(iter(ask(ExecutionFilter(limit=1))))["run"])
    yield Row(
        name="all executions of a run", unit="ms", values=_times(lambda: list(ask(last)), rounds)
    )
    engine.dispose()


def _prune(folder: Path, rounds: int) -> tuple[float, ...]:
    """Remove a batch at a time of what is older than half of the history."""
    engine = open_engine(_endpoint(folder))
    with closing(Ledger(engine, clock=lambda: datetime.now(UTC))) as ledger:
        before = LAST_NIGHT - timedelta(days=50)

        def one_batch() -> None:
            turns = iter((False, True))
            ledger.prune(before, is_over=lambda: next(turns))

        return _times(one_batch, rounds)


def _command(folder: Path, rounds: int, *arguments: str) -> Iterator[Row]:
    """Run a command; its CPU time says more on a machine that has other things to do."""
    command = [installed("cronrunner"), *arguments]
    run(command, folder=folder)
    found = [run(command, folder=folder) for _ in range(rounds)]
    name = f"`cronrunner {' '.join(arguments)}`"
    yield Row(name=name, unit="ms", values=tuple(each.wall_seconds * 1000 for each in found))
    yield Row(
        name="its CPU time", unit="ms", values=tuple(each.cpu_seconds * 1000 for each in found)
    )


def _times(work: Callable[[], object], rounds: int) -> tuple[float, ...]:
    work()
    return tuple(_milliseconds(work) for _ in range(rounds))


def _milliseconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return (time.monotonic() - began) * 1000


@click.command()
@click.option("--executions", default=5_000_000, show_default=True, type=click.IntRange(100_000))
@click.option("--tenants", default=100_000, show_default=True, type=click.IntRange(1000))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
def main(executions: int, tenants: int, rounds: int) -> None:
    """Measure history of so many executions, and a plan for so many tenants."""
    past = Past(tenants=executions // 500, jobs=5, runs=100)
    click.echo("making the history", err=True)
    rows = list(measure_history(past, rounds))
    click.echo("making the fleet", err=True)
    rows += measure_plan(tenants, rounds)
    print(
        f"{executions:,} executions of {past.tenants:,} tenants; a fleet of {tenants:,} tenants\n"
    )
    print(table(rows))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.wide")
