"""kill -9 while the audit log is archived: no row is lost, none is in both tables."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, func, insert, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from jobs.schema import archived_records, audit_log, metadata
from tests.acceptance.fleet import ROOT, Fleet, finish
from tests.acceptance.small import until
from tests.faults.conftest import Repetition
from tests.jobs.rows import event
from tests.jobs.tenant import ago
from tests.servers import MariaDB

pytestmark = pytest.mark.xdist_group("killed_archive")

AT = ("run", "archive_audit_log", "--json", "--scheduled-at", "2026-03-01T00:00:00Z")
BATCH = 500
#: Rows of the log that are not old.
YOUNG = 10
MEGABYTES = 150


@dataclass(frozen=True)
class World:
    """One tenant with a long audit log."""

    fleet: Fleet
    engine: Engine
    old: int

    def ids(self) -> tuple[set[int], set[int]]:
        """Return the rows of the log, and those of the archive."""
        with self.engine.connect() as connection:
            log = set(connection.scalars(select(audit_log.c.id)))
            return log, set(connection.scalars(select(archived_records.c.source_id)))

    def archived(self) -> int:
        with self.engine.connect() as connection:
            return connection.execute(
                select(func.count()).select_from(archived_records)
            ).scalar_one()


@pytest.fixture(params=["sqlite", "mariadb"])
def world(
    request: pytest.FixtureRequest, tmp_path: Path, prefix: str, long: bool
) -> Iterator[World]:
    tenant = f"{prefix}acorn"
    if request.param == "mariadb":
        mariadb: MariaDB = request.getfixturevalue("mariadb")
        mariadb.create_databases([tenant])
        server = {"url": mariadb.url(database=""), "discover": {"list": [tenant]}}
        url = mariadb.url(database=tenant)
    else:
        (tmp_path / "tenants").mkdir()
        server = {"url": "sqlite://", "discover": {"directory": "tenants"}}
        url = f"sqlite:///{tmp_path}/tenants/{tenant}.db"
    config = {
        "servers": {"main": server},
        "job_folder": os.path.relpath(ROOT / "jobs", tmp_path),
    }
    old = 100_000 if long else 6_000
    engine = create_engine(url, poolclass=NullPool)
    fill(engine, old)
    yield World(Fleet(tmp_path, config, {}), engine, old)
    engine.dispose()
    if request.param == "mariadb":
        mariadb.drop_databases(tenant)


def fill(engine: Engine, old: int) -> None:
    details = {
        "name": "Zoë 李 🎁",
        "before": {"status": "created"},
        "after": {"status": "completed"},
    }
    with engine.begin() as connection:
        metadata.create_all(connection)
        for start in range(0, old, 10_000):
            count = min(10_000, old - start)
            row = {**event(ago(days=400)), "details": details}
            connection.execute(insert(audit_log), [row] * count)
        connection.execute(insert(audit_log), [event(ago(days=1))] * YOUNG)


def peak(process: subprocess.Popen[str], known: int = 0) -> int:
    """Return the most memory that a process has had, in kB, as far as it can still be asked.

    Of the process itself: what `getrusage` says of a child begins with its parent's memory.
    """
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return known
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return max([known, *map(int, found)])


def kill_at(world: World, process: subprocess.Popen[str], batches: int) -> int:
    """Kill the process once so many batches are committed; return its peak."""
    until(lambda: settled(world.archived) >= batches * BATCH, 90)
    used = peak(process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)
    return used


def settled(ask: Callable[[], int]) -> int:
    """Ask a database that another process is writing to."""
    try:
        return ask()
    except OperationalError:
        return 0


@pytest.mark.repeated(few=1, many=3)
def test_the_archive_goes_on_after_the_last_batch_and_each_row_is_in_one_table(
    world: World, repetition: Repetition
) -> None:
    everything = set(range(1, world.old + YOUNG + 1))
    with world.fleet.started(*AT) as first:
        used = kill_at(world, first, moment(repetition.dice, world.old))
    assert first.returncode == -signal.SIGKILL
    # MariaDB rolls back when it has noticed.
    until(lambda: len(world.ids()[0]) + len(world.ids()[1]) == len(everything))
    log, archive = world.ids()
    assert log | archive == everything
    assert log.isdisjoint(archive)
    assert 0 < len(archive) < world.old
    assert len(archive) % BATCH == 0

    with world.fleet.started("run", "--json", "--resume", "last") as second:
        while second.poll() is None:
            used = peak(second, used)
            time.sleep(0.01)
        finished = finish(second)
    assert finished.code == 0, finished.stderr
    (execution,) = finished.document["executions"]
    assert execution["counters"]["archived"] == world.old - len(archive)
    assert execution["counters"]["already"] == 0
    log, archive = world.ids()
    assert (len(log), len(archive)) == (YOUNG, world.old)
    assert log | archive == everything
    assert used < MEGABYTES * 1024
    repetition.tally.add("archive killed", repetitions=1, rows=world.old)
    repetition.tally.highest("archive killed", kilobytes_at_most=used)


def moment(dice: random.Random, old: int) -> int:
    """Choose after how many batches to kill; the last ones are over too soon to be met."""
    return dice.randint(1, old // BATCH // 3)
