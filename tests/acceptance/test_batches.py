"""Each batch is committed with its checkpoint: what goes on after a fault does none of them twice."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import Finished, Fleet, finish
from tests.acceptance.small import until
from tests.servers import MariaDB

pytestmark = pytest.mark.xdist_group("batches")

#: Ten rows in batches of three: 3, 6, 9, 10.
TABLE = "CREATE TABLE items (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)"
ROWS = f"INSERT INTO items VALUES {', '.join(f'({number}, 0)' for number in range(1, 11))}"

#: Adds 1 to each row; what the file `fault` says happens after the update of the third batch.
JOB = """
    import os
    import time
    from datetime import timedelta
    from pathlib import Path

    from sqlalchemy import column, table

    from cronrunner import Retry, RetryPolicy

    ITEMS = table("items", column("id"), column("n"))

    def fault(ctx):
        match Path("fault").read_text() if Path("fault").exists() else "":
            case "exit":
                os._exit(9)
            case "raise":
                raise ValueError("a row that is broken")
            case "retry" if ctx.attempt == 1:
                raise Retry("once more", after=timedelta(milliseconds=10))
            case "wait":
                Path("waits").touch()
                while True:
                    time.sleep(0.01)
                    ctx.execute("SELECT 1")
                    ctx.check()

    @job(transaction="batch", retry=RetryPolicy(attempts=2), timeout="1s")
    def add(ctx):
        done = batches = 0
        for ids in ctx.batches(ITEMS.c.id, size=3):
            done += ctx.connection.execute(
                ITEMS.update().where(ITEMS.c.id.in_(ids)).values(n=ITEMS.c.n + 1)
            ).rowcount
            batches += 1
            if ids[-1] == 9:
                fault(ctx)
        return {"rows": done, "batches": batches}
