"""A slot's transaction is committed once, whatever dies in between."""

import sqlite3
from contextlib import closing

import pytest

from tests.acceptance.fleet import Fleet
from tests.servers import MariaDB

pytestmark = pytest.mark.xdist_group("exactly_once")

TENANTS = 30
SLOT = ("--scheduled-at", "2026-03-01T02:00:00Z")

JOB = """
    import time

    @job(exactly_once=True)
    def charge(ctx):
        ctx.connection.execute(text("INSERT INTO charges VALUES (1)"))
        time.sleep(0.01)
        return {"charged": 1}
"""


def make_fleet(folder, mariadb: MariaDB, prefix: str) -> Fleet:
    names = [f"{prefix}{number:02}" for number in range(TENANTS)]
    mariadb.create_databases(names, "CREATE TABLE charges (n INT)")
    config = {
        "servers": {
            "main": {"url": mariadb.url(database=""), "discover": {"databases": f"{prefix}*"}}
        }
    }
    return Fleet(folder, config, {"money": JOB})


def charges(mariadb: MariaDB, prefix: str) -> list[int]:
    return [
        mariadb.execute(f"SELECT COUNT(*) FROM `{prefix}{number:02}`.charges")[0][0]
        for number in range(TENANTS)
    ]


def test_a_commit_that_was_not_recorded_is_recovered_with_its_counters(
    mariadb: MariaDB, prefix: str, tmp_path
) -> None:
    fleet = make_fleet(tmp_path, mariadb, prefix)
    first = fleet.run("run", *SLOT)
    with closing(sqlite3.connect(fleet.ledger_file)) as ledger, ledger:
        # What a kill between the commit and the record leaves behind.
        ledger.execute("DELETE FROM executions")
        ledger.execute("UPDATE claims SET state = 'open', run = '', outcome = NULL")
    second = fleet.run("run", "--json", *SLOT)

    assert (first.code, second.code) == (0, 0)
    assert {row["reason"] for row in second.document["executions"]} == {"recovered"}
    assert {row["counters"]["charged"] for row in second.document["executions"]} == {1}
    assert charges(mariadb, prefix) == [1] * TENANTS


def test_a_failure_leaves_no_marker(mariadb: MariaDB, prefix: str, tmp_path) -> None:
    fleet = make_fleet(tmp_path, mariadb, prefix)
    fleet.write_job(
        "money",
        """
        import os

        @job(exactly_once=True)
        def charge(ctx):
            ctx.connection.execute(text("INSERT INTO charges VALUES (1)"))
            if os.environ.get("BROKEN"):
                raise ValueError("broken")
        """,
    )
    failed = fleet.run("run", *SLOT, env={"BROKEN": "1"})
    repeated = fleet.run("run", "--only-failed", "last")

    assert (failed.code, repeated.code) == (1, 0)
    assert charges(mariadb, prefix) == [1] * TENANTS


def test_it_is_refused_on_a_job_that_commits_for_itself(tmp_path) -> None:
    config = {"servers": {"files": {"url": "sqlite://", "discover": {"list": ["a"]}}}}
    job = "@job(exactly_once=True, transaction='none')\ndef charge(ctx):\n    pass\n"
    checked = Fleet(tmp_path, config, {"money": job}).run("check")

    assert checked.code == 2
    assert 'exactly_once: expected transaction="tenant"' in checked.stdout
