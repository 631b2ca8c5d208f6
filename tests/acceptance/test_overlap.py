"""A slot that begins while an earlier one of the same job is still at work on a tenant."""

import json
import time
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import pymysql
import pytest

from tests.acceptance.fleet import Fleet, finish
from tests.acceptance.small import SLOT, WAITING, began, go, small, until, written
from tests.servers import MariaDB

LATER = "2026-03-02T02:00:00Z"

#: On one tenant only; the others are done at once.
_ONE_WAITS = WAITING.replace(
    "        Path(f", '        if ctx.tenant.name != "t0":\n            return\n        Path(f'
)


def _job(text: str, overlap: str) -> str:
    return text.replace("@job", f'@job(overlap="{overlap}")')


def test_a_later_slot_skips_exactly_what_is_at_work_and_says_who_holds_it(tmp_path: Path) -> None:
    fleet = small(tmp_path, _ONE_WAITS)
    with fleet.started("run", "--json", "--scheduled-at", SLOT) as first:
        until(lambda: began(fleet) == {"t0"})
        for count in (1, 2):
            second = fleet.run("run", "--json", "--scheduled-at", LATER)
            assert second.code == 0, second.stderr
            row = second.execution("jobs.work", "t0")
            assert row["outcome"] == "skipped"
            assert row["reason"].startswith("overlap: run ")
            now = datetime.now(UTC)
            assert f"since {now:%Y-%m-%dT}" in row["reason"]
            (tenant,) = [
                each for each in fleet.run("tenants", "--json").document if each["tenant"] == "t0"
            ]
            assert tenant["overlapping_jobs"] == {"jobs.work": count}
        go(fleet)
        done = finish(first)
    assert done.document["run"] in row["reason"]

    # The skip has left the slot open: it is done when it is asked for again.
    third = fleet.run("run", "--json", "--scheduled-at", LATER)
    assert third.outcomes == {("jobs.work", "t0"): "succeeded"}
    (tenant,) = [each for each in fleet.run("tenants", "--json").document if each["tenant"] == "t0"]
    assert tenant["overlapping_jobs"] == {}
    assert written(fleet)["t0"] == 2


def test_a_later_slot_waits_for_the_earlier_one(tmp_path: Path) -> None:
    fleet = small(tmp_path, _job(_ONE_WAITS, "wait"))
    with fleet.started("run", "--json", "--scheduled-at", SLOT) as first:
        until(lambda: began(fleet) == {"t0"})
        with fleet.started("run", "--json", "--scheduled-at", LATER) as second:
            time.sleep(2)
            assert second.poll() is None
            go(fleet)
            assert finish(second).document["outcomes"] == {"succeeded": 3}
        finish(first)
    assert written(fleet)["t0"] == 2


def test_a_run_that_waits_for_another_can_be_stopped(tmp_path: Path) -> None:
    fleet = small(tmp_path, _job(_ONE_WAITS, "wait"))
    with fleet.started("run", "--scheduled-at", SLOT) as first:
        until(lambda: began(fleet) == {"t0"})
        second = fleet.run("run", "--json", "--scheduled-at", LATER, "--deadline", "2s")
        assert second.code == 75
        assert second.execution("jobs.work", "t0")["reason"] == "drained"
        go(fleet)
        finish(first)


def test_both_slots_run_at_once_if_the_job_allows_it(tmp_path: Path) -> None:
    fleet = small(tmp_path, _job(_ONE_WAITS, "allow"))
    with (
        fleet.started("run", "--json", "--scheduled-at", SLOT) as first,
        fleet.started("run", "--json", "--scheduled-at", LATER) as second,
    ):
        until(lambda: _at_work(fleet) == 2)
        go(fleet)
        assert finish(first).document["outcomes"] == {"succeeded": 3}
        assert finish(second).document["outcomes"] == {"succeeded": 3}


def _at_work(fleet: Fleet) -> int:
    runs = json.loads(fleet.run("history", "--runs", "--json").stdout)
    return sum(1 for run in runs if run["exit_code"] is None)


def test_a_run_that_died_holds_up_nobody(tmp_path: Path) -> None:
    fleet = small(tmp_path, _ONE_WAITS)
    with fleet.started("run", "--scheduled-at", SLOT) as first:
        until(lambda: began(fleet) == {"t0"})
        first.kill()
    go(fleet)
    second = fleet.run("run", "--json", "--scheduled-at", LATER)
    assert second.document["outcomes"] == {"succeeded": 3}


@pytest.mark.parametrize("held", [True, False])
def test_the_lock_of_the_server_keeps_out_whoever_else_takes_it(
    tmp_path: Path, mariadb: MariaDB, prefix: str, *, held: bool
) -> None:
    database = f"{prefix}one"
    mariadb.create_databases([database], "CREATE TABLE done (n INT)")
    job = """
    @job(server_lock=True, timeout="20s")
    def work(ctx):
        name = ctx.execute("SELECT IS_USED_LOCK(:wanted)", wanted=LOCK).scalar_one()
        return {"mine": int(name == ctx.execute("SELECT CONNECTION_ID()").scalar_one())}
"""
    digest = blake2b(f"{database}\0jobs.work".encode(), digest_size=16).hexdigest()
    lock = f"cronrunner:{digest}"
    fleet = Fleet(
        tmp_path,
        {"servers": {"main": {"url": mariadb.url(), "discover": {"list": [database]}}}},
        {"jobs": f'\n    LOCK = "{lock}"\n{job}'},
    )
    other = pymysql.connect(
        host="127.0.0.1", port=mariadb.port, user=mariadb.admin, password=mariadb.password
    )
    with other, other.cursor() as cursor:
        if held:
            cursor.execute("SELECT GET_LOCK(%s, 0)", (lock,))
        done = fleet.run("run", "--json")
        row = done.execution("jobs.work", database)
        cursor.execute("SELECT IS_FREE_LOCK(%s)", (lock,))
        assert cursor.fetchone() == (0 if held else 1,)
    if held:
        assert row["outcome"] == "skipped"
        assert row["reason"].startswith("overlap: Another session holds the server's lock")
    else:
        assert row["counters"] == {"mine": 1}


def test_a_server_without_named_locks_is_said_once(tmp_path: Path) -> None:
    text = """
    @job(server_lock=True)
    def work(ctx):
        ctx.execute("INSERT INTO done VALUES ('work', :slot)")
"""
    done = small(tmp_path, text).run("run", "--json")
    assert done.document["outcomes"] == {"succeeded": 3}
    (line,) = [line for line in done.log_lines("warned") if "named locks" in line["message"]]
    assert "server_lock has no effect there" in line["message"]
