"""The ledger goes away at any moment: the rows that the jobs have left and the ledger agree."""

import random
import time
from pathlib import Path

import pytest

from tests.acceptance.fleet import Fleet, finish
from tests.acceptance.small import small, until, written
from tests.acceptance.test_ledger_lost import AT, HASTY, Servers, fill, fleet_on, recorded, spools
from tests.faults.conftest import Repetition
from tests.servers import MariaDB

TENANTS = 40

SLOWLY = """
    import time

    @job
    def work(ctx):
        time.sleep({seconds})
        ctx.execute("INSERT INTO done VALUES ('work', :slot)")
"""
#: At two at a time, these take 6 s and 1.2 s.
LONG, SHORT = (SLOWLY.replace("{seconds}", seconds) for seconds in ("0.3", "0.06"))


@pytest.fixture
def server(mariadb_server: Servers) -> MariaDB:
    """A server of the test's own, with a database for the ledger."""
    server = mariadb_server(general_log=False)
    server.create_databases(["ledger"])
    return server


def at_some_time(fleet: Fleet, dice: random.Random) -> None:
    """Wait until some of the tenants are done, and a little longer."""
    done = dice.randrange(TENANTS - 10)
    until(lambda: sum(written(fleet).values()) > done)
    time.sleep(dice.uniform(0, 0.05))


def succeeded(fleet: Fleet) -> set[str]:
    return {tenant for tenant, rows in written(fleet).items() if rows}


@pytest.mark.repeated(few=1, many=10)
def test_a_ledger_that_is_gone_for_five_seconds_costs_nothing(
    server: MariaDB, tmp_path: Path, repetition: Repetition
) -> None:
    fleet = fleet_on(server, tmp_path, LONG, tenants=TENANTS)
    with fleet.started(*AT) as process:
        at_some_time(fleet, repetition.dice)
        server.kill()
        time.sleep(5)
        server.start()
        run = finish(process)

    assert (run.code, run.document["outcomes"]) == (0, {"succeeded": TENANTS}), run.stderr
    assert set(written(fleet).values()) == {1}
    assert recorded(server) == sorted((f"t{n}", "succeeded", None) for n in range(TENANTS))
    assert spools(fleet) == []
    repetition.tally.add(
        "the ledger's server gone for 5 s", repetitions=1, rows=TENANTS, recorded=TENANTS
    )


@pytest.mark.repeated(few=0, many=10)
def test_a_ledger_that_is_gone_for_good_at_any_moment_loses_no_outcome(
    server: MariaDB, tmp_path: Path, repetition: Repetition
) -> None:
    fleet = fleet_on(server, tmp_path, SHORT, tenants=TENANTS, runner=HASTY)
    with fleet.started(*AT) as process:
        at_some_time(fleet, repetition.dice)
        server.kill()
        run = finish(process)
    assert run.code == 70, run.stderr
    done = succeeded(fleet)
    (line,) = run.log_lines("spool.written")

    server.start()
    fleet.run("history")
    rows = recorded(server)
    assert len(rows) == TENANTS
    assert {tenant for tenant, outcome, _ in rows if outcome == "succeeded"} == done
    assert spools(fleet) == []
    assert_the_rest_is_done_once(fleet, done)
    repetition.tally.add(
        "the ledger's server gone for good",
        repetitions=1,
        rows_of_jobs=len(done),
        recorded_as_succeeded=len(done),
        outcomes_imported_from_spools=line["cronrunner"]["executions"],
    )


def assert_the_rest_is_done_once(fleet: Fleet, done: set[str]) -> None:
    rest = fleet.run(*AT)
    assert (rest.code, rest.document["duplicates"]) == (0, len(done)), rest.stderr
    assert set(written(fleet).values()) == {1}


@pytest.mark.repeated(few=0, many=10)
def test_a_disk_that_is_full_at_any_moment_loses_no_outcome(
    tmp_path: Path, small_disk: Path, repetition: Repetition
) -> None:
    ledger = {"url": f"sqlite:///{small_disk}/ledger.db", "spool": str(small_disk / "spool")}
    fleet = small(tmp_path, SHORT, tenants=TENANTS, ledger=ledger, runner=HASTY)
    fleet.ledger_file = small_disk / "ledger.db"
    with fleet.started(*AT) as process:
        at_some_time(fleet, repetition.dice)
        filling = fill(small_disk)
        run = finish(process)
    assert run.code == 70, run.stderr
    (line,) = run.log_lines("spool.written")
    assert line["cronrunner"]["lost"] == 0
    filling.unlink()

    done = succeeded(fleet)
    fleet.run("history")
    rows = fleet.query("SELECT tenant, outcome FROM executions")
    assert len(rows) == TENANTS
    assert {tenant for tenant, outcome in rows if outcome == "succeeded"} == done
    assert_the_rest_is_done_once(fleet, done)
    repetition.tally.add(
        "a full disk under the ledger",
        repetitions=1,
        rows_of_jobs=len(done),
        recorded_as_succeeded=len(done),
        outcomes_imported_from_spools=line["cronrunner"]["executions"],
    )
