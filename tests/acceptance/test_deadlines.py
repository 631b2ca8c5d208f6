"""Deadlines on a real server: what runs too long is ended there, and nobody else is."""

import threading
import time
from contextlib import closing

import pytest

from tests.acceptance.fleet import Finished, Fleet
from tests.acceptance.joins import ENDLESS, SHORT
from tests.acceptance.small import small
from tests.servers import MariaDB, SilentServer

pytestmark = pytest.mark.xdist_group("deadlines")

#: What a job may take beyond its timeout of 2 s, its run's start not counted.
MARGIN = 1.0

JOBS = (
    f"""
    ENDLESS = "{ENDLESS}"
"""
    """
    import time

    @job(name="a.join", timeout="2s", tenants="*_join")
    def join(ctx):
        ctx.connection.execute(text(ENDLESS)).scalar()

    @job(name="a.blocked", timeout="2s", tenants="*_blocked")
    def blocked(ctx):
        ctx.connection.execute(text("UPDATE items SET done = 1"))

    @job(name="a.returns", timeout="2s", tenants="*_returns")
    def returns(ctx):
        # SLEEP ends as if nothing had happened when it is killed.
        ctx.connection.execute(text("INSERT INTO items VALUES (7, 7)"))
        ctx.connection.execute(text("SELECT SLEEP(30)"))
        return {"slept": 1}

    @job(name="a.python", timeout="2s", tenants="*_python")
    def python(ctx):
        time.sleep(60)

    @job(name="a.loop", timeout="2s", tenants="*_loop")
    def loop(ctx):
        while True:
            ctx.check()
            time.sleep(0.05)

    @job(name="b.count")
    def count(ctx):
        return {"rows": ctx.connection.execute(text("SELECT COUNT(*) FROM items")).scalar_one()}
"""
)


def make_fleet(tmp_path, mariadb: MariaDB, prefix: str, *, grace: str = "2s") -> Fleet:
    config = {
        "servers": {
            "main": {
                "url": mariadb.url(database=""),
                "discover": {"databases": f"{prefix}*"},
                "max_connections": 9,
            }
        },
        "runner": {"grace": grace},
    }
    return Fleet(tmp_path, config, {"late": JOBS})


def create(mariadb: MariaDB, names: list[str]) -> None:
    mariadb.create_databases(
        names, "CREATE TABLE items (id INT, done INT)", "INSERT INTO items VALUES (1, 0)"
    )


@pytest.fixture(scope="module")
def night(mariadb: MariaDB, tmp_path_factory) -> tuple[Finished, MariaDB, list[dict]]:
    """One run over 20 tenants of which four have a job that does not end."""
    names = ["late_join", "late_blocked", "late_returns", "late_loop"]
    create(mariadb, names + [f"late_{number:02}" for number in range(16)])
    fleet = make_fleet(tmp_path_factory.mktemp("late"), mariadb, "late_")
    with closing(mariadb.connect(database="late_blocked")) as holder:
        holder.cursor().execute("BEGIN")
        holder.cursor().execute("UPDATE items SET done = 2")
        finished = fleet.run("run", "--json")
        left = [row for row in mariadb.process_list() if row["db"] in names]
    return finished, mariadb, [row for row in left if row["command"] != "Sleep"]


@pytest.mark.parametrize(
    ("job", "tenant"),
    [
        ("a.join", "late_join"),
        ("a.blocked", "late_blocked"),
        ("a.returns", "late_returns"),
    ],
)
def test_a_statement_is_ended_at_its_deadline(night, job: str, tenant: str) -> None:
    finished, _, _ = night
    execution = finished.execution(job, tenant)

    assert execution["outcome"] == "timed_out"
    assert 2.0 <= execution["duration_seconds"] < 2.0 + MARGIN
    assert "timeout of 2s" in execution["error"]


def test_a_loop_that_checks_ends_itself(night) -> None:
    finished, _, _ = night

    assert finished.execution("a.loop", "late_loop")["outcome"] == "timed_out"
    assert finished.execution("a.loop", "late_loop")["duration_seconds"] < 2.0 + MARGIN


def test_nothing_of_it_is_left_on_the_server(night) -> None:
    _, _, left = night

    assert left == []


