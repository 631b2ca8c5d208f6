"""The ledger goes away in mid-run: what the jobs have done and what it says afterwards agree."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import Fleet, finish
from tests.acceptance.small import SLOT, STUBBORN, WAITING, began, go, small, until, written
from tests.servers import MariaDB

AT = ("run", "--json", "--scheduled-at", SLOT)
#: A lost ledger is given up after two seconds.
HASTY = {"concurrency": 2, "heartbeat": "300ms", "lease": "3s"}
#: The first two tenants are done at once.
HALF = WAITING.replace('while not Path("go")', 'while ctx.tenant.name > "t1" and not Path("go")')
SLOWLY = """
    import time

    @job
    def work(ctx):
        time.sleep(0.3)
        ctx.execute("INSERT INTO done VALUES ('work', :slot)")
"""

Servers = Callable[..., MariaDB]


def spools(fleet: Fleet) -> list[Path]:
    return sorted((fleet.folder / "var" / "spool").glob("*"))


def recorded(server: MariaDB) -> list[tuple[Any, ...]]:
    return server.execute(
        "SELECT tenant, outcome, reason FROM executions ORDER BY tenant", database="ledger"
    )


@pytest.fixture
def server(mariadb_server: Servers) -> MariaDB:
    """A server of the test's own, with a database for the ledger."""
    server = mariadb_server(general_log=False)
    server.create_databases(["ledger"])
    return server


def fleet_on(server: MariaDB, folder: Path, jobs: str, **given: Any) -> Fleet:
    return small(folder, jobs, ledger=server.url(database="ledger"), **given)


def lost_for_good(server: MariaDB, fleet: Fleet) -> str:
    """Kill the ledger while two of eight tenants are done and two under way; return the message."""
    with fleet.started(*AT) as process:
        until(lambda: began(fleet) == {"t0", "t1", "t2", "t3"})
        until(lambda: len(recorded(server)) == 2)
        # What has an outcome there is spooled all the same if its writer was not told so.
        until(lambda: all(each["command"] == "Sleep" for each in server.process_list()))
        server.kill()
        go(fleet)
        run = finish(process)
    assert run.code == 70
    assert run.document["run"] == run.log_lines("run.started")[0]["cronrunner"]["run"]
    assert sum(run.document["outcomes"].values()) == 8
    (line,) = run.log_lines("spool.written")
    (path,) = spools(fleet)
    assert (line["cronrunner"]["executions"], line["cronrunner"]["lost"]) == (6, 0)
    assert line["cronrunner"]["spool"] == str(path)
    assert path.stat().st_mode & 0o777 == 0o600
    (message,) = run.document["errors"]
    return str(message)


def test_outcomes_of_a_ledger_that_is_gone_for_good_are_imported_by_the_next_command(
    server: MariaDB, tmp_path: Path
) -> None:
    fleet = fleet_on(server, tmp_path, HALF, tenants=8, runner=HASTY)
    message = lost_for_good(server, fleet)
    (path,) = spools(fleet)
    assert "Can't connect" in message or "Lost connection" in message
    assert message.endswith(f"; 6 outcomes are in {path}, which the next command imports")
    done = {tenant for tenant, rows in written(fleet).items() if rows}
    assert {"t0", "t1", "t2", "t3"} <= done

    server.start()
    told = fleet.run("history", "--json")
    (line,) = told.log_lines("spool.imported")
    assert line["cronrunner"]["executions"] == 6
    assert spools(fleet) == []
    rows = recorded(server)
    assert {tenant for tenant, outcome, _ in rows if outcome == "succeeded"} == done
    left = [(outcome, reason) for tenant, outcome, reason in rows if tenant not in done]
    assert left == [("skipped", "ledger lost")] * (8 - len(done))
    (ended,) = fleet.run("history", "--runs", "--json").document
    assert (ended["exit_code"], ended["outcomes"]["succeeded"]) == (70, len(done))

    rest = fleet.run(*AT)
    assert (rest.code, rest.document["duplicates"]) == (0, len(done)), rest.stderr
    assert set(written(fleet).values()) == {1}
    assert rest.log_lines("run.interrupted_found") == []
    totals = server.execute(
        "SELECT SUM(succeeded), SUM(interrupted) FROM statistics", database="ledger"
    )
    assert totals == [(8, 0)]


def test_work_that_goes_on_when_the_lease_ends_is_interrupted(
    server: MariaDB, tmp_path: Path
) -> None:
    fleet = fleet_on(server, tmp_path, STUBBORN, tenants=3, runner=HASTY)
    with fleet.started(*AT) as process:
        until(lambda: len(began(fleet)) == 2)
        server.kill()
        killed = time.monotonic()
        run = finish(process)
        # The lease, cancelling, and the end of the process.
        assert time.monotonic() - killed < 3 + 1.5 + 4

    assert run.code == 70
    server.start()
    fleet.run("history")
    assert recorded(server) == [
        ("t0", "interrupted", "grace expired"),
        ("t1", "interrupted", "grace expired"),
        ("t2", "skipped", "ledger lost"),
    ]


