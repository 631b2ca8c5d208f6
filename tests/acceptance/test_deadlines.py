"""Deadlines on a real server: what runs too long is ended there, and nobody else is."""

import time

import pytest

from tests.acceptance.fleet import Fleet
from tests.acceptance.small import small
from tests.servers import MariaDB, SilentServer

pytestmark = pytest.mark.xdist_group("deadlines")

#: What an attempt may take beyond its timeout and the grace.
MARGIN = 1.0

JOBS = """
    import ctypes

    @job(name="a.c_call", timeout="2s", tenants="*_c_call")
    def c_call(ctx):
        # In C, and without the interpreter.
        ctypes.CDLL(None).sleep(60)

    @job(name="b.count")
    def count(ctx):
        return {"rows": ctx.connection.execute(text("SELECT COUNT(*) FROM items")).scalar_one()}
"""


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


def test_a_thread_that_cannot_be_ended_is_stuck_and_its_place_is_given_back(
    mariadb: MariaDB, tmp_path
) -> None:
    create(mariadb, ["left_c_call", "left_a", "left_b"])
    fleet = make_fleet(tmp_path, mariadb, "left_", grace="1s")
    started = time.monotonic()
    finished = fleet.run("run", "--concurrency", "1", "--json")

    stuck = finished.execution("a.c_call", "left_c_call")
    assert stuck["outcome"] == "stuck"
    # Its timeout and the grace.
    assert stuck["duration_seconds"] < 2.0 + 1.0 + MARGIN
    assert finished.execution("b.count", "left_c_call")["outcome"] == "succeeded"
    assert finished.execution("b.count", "left_b")["outcome"] == "succeeded"
    assert time.monotonic() - started < 30, "the end of the run waited for the stuck thread"
    (line,) = finished.log_lines("execution.stuck")
    assert "sleep(60)" in line["cronrunner"]["stack"]


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


@pytest.mark.one_process("its deadline is as long as processes take to start")
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


@pytest.mark.one_process("only the process that a thread holds up ends")
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