def test_what_it_had_written_is_rolled_back(night) -> None:
    _, mariadb, _ = night

    assert mariadb.execute("SELECT COUNT(*) FROM late_returns.items WHERE id = 7") == [(0,)]


def test_the_neighbours_and_the_rest_of_the_visit_are_unaffected(night) -> None:
    finished, _, _ = night
    counted = {t: o for (job, t), o in finished.outcomes.items() if job == "b.count"}

    assert len(counted) == 20
    assert set(counted.values()) == {"succeeded"}
    assert finished.code == 1


def test_a_thread_that_cannot_be_ended_is_stuck_and_its_place_is_given_back(
    mariadb: MariaDB, tmp_path
) -> None:
    create(mariadb, ["left_python", "left_a", "left_b"])
    fleet = make_fleet(tmp_path, mariadb, "left_", grace="1s")
    started = time.monotonic()
    finished = fleet.run("run", "--concurrency", "1", "--json")

    assert finished.execution("a.python", "left_python")["outcome"] == "stuck"
    assert finished.execution("b.count", "left_python")["outcome"] == "succeeded"
    assert finished.execution("b.count", "left_b")["outcome"] == "succeeded"
    assert time.monotonic() - started < 30, "the end of the run waited for the stuck thread"
    (line,) = finished.log_lines("execution.stuck")
    assert "time.sleep(60)" in line["cronrunner"]["stack"]


def test_no_statement_of_an_execution_that_has_time_left_is_killed(
    mariadb: MariaDB, tmp_path
) -> None:
    """Executions that end around their deadlines: each is timed out, or untouched."""
    names = [f"edge_{number:02}" for number in range(10)]
    create(mariadb, names)
    fleet = make_fleet(tmp_path, mariadb, "edge_")
    fleet.write_job(
        "late",
        f"""
        SHORT = "{SHORT}"
        """
        """
        import random

        @job(name="edge", timeout="60ms")
        def edge(ctx):
            for _ in range(4):
                ctx.connection.execute(text("SELECT SLEEP(:s)"), {"s": 0.0138 + random.random() / 400})

        @job(name="next", timeout="30s")
        def following(ctx):
            # A late kill would hit this one.
            for _ in range(3):
                ctx.connection.execute(text(SHORT)).scalar_one()
        """,
    )
    outcomes: dict[str, set[str]] = {"edge": set(), "next": set()}
    for _ in range(5):
        finished = fleet.run("run", "--json")
        for (job, _), outcome in finished.outcomes.items():
            outcomes[job].add(outcome)

    assert outcomes["next"] == {"succeeded"}
    assert outcomes["edge"] <= {"succeeded", "timed_out"}


def test_a_drain_cancels_at_the_server_after_the_grace(mariadb: MariaDB, tmp_path) -> None:
    create(mariadb, ["drain_join", "drain_a"])
    fleet = make_fleet(tmp_path, mariadb, "drain_", grace="1s")
    fleet.write_job(
        "late",
        f"""
        @job
        def join(ctx):
            ctx.connection.execute(text("{ENDLESS}")).scalar()
        """,
    )
    with fleet.started("run", "--json") as process:
        _await(lambda: len(_working(mariadb, "drain_")) == 2)
        process.terminate()
        began = time.monotonic()
        stdout, _ = process.communicate(timeout=20)
    took = time.monotonic() - began

    assert process.returncode == 75
    assert took < 1.0 + 3.0
    assert _working(mariadb, "drain_") == []
    finished = Finished(process.returncode, stdout, "")
    assert set(finished.outcomes.values()) == {"interrupted"}


def test_a_server_that_falls_silent_in_mid_query_does_not_hang_the_run(
    mariadb_server, tmp_path
) -> None:
    server: MariaDB = mariadb_server()
    create(server, ["mute_join"])
    config = {
        "servers": {
            "main": {
                "url": server.url(database=""),
                "discover": {"databases": "mute_*"},
                "connect_timeout": "1s",
            }
        },
        "runner": {"grace": "2s"},
    }
    fleet = Fleet(tmp_path, config, {"late": JOBS})
    with fleet.started("run", "a.join", "--json") as process:
        _await(lambda: len(_working(server, "mute_")) == 1)
        server.freeze()
        try:
            stdout, _ = process.communicate(timeout=20)
        finally:
            server.thaw()

    assert Finished(process.returncode, stdout, "").outcomes == {
        ("a.join", "mute_join"): "timed_out"
    }