def test_a_ledger_that_never_answers_ends_the_run_with_its_lease(
    server: MariaDB, tmp_path: Path
) -> None:
    fleet = fleet_on(server, tmp_path, HALF, tenants=8, runner=HASTY)
    with fleet.started(*AT) as process:
        until(lambda: began(fleet) == {"t0", "t1", "t2", "t3"})
        until(lambda: len(recorded(server)) == 2)
        server.freeze()
        frozen = time.monotonic()
        go(fleet)
        run = finish(process)
        assert time.monotonic() - frozen < 3 + 4
    server.thaw()

    assert run.code == 70, run.stderr
    assert "the ledger has not answered while the lease lasted" in run.document["errors"][0]
    done = {tenant for tenant, rows in written(fleet).items() if rows}
    fleet.run("history")
    assert {row[0] for row in recorded(server) if row[1] == "succeeded"} == done
    assert fleet.run(*AT).document["duplicates"] == len(done)
    assert set(written(fleet).values()) == {1}


def test_a_run_that_is_killed_after_it_has_spooled_loses_nothing_of_it(
    server: MariaDB, tmp_path: Path
) -> None:
    one_goes_on = HALF.replace("and not Path", 'and (ctx.tenant.name == "t3" or not Path').replace(
        ".exists() and ctx", ".exists()) and ctx"
    )
    runner = {**HASTY, "lease": "8s"}
    fleet = fleet_on(server, tmp_path, one_goes_on, tenants=4, runner=runner)
    with fleet.started(*AT) as process:
        until(lambda: began(fleet) == {"t0", "t1", "t2", "t3"})
        until(lambda: len(recorded(server)) == 2)
        server.kill()
        go(fleet)
        (path,) = spools(fleet)
        until(lambda: b"t2" in path.read_bytes())
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    server.start()
    (fleet.folder / "jobs" / "jobs.py").unlink()
    fleet.write_job("jobs", HALF)
    rest = fleet.run(*AT)

    assert (rest.code, rest.document["duplicates"]) == (0, 3), rest.stderr
    assert set(written(fleet).values()) == {1}
    assert [row for row in recorded(server) if row[0] >= "t2"] == [
        ("t2", "succeeded", None),
        ("t3", "interrupted", "the runner died"),
        ("t3", "succeeded", None),
    ]


def test_a_ledger_that_is_down_at_the_start_lets_nothing_run(
    server: MariaDB, tmp_path: Path
) -> None:
    fleet = fleet_on(server, tmp_path, SLOWLY, runner=HASTY)
    server.stop()
    run = fleet.run(*AT)

    assert (run.code, run.document["executions"]) == (70, [])
    assert set(written(fleet).values()) == {0}


# A full disk.


def fill(folder: Path) -> Path:
    """Leave no byte free on a disk."""
    path = folder / "filling"
    with path.open("wb", buffering=0) as file:
        size = 64 * 1024
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2
    return path


def test_a_full_disk_under_a_sqlite_ledger_takes_no_outcome(
    tmp_path: Path, small_disk: Path
) -> None:
    ledger = {"url": f"sqlite:///{small_disk}/ledger.db", "spool": str(small_disk / "spool")}
    fleet = small(tmp_path, HALF, tenants=8, ledger=ledger, runner=HASTY)
    fleet.ledger_file = small_disk / "ledger.db"
    with fleet.started(*AT) as process:
        until(lambda: began(fleet) == {"t0", "t1", "t2", "t3"})
        until(lambda: fleet.query("SELECT count(*) FROM executions") == [(2,)])
        filling = fill(small_disk)
        go(fleet)
        run = finish(process)
    assert run.code == 70, run.stderr
    assert "disk is full" in run.document["errors"][0]
    (line,) = run.log_lines("spool.written")
    assert line["cronrunner"]["lost"] == 0
    filling.unlink()

    done = {tenant for tenant, rows in written(fleet).items() if rows}
    fleet.run("history")
    rows = fleet.query("SELECT tenant, outcome FROM executions")
    assert len(rows) == 8
    assert {tenant for tenant, outcome in rows if outcome == "succeeded"} == done
    assert fleet.run(*AT).document["duplicates"] == len(done)
    assert set(written(fleet).values()) == {1}


def test_a_folder_that_cannot_be_used_is_a_warning(tmp_path: Path) -> None:
    fleet = small(tmp_path, ledger={"spool": "tenants.yaml/spool"})
    run = fleet.run(*AT)

    assert (run.code, run.document["outcomes"]) == (0, {"succeeded": 3})
    text = "outcomes cannot be spooled if the ledger is lost: Not a directory"
    # Among them may be that the ledger is in a container.
    assert [line["message"] for line in run.log_lines("warned")].count(text) == 1
