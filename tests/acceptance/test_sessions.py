"""Sessions that go from visit to visit: as good as new, in fewer round trips, or not at all."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import Finished, Fleet, finish
from tests.acceptance.small import until
from tests.acceptance.watching import counting_connections
from tests.servers import MariaDB
from tests.servers.proxy import Proxy

TENANTS = 24
USER = "reuse_cron"
PREFIX = "reuse_"

COUNTING = """
    @job
    def first(ctx):
        ctx.execute("SELECT COUNT(*) FROM items")

    @job
    def second(ctx):
        ctx.execute("UPDATE items SET id = id + 1")

    @job
    def third(ctx):
        ctx.execute("SELECT COUNT(*) FROM items")
"""

#: Each tenant says on which connection it was, and what it found there of others.
LEAVING = """
    @job
    def leave(ctx):
        row = ctx.execute("SELECT CONNECTION_ID() AS number, @left AS found").one()
        ctx.execute("SET @left = 1")
        return {"connection": row.number, "found": row.found or 0}
"""


@pytest.fixture(scope="module")
def server(mariadb: MariaDB) -> Iterator[MariaDB]:
    names = [f"{PREFIX}{number:02}" for number in range(TENANTS)]
    mariadb.create_databases(
        names, "CREATE TABLE items (id INT PRIMARY KEY)", "INSERT INTO items VALUES (1)"
    )
    mariadb.create_user(USER, "pw", on=r"`reuse\_%`.*")
    yield mariadb
    mariadb.drop_databases(PREFIX)


def make_fleet(
    folder: Path, server: MariaDB, job: str, port: int = 0, *, processes: int = 1, **more: Any
) -> Fleet:
    url = server.url(USER, "pw")
    main = {
        "url": url.replace(f":{server.port}", f":{port}") if port else url,
        "discover": {"databases": f"{PREFIX}*"},
        "connections": "reset",
        "tls": "disabled",
        "max_connections": 5,
        **more,
    }
    runner = {"concurrency": 4, "grace": "2s", "processes": processes}
    config = {"servers": {"main": main}, "runner": runner}
    return Fleet(folder, config, {"work": job})


def connections(finished: Finished) -> set[int]:
    return {row["counters"]["connection"] for row in finished.document["executions"]}


def found(finished: Finished) -> int:
    return sum(row["counters"]["found"] for row in finished.document["executions"])


def warnings(finished: Finished) -> list[str]:
    lines = [line["message"] for line in finished.log_lines() if line["log.level"] == "warning"]
    return [text for text in lines if "each visit connects" in text]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_few_sessions_serve_all_visits_and_carry_nothing_over(
    tmp_path: Path, server: MariaDB, processes: int
) -> None:
    fleet = make_fleet(tmp_path, server, LEAVING, processes=processes)
    with counting_connections(server, USER) as counts:
        finished = fleet.run("run", "--json")

    assert finished.code == 0, finished.stderr
    assert max(counts) <= 5
    # Those of the first visits, and those on which the reset was proved.
    assert len(connections(finished)) <= 2 * 4
    assert found(finished) == 0
    assert warnings(finished) == []


def test_a_visit_connects_where_nothing_else_is_asked_for(tmp_path: Path, server: MariaDB) -> None:
    fresh = make_fleet(tmp_path, server, LEAVING, connections="fresh").run("run", "--json")

    assert len(connections(fresh)) == TENANTS


@pytest.mark.parametrize("processes", [1, 2])
def test_a_proxy_that_swallows_the_reset_is_found_out_and_warned_of_once(
    tmp_path: Path, server: MariaDB, processes: int
) -> None:
    with closing(Proxy(server, swallows_resets=True)) as proxy:
        fleet = make_fleet(tmp_path, server, LEAVING, proxy.port, processes=processes)
        finished = fleet.run("run", "--json")

    assert finished.code == 0, finished.stderr
    assert found(finished) == 0
    assert len(connections(finished)) == TENANTS
    assert proxy.resets > 0
    (warning,) = warnings(finished)
    assert "server main: each visit connects, since a reset leaves " in warning


def test_a_session_that_was_cut_off_while_nobody_had_it_is_replaced(
    tmp_path: Path, server: MariaDB
) -> None:
    job = LEAVING.replace(
        'ctx.execute("SET @left = 1")',
        """ctx.execute("SET @left = 1")
        if ctx.tenant.name == "reuse_12":
            import time
            from pathlib import Path
            Path("there").touch()
            while Path("there").exists():
                time.sleep(0.01)""",
    )
    with closing(Proxy(server)) as proxy:
        # One visit at a time, and one connection for control.
        fleet = make_fleet(tmp_path, server, job, proxy.port, max_connections=2)
        with fleet.started("run", "--json") as process:
            until((tmp_path / "there").exists)
            proxy.cut()
            (tmp_path / "there").unlink()
            finished = finish(process)

    # What had a session then has failed; the next visit got another one.
    unwell = {name for (_, name), outcome in finished.outcomes.items() if outcome != "succeeded"}
    assert unwell == {"reuse_12"}
    assert len(finished.outcomes) == TENANTS


@pytest.mark.parametrize(("connections", "visit"), [("fresh", 3), ("reset", 1)])
def test_round_trips_beyond_the_jobs_own_are_one_per_execution_and_few_per_visit(
    tmp_path: Path, server: MariaDB, connections: str, visit: int
) -> None:
    def count(*tenants: str) -> tuple[int, int]:
        asked = int(server.execute("SHOW GLOBAL STATUS LIKE 'Questions'")[0][1])
        with closing(Proxy(server)) as proxy:
            fleet = make_fleet(
                tmp_path, server, COUNTING, proxy.port, connections=connections, max_connections=2
            )
            done = fleet.run("run", "--json", *tenants)
            assert done.code == 0, done.stderr
        more = int(server.execute("SHOW GLOBAL STATUS LIKE 'Questions'")[0][1]) - asked
        return proxy.round_trips, more

    few, few_statements = count("--tenant=reuse_00", "--tenant=reuse_01", "--tenant=reuse_02")
    many, many_statements = count()

    visits = TENANTS - 3
    # Three jobs of one statement each, a commit after each, and what a visit costs. To connect
    # takes one more, which is over before there is anything to be seen.
    # In the proof of the reset the entry is written without awaiting its reply: one round trip, or
    # two if the server was quicker.
    assert (many - few - 1) / visits <= 3 + 3 + visit
    # Statements that share a write count as well: the reset, the database, and what is set.
    assert (many_statements - few_statements) / visits <= 3 + 3 + 3 * 3 + 1


def test_the_limit_holds_while_isolated_attempts_have_sessions_of_their_own(
    tmp_path: Path, server: MariaDB
) -> None:
    job = """
        import time

        @job
        def here(ctx):
            ctx.execute("SELECT COUNT(*) FROM items")

        @job(isolation="process")
        def there(ctx):
            ctx.execute("SELECT COUNT(*) FROM items")
            time.sleep(0.05)
    """
    fleet = make_fleet(tmp_path, server, job, max_connections=4)
    with counting_connections(server, USER) as counts:
        finished = fleet.run("run", "--json")

    assert finished.code == 0, finished.stderr
    assert 1 < max(counts) <= 4


def test_a_server_that_falls_silent_between_two_tenants_costs_the_connect_deadline(
    tmp_path: Path, server: MariaDB
) -> None:
    """The sixth tenant's job ends, and from then on nothing comes back."""
    job = """
        import time
        from pathlib import Path

        @job
        def work(ctx):
            ctx.execute("SELECT COUNT(*) FROM items")
            if ctx.tenant.name == "reuse_05":
                Path("there").touch()
                while Path("there").exists():
                    time.sleep(0.01)
                raise Cancel("nothing is committed")
    """
    with closing(Proxy(server)) as proxy:
        fleet = make_fleet(
            tmp_path, server, job, proxy.port, connect_timeout="1s", max_connections=2
        )
        with fleet.started("run", "--json") as process:
            until((tmp_path / "there").exists)
            proxy.fall_silent()
            (tmp_path / "there").unlink()
            finished = finish(process)

    assert finished.code == 1
    outcomes = finished.document["outcomes"]
    assert outcomes["succeeded"] == 5
    # The breaker opens after a few; what it keeps waiting is left out when its probes fail.
    assert outcomes.keys() <= {"succeeded", "failed", "timed_out", "cancelled", "skipped"}
    assert finished.document["duration_seconds"] < 30
