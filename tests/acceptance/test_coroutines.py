"""Jobs that are `async def`: as other jobs are, and ended at their deadline wherever they wait."""

import time
from pathlib import Path

import pytest

from tests.acceptance.fleet import Fleet
from tests.acceptance.small import SLOT, small, written
from tests.servers import MariaDB

JOBS = """
    import asyncio

    async def before(ctx):
        await asyncio.sleep(0)
        return {"rows": 2}

    async def after(ctx):
        return {"tenants": len(list(ctx.results()))}

    @job(prepare=before, summarize=after)
    async def work(ctx):
        async def one(number):
            await asyncio.sleep(0.01)
            ctx.execute("INSERT INTO done VALUES ('work', :slot)")
            return number

        found = await asyncio.gather(*map(one, range(ctx.prepared["rows"])))
        ctx.log.info("worked")
        return {"rows": len(found)}

    @job
    async def fails(ctx):
        ctx.execute("INSERT INTO done VALUES ('fails', :slot)")
        await asyncio.sleep(0)
        raise ValueError("of the coroutine")

    @job(scope="fleet")
    async def once(ctx):
        await asyncio.sleep(0)
        return {"once": 1}
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_coroutine_is_a_job_like_any_other(tmp_path: Path, processes: int) -> None:
    fleet = small(tmp_path, JOBS, runner={"processes": processes})
    finished = fleet.run("run", "--json", "--scheduled-at", SLOT)

    assert finished.execution("jobs.work", "t0")["counters"] == {"rows": 2}
    assert finished.execution("jobs.fails", "t0")["error"] == "ValueError: of the coroutine"
    assert finished.execution("jobs.once", "")["counters"] == {"once": 1}
    assert finished.execution("jobs.work:summarize", "")["counters"] == {"tenants": 3}
    assert set(written(fleet).values()) == {2}
    assert "RuntimeWarning" not in finished.stderr
    (line, *_) = [each for each in finished.log_lines() if each["message"] == "worked"]
    assert line["cronrunner"]["job"] == "jobs.work"


WAITING = """
    import asyncio

    @job(timeout="1s"{more})
    async def waits(ctx):
        ctx.execute("INSERT INTO done VALUES ('waits', :slot)")
        try:
            await asyncio.sleep(3600)
        finally:
            print("cleaned up", flush=True)
"""


def test_its_deadline_ends_a_sleep(tmp_path: Path) -> None:
    fleet = small(tmp_path, WAITING.format(more=""), tenants=1)
    finished = fleet.run("run", "--json")

    execution = finished.execution("jobs.waits", "t0")
    assert execution["outcome"] == "timed_out"
    assert execution["duration_seconds"] < 2.0
    assert "cleaned up" in finished.stderr
    assert written(fleet) == {"t0": 0}


def test_a_job_for_the_fleet_is_ended_as_well(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        """
        import asyncio

        @job(scope="fleet", timeout="500ms")
        async def waits(ctx):
            await asyncio.sleep(3600)
        """,
        tenants=1,
    )
    execution = fleet.run("run", "--json").execution("jobs.waits", "")

    assert execution["outcome"] == "timed_out"
    assert execution["duration_seconds"] < 1.5


def test_a_process_of_its_own_is_ended_as_well(tmp_path: Path) -> None:
    fleet = small(tmp_path, WAITING.format(more=', isolation="process"'), tenants=1)
    finished = fleet.run("run", "--json")

    assert finished.execution("jobs.waits", "t0")["outcome"] == "timed_out"
    assert written(fleet) == {"t0": 0}


def test_a_job_that_catches_its_cancellation_is_timed_out_all_the_same(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        """
        import asyncio

        @job(timeout="500ms")
        async def stubborn(ctx):
            ctx.execute("INSERT INTO done VALUES ('stubborn', :slot)")
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                return {"rows": 1}
        """,
        tenants=1,
    )
    finished = fleet.run("run", "--json")

    assert finished.execution("jobs.stubborn", "t0")["outcome"] == "timed_out"
    assert written(fleet) == {"t0": 0}


def test_a_statement_that_it_waits_for_is_cancelled_at_the_server(
    mariadb: MariaDB, prefix: str, tmp_path: Path
) -> None:
    tenant = f"{prefix}acorn"
    mariadb.create_databases([tenant], "CREATE TABLE items (id INT)")
    server = {"url": mariadb.url(database=""), "discover": {"list": [tenant]}}
    job = """
        import asyncio

        @job(timeout="1s")
        async def waits(ctx):
            await asyncio.sleep(0)
            ctx.execute("INSERT INTO items VALUES (1)")
            ctx.execute("SELECT SLEEP(60)")

        @job(exactly_once=True)
        async def writes(ctx):
            await asyncio.sleep(0)
            return {"rows": ctx.execute("INSERT INTO items VALUES (2)").rowcount}
    """
    fleet = Fleet(tmp_path, {"servers": {"main": server}}, {"work": job})
    started = time.monotonic()
    finished = fleet.run("run", "--json", "--scheduled-at", SLOT)

    assert finished.outcomes == {
        ("work.waits", tenant): "timed_out",
        ("work.writes", tenant): "succeeded",
    }
    assert finished.execution("work.writes", tenant)["counters"] == {"rows": 1}
    assert time.monotonic() - started < 20
    assert mariadb.execute("SELECT id FROM items", database=tenant) == [(2,)]
    running = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%SLEEP(60)%'"
    assert mariadb.execute(running + " AND id <> CONNECTION_ID()") == [(0,)]


def test_a_drain_ends_a_sleep_after_the_grace(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        WAITING.format(more="").replace('timeout="1s"', 'timeout="1h"'),
        tenants=1,
        runner={"grace": "500ms"},
    )
    finished = fleet.run("run", "--json", "--deadline", "500ms")

    assert finished.code == 75
    assert finished.execution("jobs.waits", "t0")["outcome"] == "interrupted"
    assert "cleaned up" in finished.stderr


def test_batches_work_in_a_coroutine(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        """
        import asyncio
        from sqlalchemy import column, table

        @job(transaction="batch")
        async def copies(ctx):
            ctx.execute("INSERT INTO done VALUES ('copies', 'a'), ('copies', 'b')")
            count = 0
            for ids in ctx.batches(table("done", column("slot")).c.slot, size=1):
                await asyncio.sleep(0)
                count += len(ids)
            return {"count": count}
        """,
        tenants=1,
    )
    finished = fleet.run("run", "--json")

    assert finished.execution("jobs.copies", "t0")["counters"] == {"count": 2}
