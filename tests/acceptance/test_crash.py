"""SIGKILL: nothing is lost, and the next run names what was cut off and completes it."""

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.acceptance.fleet import Fleet
from tests.acceptance.small import SLOT, WAITING, began, go, small, until, written

AT = ("run", "--json", "--scheduled-at", SLOT)

#: The first two tenants go on at once, the others wait.
HALF = WAITING.replace('while not Path("go")', 'while ctx.tenant.name > "t1" and not Path("go")')


def killed_in_the_middle(tmp_path: Path) -> Fleet:
    """A run of six tenants: two done, two under way, two never begun, and then SIGKILL."""
    fleet = small(tmp_path, HALF, tenants=6)
    with fleet.started(*AT) as process:
        until(lambda: began(fleet) == {"t0", "t1", "t2", "t3"})
        until(lambda: fleet.query("SELECT count(*) FROM executions") == [(2,)])
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    go(fleet)
    return fleet


def test_the_next_run_names_what_was_cut_off_and_completes_the_slot(tmp_path: Path) -> None:
    fleet = killed_in_the_middle(tmp_path)
    (dead,) = (run for (run,) in fleet.query("SELECT run FROM runs"))
    assert "running" in fleet.run("history", "--runs").stdout
    rest = fleet.run(*AT)

    assert rest.code == 0
    assert rest.document["outcomes"] == {"succeeded": 4}
    assert rest.document["duplicates"] == 2
    assert set(written(fleet).values()) == {1}
    assert dead in rest.stderr
    assert "interrupted" in rest.stderr

    shown = fleet.run("show", dead, "--json").document
    cut = {row["tenant"]: row["reason"] for row in shown["executions"]
           if row["outcome"] == "interrupted"}  # fmt: skip
    assert cut == dict.fromkeys(("t2", "t3", "t4", "t5"), "the runner died")
    assert shown["outcomes"] == {"succeeded": 2, "interrupted": 4}
    assert "died" in fleet.run("history", "--runs").stdout


def test_a_run_of_another_slot_names_what_was_cut_off_as_well(tmp_path: Path) -> None:
    fleet = killed_in_the_middle(tmp_path)
    other = fleet.run("--json")

    assert other.document["outcomes"] == {"succeeded": 6}
    assert fleet.query("SELECT count(*) FROM executions WHERE outcome = 'interrupted'") == [(4,)]
    fleet.run("--json")
    assert fleet.query("SELECT count(*) FROM executions WHERE outcome = 'interrupted'") == [(4,)]


def test_the_claims_of_a_run_on_another_host_are_held_until_its_lease_ends(
    tmp_path: Path,
) -> None:
    fleet = killed_in_the_middle(tmp_path)
    with closing(sqlite3.connect(fleet.ledger_file)) as ledger:
        ledger.execute(
            "UPDATE runs SET host = 'elsewhere', lease_until = '2999-01-01 00:00:00.000000'"
        )
        ledger.commit()
    held = fleet.run(*AT)
    assert (held.code, held.document["executions"]) == (3, [])

    with closing(sqlite3.connect(fleet.ledger_file)) as ledger:
        ledger.execute(
            "UPDATE runs SET lease_until = '2000-01-01 00:00:00.000000' WHERE host = 'elsewhere'"
        )
        ledger.commit()
    assert fleet.run(*AT).document["outcomes"] == {"succeeded": 4}


def test_a_job_that_ends_the_process_is_named_and_done_by_the_next_run(tmp_path: Path) -> None:
    fleet = small(tmp_path, "import os\n\n@job\ndef work(ctx):\n    os._exit(9)\n", tenants=1)
    assert fleet.run(*AT).code == 9
    fleet.write_job("jobs", "@job\ndef work(ctx): ...\n")
    rest = fleet.run(*AT)

    assert (rest.code, rest.document["outcomes"]) == (0, {"succeeded": 1})
    assert fleet.query("SELECT outcome, reason FROM executions ORDER BY id") == [
        ("interrupted", "the runner died"), ("succeeded", None),
    ]  # fmt: skip
