"""A server that dies, hangs or never speaks costs its own tenants, and never the run's end."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.fleet import Finished, Fleet, finish
from tests.servers import MariaDB, SilentServer

TENANTS = 10
CONNECT_SECONDS = 2.0

JOBS = """
    @job
    def slow(ctx):
        return {"slept": ctx.connection.execute(text("SELECT SLEEP(0.5)")).scalar_one()}

    @job
    def after(ctx):
        ctx.connection.execute(text("SELECT 1"))
"""


#: From the first refused visit to the last probe of a server that stays away, in connect
#: deadlines: two until the breaker opens, a wait of one, a probe, a wait of two, and a probe.
#: A wait is up to a quarter longer.
GIVEN_UP = 2 + 1.25 + 1 + 2.5 + 1


def listed(url: str, prefix: str, tenants: int = TENANTS) -> dict[str, object]:
    names = [f"{prefix}{number}" for number in range(tenants)]
    return {
        "url": url,
        "max_connections": 3,
        "connect_timeout": f"{CONNECT_SECONDS:.0f}s",
        "discover": {"list": names},
    }


def assert_every_execution_has_an_outcome(fleet: Fleet, run: Finished, tenants: int) -> None:
    """In the document, in the ledger, and with no claim left held."""
    assert len(run.document["executions"]) == 2 * tenants
    assert sum(run.document["outcomes"].values()) == 2 * tenants
    assert fleet.query("SELECT COUNT(*) FROM executions WHERE outcome <> ''") == [(2 * tenants,)]
    assert fleet.query("SELECT COUNT(*) FROM claims WHERE state <> 'closed' AND run <> ''") == [
        (0,)
    ]
    # What a breaker left out is open for whoever comes next, and nothing else is.
    left = run.document["outcomes"].get("skipped", 0)
    assert fleet.query("SELECT COUNT(*) FROM claims WHERE state <> 'closed'") == [(left,)]
    assert fleet.query("SELECT exit_code FROM runs") == [(run.code,)]


def test_a_server_killed_in_the_middle_of_a_run_ends_the_run_by_itself(
    mariadb_server: Callable[..., MariaDB], tmp_path: Path
) -> None:
    server = mariadb_server(general_log=False)
    server.create_databases([f"k{number}" for number in range(TENANTS)])
    fleet = Fleet(tmp_path, {"servers": {"main": listed(server.url(), "k")}}, {"faulty": JOBS})

    with fleet.started("--json") as process:
        # Who is cut off in a log-in words it otherwise than who is in a statement.
        await_statement(server, "SLEEP", times=2)
        server.kill()
        killed = time.monotonic()
        run = finish(process, seconds=60)
        took = time.monotonic() - killed

    assert run.code == 1, run.stderr
    # Two visits at once; each tenant that is left costs at most one connect.
    assert took < CONNECT_SECONDS * TENANTS / 2
    assert_every_execution_has_an_outcome(fleet, run, TENANTS)
    errors = {row["error"][:21] for row in run.document["executions"] if row["error"]}
    assert errors == {"OperationalError 2013", "OperationalError 2003"}
    assert len(run.document["causes"]) == 2
    left = {row["reason"] for row in run.document["executions"] if row["outcome"] == "skipped"}
    assert left == {"breaker open"}

    server.start()
    rest = fleet.run("--resume", "last", "--json")
    assert rest.code == 0, rest.stdout
    assert rest.document["outcomes"] == {"succeeded": run.document["outcomes"]["skipped"]}


def await_statement(server: MariaDB, part: str, *, times: int = 1) -> None:
    deadline = time.monotonic() + 30
    while sum(part in str(process["info"]) for process in server.process_list()) < times:
        assert time.monotonic() < deadline, "the run sent no such statement"
        time.sleep(0.02)


def test_a_server_that_comes_back_serves_the_tenants_that_are_left(
    mariadb_server: Callable[..., MariaDB], tmp_path: Path
) -> None:
    server = mariadb_server(general_log=False)
    server.create_databases([f"k{number}" for number in range(TENANTS)])
    fleet = Fleet(tmp_path, {"servers": {"main": listed(server.url(), "k")}}, {"faulty": JOBS})

    with fleet.started("--json") as process:
        await_statement(server, "SLEEP")
        server.kill()
        finish(process)
    server.start()
    run = fleet.run("--json")

    assert run.code == 0, run.stdout
    assert run.document["outcomes"] == {"succeeded": 2 * TENANTS}


@pytest.mark.one_process("each process asks a server for itself")
def test_a_silent_server_costs_a_few_connect_deadlines_and_the_others_nothing(
    mariadb: MariaDB, prefix: str, silent_server: SilentServer, tmp_path: Path
) -> None:
    tenants = 50
    mariadb.create_databases([f"{prefix}{number}" for number in range(tenants)])
    quick = {"faulty": "@job\ndef quick(ctx):\n    ctx.connection.execute(text('SELECT 1'))\n"}
    servers = {
        "silent": listed(silent_server.url(), "silent", tenants),
        "main": listed(mariadb.url(), prefix, tenants),
    }
    fleet = Fleet(tmp_path, {"servers": servers}, quick)

    started = time.monotonic()
    run = fleet.run("--json")
    took = time.monotonic() - started

    assert run.code == 1
    by_server = {(r["server"], r["outcome"]) for r in run.document["executions"]}
    assert by_server == {("main", "succeeded"), ("silent", "failed"), ("silent", "skipped")}
    # Three to open the breaker, one that was on its way, and two probes.
    assert run.document["outcomes"]["failed"] <= 6
    assert sum(run.document["outcomes"].values()) == 2 * tenants
    # Asked once by all, and by each probe.
    assert silent_server.connections <= 3
    assert took < CONNECT_SECONDS * GIVEN_UP + 10
    opened = [line["cronrunner"]["failed_probes"] for line in run.log_lines("breaker.opened")]
    assert opened == [0, 1, 2]
    label = ("cronrunner_breaker_openings_total", "silent")
    assert fleet.query("SELECT value FROM counters WHERE name = ? AND label = ?", *label) == [(1,)]


def test_processes_find_a_silent_server_once_for_each_visit(
    mariadb_server: Callable[..., MariaDB], tmp_path: Path
) -> None:
    server = mariadb_server(general_log=False)
    server.create_databases([f"k{number}" for number in range(TENANTS)])
    apart = """
        import time
        from pathlib import Path

        @job(isolation="process")
        def first(ctx):
            Path("begun").touch()
            while not Path("frozen").exists():
                time.sleep(0.01)

        @job(isolation="process")
        def second(ctx):
            ctx.execute("SELECT 1")
    """
    main = {**listed(server.url(), "k"), "connect_timeout": "1s"}
    config = {"servers": {"main": main}, "runner": {"concurrency": 1, "grace": "1s"}}
    fleet = Fleet(tmp_path, config, {"faulty": apart})
    with fleet.started("--json") as process:
        await_file(tmp_path / "begun")
        server.freeze()
        (tmp_path / "frozen").touch()
        run = finish(process)
    server.thaw()

    opened = [line["cronrunner"]["failed_probes"] for line in run.log_lines("breaker.opened")]
    assert opened == [0, 1, 2]
    # The visit that was under way, three that were refused, and two probes.
    assert run.document["outcomes"]["skipped"] >= 2 * (TENANTS - 6)
    assert_every_execution_has_an_outcome(fleet, run, TENANTS)


def test_a_server_that_comes_back_in_time_is_used_again_by_the_same_run(
    mariadb_server: Callable[..., MariaDB], tmp_path: Path
) -> None:
    server = mariadb_server(general_log=False)
    server.create_databases([f"k{number}" for number in range(TENANTS)])
    fleet = Fleet(tmp_path, {"servers": {"main": listed(server.url(), "k")}}, {"faulty": JOBS})

    with fleet.started("--json") as process:
        await_statement(server, "SLEEP")
        server.kill()
        # Until the breaker is open: who is refused is refused at once.
        time.sleep(1.0)
        server.start()
        run = finish(process, seconds=60)

    assert run.code == 1
    assert set(run.document["outcomes"]) == {"succeeded", "failed"}
    assert run.document["outcomes"]["succeeded"] >= TENANTS
    assert run.log_lines("breaker.opened")
    assert len(run.log_lines("breaker.closed")) == 1
    assert_every_execution_has_an_outcome(fleet, run, TENANTS)


def test_a_server_that_is_silent_at_discovery_fails_it_within_the_connect_deadline(
    mariadb: MariaDB, prefix: str, silent_server: SilentServer, tmp_path: Path
) -> None:
    mariadb.create_databases([prefix + "a"])
    silent = {**listed(silent_server.url(), "silent"), "discover": {"databases": "*"}}
    main = {**listed(mariadb.url(), prefix), "discover": {"databases": f"{prefix}*"}}
    fleet = Fleet(tmp_path, {"servers": {"silent": silent, "main": main}}, {"faulty": JOBS})

    started = time.monotonic()
    run = fleet.run("--json")

    assert time.monotonic() - started < CONNECT_SECONDS + 10
    assert run.code == 4
    assert run.document["outcomes"] == {"succeeded": 2}
    assert run.document["errors"][0].startswith("server silent: discovery failed")


def test_a_server_that_falls_silent_costs_each_visit_at_most_the_connect_deadline(
    mariadb_server: Callable[..., MariaDB], tmp_path: Path
) -> None:
    server = mariadb_server(general_log=False)
    server.create_databases([f"k{number}" for number in range(TENANTS)])
    jobs = """
        import time
        from pathlib import Path

        @job
        def wait_for_the_freeze(ctx):
            Path("begun").touch()
            while not Path("frozen").exists():
                time.sleep(0.01)
    """
    fleet = Fleet(tmp_path, {"servers": {"main": listed(server.url(), "k")}}, {"faulty": jobs})

    with fleet.started("--json") as process:
        await_file(tmp_path / "begun")
        server.freeze()
        frozen = time.monotonic()
        (tmp_path / "frozen").touch()
        run = finish(process, seconds=60)
        took = time.monotonic() - frozen

    assert run.code == 1
    # The kernel still accepts; two at a time wait for a greeting that never comes.
    assert took < CONNECT_SECONDS * GIVEN_UP + 5
    assert len(run.document["executions"]) == TENANTS


def await_file(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.02)


@pytest.mark.one_process("it counts what the threads of one process hold")
@pytest.mark.parametrize("limit", [1, 2])
def test_a_full_server_fails_executions_and_not_the_run(
    mariadb: MariaDB, prefix: str, tmp_path: Path, limit: int
) -> None:
    """More visits are configured than the server lets this user have."""
    mariadb.create_databases([f"{prefix}{number}" for number in range(TENANTS)])
    mariadb.create_user(prefix + "few", "pw", max_user_connections=limit)
    main = {**listed(mariadb.url(prefix + "few", "pw"), prefix), "max_connections": 6}
    fleet = Fleet(tmp_path, {"servers": {"main": main}}, {"faulty": JOBS})

    run = fleet.run("--json")

    assert run.code == 1
    assert set(run.document["outcomes"]) == {"succeeded", "failed"}
    errors = {str(row["error"])[:21] for row in run.document["executions"] if row["error"]}
    assert errors == {"OperationalError 1226"}
    assert_every_execution_has_an_outcome(fleet, run, TENANTS)


def test_a_statement_may_outlast_the_connect_timeout(
    mariadb: MariaDB, prefix: str, tmp_path: Path
) -> None:
    mariadb.create_databases([prefix + "a"])
    server = {
        "url": mariadb.url(),
        "connect_timeout": "1s",
        "discover": {"databases": f"{prefix}*"},
    }
    jobs = """
        @job
        def long(ctx):
            ctx.connection.execute(text("SELECT SLEEP(2.5)"))

        @job
        def long_on_a_renewed_session(ctx):
            ctx.connection.execute(text("SELECT SLEEP(1.5)"))
    """

    run = Fleet(tmp_path, {"servers": {"main": server}}, {"patient": jobs}).run("--json")

    assert run.code == 0, run.stdout
    assert run.document["outcomes"] == {"succeeded": 2}