"""
SLOT = ("--scheduled-at", "2026-03-01T02:00:00Z")
#: How often each row was worked on when the third batch was rolled back.
HALF = [1] * 6 + [0] * 4


@dataclass
class World:
    """One tenant, and the fleet it is all of."""

    fleet: Fleet
    tenant: str
    mariadb: MariaDB | None

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        if self.mariadb is not None:
            return list(self.mariadb.execute(sql, database=self.tenant))
        path = self.fleet.folder / "tenants" / f"{self.tenant}.db"
        with closing(sqlite3.connect(path)) as file, file:
            return list(file.execute(sql))

    def done(self) -> list[int]:
        """How often each row was worked on."""
        return [n for (n,) in self.execute("SELECT n FROM items ORDER BY id")]

    def checkpoints(self) -> list[tuple[Any, ...]]:
        return self.execute("SELECT job, name, last_key FROM cronrunner_checkpoints ORDER BY name")

    def plant(self, fault: str) -> None:
        (self.fleet.folder / "fault").write_text(fault)

    def mend(self) -> None:
        (self.fleet.folder / "fault").unlink()


@pytest.fixture(params=["sqlite", "mariadb"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def world(
    request: pytest.FixtureRequest, kind: str, tmp_path: Path, prefix: str
) -> Iterator[World]:
    """Give a tenant with ten rows on each kind of server."""
    tenant, mariadb = f"{prefix}acorn", None
    if kind == "mariadb":
        mariadb = request.getfixturevalue("mariadb")
        mariadb.create_databases([tenant], TABLE, ROWS)
        server = {"url": mariadb.url(database=""), "discover": {"list": [tenant]}}
    else:
        (tmp_path / "tenants").mkdir()
        with closing(sqlite3.connect(tmp_path / "tenants" / f"{tenant}.db")) as file, file:
            file.execute(TABLE)
            file.execute(ROWS)
        server = {"url": "sqlite://", "discover": {"directory": "tenants"}}
    runner = {"grace": "1s", "heartbeat": "200ms"}
    yield World(
        Fleet(tmp_path, {"servers": {"main": server}, "runner": runner}, {"work": JOB}),
        tenant,
        mariadb,
    )
    if mariadb is not None:
        mariadb.drop_databases(tenant)


def counters(finished: Finished) -> dict[str, int]:
    (row,) = finished.document["executions"]
    found: dict[str, int] = row["counters"]
    return found


def test_a_job_that_ends_well_has_done_each_row_and_leaves_no_checkpoint(world: World) -> None:
    finished = world.fleet.run("run", "--json", *SLOT)

    assert (finished.code, counters(finished)) == (0, {"rows": 10, "batches": 4})
    assert world.done() == [1] * 10
    assert world.checkpoints() == []


def test_a_run_that_was_killed_goes_on_after_the_last_batch_that_was_committed(
    world: World,
) -> None:
    world.plant("exit")
    killed = world.fleet.run("run", *SLOT)
    assert (killed.code, world.done()) == (9, HALF)
    assert world.checkpoints() == [("work.add", "", "6")]

    world.mend()
    resumed = world.fleet.run("run", "--json", "--resume", "last")
    assert (resumed.code, counters(resumed)) == (0, {"rows": 4, "batches": 2})
    assert world.done() == [1] * 10
    assert world.checkpoints() == []


def test_a_failure_keeps_what_was_committed_and_its_repetition_goes_on_there(
    world: World,
) -> None:
    world.plant("raise")
    failed = world.fleet.run("run", "--json", *SLOT)
    assert (failed.code, world.done()) == (1, HALF)

    world.mend()
    repeated = world.fleet.run("run", "--json", "--only-failed", "last")
    assert (repeated.code, counters(repeated)) == (0, {"rows": 4, "batches": 2})
    assert world.done() == [1] * 10


def test_a_second_attempt_goes_on_where_the_first_was(world: World) -> None:
    world.plant("retry")
    finished = world.fleet.run("run", "--json", *SLOT)

    assert (finished.code, counters(finished)) == (0, {"rows": 4, "batches": 2})
    assert world.done() == [1] * 10


@pytest.mark.parametrize("kind", ["mariadb"], indirect=True)
def test_a_deadline_rolls_back_the_batch_that_it_ends(world: World) -> None:
    world.plant("wait")
    late = world.fleet.run("run", "--json", *SLOT)
    assert late.outcomes == {("work.add", world.tenant): "timed_out"}
    assert world.done() == HALF

    world.mend()
    repeated = world.fleet.run("run", "--json", "--only-failed", "last")
    assert (repeated.code, world.done()) == (0, [1] * 10)


@pytest.mark.parametrize("kind", ["mariadb"], indirect=True)
def test_what_a_drain_interrupts_is_gone_on_with(world: World) -> None:
    world.fleet.write_job("work", JOB.replace('timeout="1s"', 'timeout="5m"'))
    world.plant("wait")
    with world.fleet.started("run", *SLOT) as process:
        until((world.fleet.folder / "waits").exists)
        os.kill(process.pid, signal.SIGTERM)
        drained = finish(process)
    assert (drained.code, world.done()) == (75, HALF)

    world.mend()
    resumed = world.fleet.run("run", "--json", "--resume", "last")
    assert (resumed.code, world.done()) == (0, [1] * 10)


def test_again_begins_a_slot_that_is_done_at_the_start(world: World) -> None:
    world.fleet.run("run", *SLOT)
    again = world.fleet.run("run", "--json", "--again", *SLOT)

    assert counters(again) == {"rows": 10, "batches": 4}
    assert world.done() == [2] * 10


def test_another_slot_begins_at_the_start_and_keeps_the_checkpoint_of_the_first_for_90_days(
    world: World,
) -> None:
    world.plant("raise")
    world.fleet.run("run", *SLOT)
    world.mend()
    other = world.fleet.run("run", "--json", "--scheduled-at", "2026-03-02T02:00:00Z")
    assert counters(other) == {"rows": 10, "batches": 4}
    assert world.checkpoints() == [("work.add", "", "6")]

    world.execute("UPDATE cronrunner_checkpoints SET saved_at = '2020-01-01 00:00:00.000000'")
    world.fleet.run("run", "--scheduled-at", "2026-03-03T02:00:00Z")
    assert world.checkpoints() == []


@pytest.mark.parametrize("kind", ["mariadb"], indirect=True)
def test_a_process_of_its_own_that_dies_leaves_its_batches(world: World) -> None:
    world.fleet.write_job("work", JOB.replace("@job(", '@job(isolation="process", '))
    world.plant("exit")
    died = world.fleet.run("run", "--json", *SLOT)
    assert (died.code, world.done()) == (1, HALF)
    assert "ProcessDied" in died.execution("work.add", world.tenant)["error"]

    world.mend()
    repeated = world.fleet.run("run", "--json", "--only-failed", "last")
    assert (repeated.code, counters(repeated)) == (0, {"rows": 4, "batches": 2})


def test_a_dry_run_counts_all_batches_and_changes_nothing(world: World) -> None:
    dry = world.fleet.run("run", "--dry-run", "--json", *SLOT)

    assert (dry.code, counters(dry)) == (0, {"rows": 10, "batches": 4})
    assert world.done() == [0] * 10
    with pytest.raises(Exception, match="cronrunner_checkpoints"):
        world.checkpoints()


def test_a_dry_run_shows_what_is_left_and_leaves_the_checkpoint(world: World) -> None:
    world.plant("raise")
    world.fleet.run("run", *SLOT)
    world.mend()
    dry = world.fleet.run("run", "--dry-run", "--json", "--only-failed", "last")

    assert counters(dry) == {"rows": 4, "batches": 2}
    assert world.checkpoints() == [("work.add", "", "6")]


def test_whoever_finds_that_another_run_goes_on_with_the_work_rolls_back_and_leaves_it(
    world: World,
) -> None:
    world.plant("raise")
    world.fleet.run("run", *SLOT)
    moving = """
        from sqlalchemy import column, table

        ITEMS = table("items", column("id"), column("n"))

        @job(transaction="batch", name="work.add")
        def add(ctx):
            ctx.execute("SELECT 1")
            # As another process would have done it meanwhile.
            ctx.execute("UPDATE cronrunner_checkpoints SET last_key = '10'")
            for ids in ctx.batches(ITEMS.c.id, size=3):
                ctx.execute("UPDATE items SET n = 100")
    """
    world.fleet.write_job("work", moving)
    second = world.fleet.run("run", "--json", "--only-failed", "last")

    execution = second.execution("work.add", world.tenant)
    assert execution["outcome"] == "skipped"
    assert execution["reason"].startswith("overlap: another run goes on with this work")
    assert world.done() == HALF


@pytest.mark.parametrize("kind", ["mariadb"], indirect=True)
@pytest.mark.parametrize(("connections", "processes"), [("fresh", 2), ("reset", 1)])
def test_batches_go_on_whatever_connects_and_however_many_processes_there_are(
    world: World, prefix: str, connections: str, processes: int
) -> None:
    assert world.mariadb is not None
    others = [f"{prefix}b", f"{prefix}c"]
    world.mariadb.create_databases(others, TABLE, ROWS)
    main = {
        "url": world.mariadb.url(database=""),
        "discover": {"databases": f"{prefix}*"},
        "connections": connections,
    }
    world.fleet.configure({"servers": {"main": main}, "runner": {"processes": processes}})
    world.plant("raise")
    failed = world.fleet.run("run", "--json", *SLOT)
    world.mend()
    repeated = world.fleet.run("run", "--json", "--only-failed", "last")

    assert (failed.code, repeated.code) == (1, 0)
    rows = [each["counters"] for each in repeated.document["executions"]]
    assert rows == [{"rows": 4, "batches": 2}] * 3
    assert world.done() == [1] * 10