def test_a_deadline_of_the_run_drains_it_and_resume_does_the_rest(tmp_path) -> None:
    tenants = tmp_path / "var" / "tenants"
    tenants.mkdir(parents=True)
    for number in range(12):
        (tenants / f"t{number}.db").touch()
    config = {"servers": {"files": {"url": "sqlite://", "discover": {"directory": "var/tenants"}}}}
    fleet = Fleet(
        tmp_path,
        config,
        {"slow": "@job\ndef slow(ctx):\n    ctx.options\n    __import__('time').sleep(0.4)\n"},
    )
    first = fleet.run("run", "--json", "--deadline", "600ms", "--concurrency", "2")
    second = fleet.run("run", "--json", "--resume", "last", "--concurrency", "4")
    done = [t for run in (first, second) for (_, t), o in run.outcomes.items() if o == "succeeded"]

    assert (first.code, second.code) == (75, 0)
    assert len(done) == len(set(done)) == 12


def test_the_run_after_a_deadline_begins_with_exactly_what_was_left(tmp_path) -> None:
    slow = """
    import time

    @job
    def slow(ctx):
        time.sleep(0.2)
    """
    fleet = small(tmp_path, slow, tenants=12)
    first = fleet.run("run", "--json", "--deadline", "700ms")
    left = {tenant for (_, tenant), outcome in first.outcomes.items() if outcome == "skipped"}
    planned = [row["tenant"] for row in fleet.run("plan", "--json").document]
    second = fleet.run("run", "--json", "--concurrency", "1")
    started = {row["tenant"]: row["started_at"] for row in second.document["executions"]}

    assert first.code == 75
    assert 0 < len(left) < 12
    assert set(planned[: len(left)]) == left
    assert sorted(started, key=lambda tenant: started[tenant]) == planned
    assert second.code == 0


def test_a_thread_that_holds_the_interpreter_ends_the_process_and_the_next_run_says_so(
    tmp_path,
) -> None:
    tenants = tmp_path / "var" / "tenants"
    tenants.mkdir(parents=True)
    for name in ("good", "regex"):
        (tenants / f"{name}.db").touch()
    config = {
        "servers": {"files": {"url": "sqlite://", "discover": {"directory": "var/tenants"}}},
        "runner": {"grace": "1s"},
    }
    job = """
    import os
    import re

    @job(timeout="1s")
    def match(ctx):
        if ctx.tenant.name == "regex" and os.environ.get("CATASTROPHE"):
            re.match(r"(a+)+$", "a" * 60 + "b")
    """
    fleet = Fleet(tmp_path, config, {"hog": job})
    slot = ("--scheduled-at", "2026-03-01T02:00:00Z")
    started = time.monotonic()
    died = fleet.run("run", *slot, env={"CATASTROPHE": "1"})
    took = time.monotonic() - started
    following = fleet.run("run", "--json", *slot)

    assert died.code not in {0, 75}
    assert took < 1.0 + 1.0 + 4.0
    assert "hog.py" in died.stderr, "the stacks were not dumped"
    assert len(following.log_lines("run.interrupted_found")) == 1
    # What the other had done may not have reached the ledger any more.
    assert following.outcomes[("hog.match", "regex")] == "succeeded"
    assert len(following.outcomes) + following.document["duplicates"] == 2


def _working(server: MariaDB, prefix: str) -> list[dict]:
    rows = server.process_list()
    return [r for r in rows if str(r["db"]).startswith(prefix) and r["command"] != "Sleep"]


def _await(condition, seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        threading.Event().wait(0.05)


def test_a_silent_server_costs_its_visit_the_connect_deadline(
    silent_server: SilentServer, tmp_path
) -> None:
    config = {
        "servers": {
            "mute": {
                "url": silent_server.url(),
                "discover": {"list": ["mute_a", "mute_b"]},
                "connect_timeout": "1s",
            }
        }
    }
    fleet = Fleet(tmp_path, config, {"late": JOBS})
    started = time.monotonic()
    finished = fleet.run("run", "b.count", "--json")

    assert set(finished.outcomes.values()) == {"failed"}
    assert time.monotonic() - started < 5.0
