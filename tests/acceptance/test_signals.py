"""SIGTERM and CTRL-C: nothing new begins, what runs may end, everything is recorded."""

import signal
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from subprocess import Popen

import pytest

from tests.acceptance.fleet import Finished, Fleet, finish
from tests.acceptance.small import SLOT, STUBBORN, WAITING, began, go, moment, small, until, written
from tests.acceptance.test_run import is_document

AT = ("run", "--json", "--scheduled-at", SLOT)


def outcomes(finished: Finished) -> dict[str, int]:
    counts: dict[str, int] = finished.document["outcomes"]
    return counts


def has_opened(process: Popen[str], file: Path) -> bool:
    found = False
    for each in Path(f"/proc/{process.pid}/fd").iterdir():
        # It may be closed again by now.
        with suppress(OSError):
            found = found or each.samefile(file)
    return found


def drained(fleet: Fleet, process: Popen[str]) -> None:
    """Wait until the process says that it drains."""
    assert process.stderr is not None
    for line in process.stderr:
        if "run.draining" in line:
            return
    raise AssertionError("it does not drain")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_runs_end_and_begins_nothing_more(
    tmp_path: Path, number: signal.Signals
) -> None:
    fleet = small(tmp_path, WAITING, tenants=8)
    with fleet.started(*AT) as process:
        until(lambda: len(began(fleet)) == 2)
        process.send_signal(number)
        sent = time.time()
        drained(fleet, process)
        go(fleet)
        finished = finish(process)

    is_document(finished, 75)
    # What had begun ended well; all the others are recorded as left out, and none began.
    assert outcomes(finished) == {"succeeded": 2, "skipped": 6}
    assert sum(written(fleet).values()) == 2
    left = [row for row in finished.document["executions"] if row["outcome"] == "skipped"]
    assert {row["reason"] for row in left} == {"drained"}
    assert len(began(fleet)) == 2
    started = [moment(row["started_at"]).timestamp() for row in finished.document["executions"]
               if row["outcome"] == "succeeded"]  # fmt: skip
    assert max(started) < sent + 0.1

    # The same slot is then completed, and only what was left.
    rest = fleet.run(*AT)
    assert (rest.code, outcomes(rest), rest.document["duplicates"]) == (0, {"succeeded": 6}, 2)
    assert set(written(fleet).values()) == {1}


def test_a_signal_before_the_run_has_begun_records_all_of_it_as_left(tmp_path: Path) -> None:
    fleet = small(tmp_path, WAITING, tenants=3)
    fleet.ledger_file.parent.mkdir()
    with closing(sqlite3.connect(fleet.ledger_file, isolation_level=None)) as ledger:
        ledger.execute("BEGIN EXCLUSIVE")
        with fleet.started(*AT) as process:
            until(lambda: has_opened(process, fleet.ledger_file))
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            ledger.execute("ROLLBACK")
            finished = finish(process)

    is_document(finished, 75)
    assert outcomes(finished) == {"skipped": 3}
    assert not began(fleet)
    go(fleet)
    assert outcomes(fleet.run("run", "--json", "--resume", "last")) == {"succeeded": 3}


@pytest.mark.parametrize("processes", [1, 2])
def test_nothing_begins_anywhere_later_than_100_ms_after_the_signal(
    tmp_path: Path, processes: int
) -> None:
    quick = """
        import time
        from pathlib import Path

        @job
        def work(ctx):
            with Path("began.log").open("a") as log:
                log.write(f"{time.time()}\\n")
            time.sleep(0.01)
    """
    runner = {"processes": processes, "concurrency": 2 * processes, "heartbeat": "200ms"}
    fleet = small(tmp_path, quick, tenants=400, runner={**runner, "lease": "20s"})
    log = tmp_path / "began.log"
    with fleet.started(*AT) as process:
        until(lambda: log.exists() and len(log.read_text().splitlines()) > 20)
        sent = time.time()
        process.send_signal(signal.SIGTERM)
        finished = finish(process)

    begun = [float(line) for line in log.read_text().splitlines()]
    assert finished.code == 75
    assert max(begun) < sent + 0.1
    assert sum(outcomes(finished).values()) == 400
    assert outcomes(finished)["succeeded"] == len(begun)


def test_what_does_not_end_within_the_grace_is_cut_off(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        STUBBORN,
        runner={"concurrency": 2, "grace": "500ms", "heartbeat": "200ms", "lease": "20s"},
    )
    with fleet.started(*AT) as process:
        until(lambda: len(began(fleet)) == 2)
        process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        finished = finish(process)

    assert time.monotonic() - sent < 5
    is_document(finished, 75)
    found = outcomes(finished)
    # Python that sleeps cannot be ended: whoever notices first says so.
    assert found.get("interrupted", 0) + found.get("stuck", 0) == 2
    assert found["skipped"] == 1
    # The ledger says the same, and the work is free for the next run.
    assert dict(fleet.query("SELECT outcome, count(*) FROM executions GROUP BY outcome")) == found
    fleet.write_job("jobs", "@job\ndef work(ctx): ...\n")
    assert outcomes(fleet.run(*AT)) == {"succeeded": 3}


def test_a_second_signal_ends_at_once_and_the_next_run_knows_what_was_left(
    tmp_path: Path,
) -> None:
    fleet = small(tmp_path, STUBBORN)
    with fleet.started(*AT) as process:
        until(lambda: len(began(fleet)) == 2)
        process.send_signal(signal.SIGTERM)
        drained(fleet, process)
        sent = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 75
        assert time.monotonic() - sent < 1

    fleet.write_job("jobs", "@job\ndef work(ctx): ...\n")
    rest = fleet.run(*AT)
    assert (rest.code, outcomes(rest)) == (0, {"succeeded": 3})
    assert "interrupted" in rest.stderr
    # Two were under way, and one was claimed and waited for its turn.
    assert ("interrupted", 3) in fleet.query(
        "SELECT outcome, count(*) FROM executions GROUP BY outcome"
    )


def test_a_signal_when_all_has_begun_leaves_no_work_and_is_0(tmp_path: Path) -> None:
    fleet = small(tmp_path, WAITING, tenants=2)
    with fleet.started(*AT) as process:
        until(lambda: len(began(fleet)) == 2)
        process.send_signal(signal.SIGTERM)
        drained(fleet, process)
        go(fleet)
        finished = finish(process)

    is_document(finished, 0)
    assert outcomes(finished) == {"succeeded": 2}


def test_a_summary_that_a_signal_left_out_is_work_that_is_left(tmp_path: Path) -> None:
    summarised = WAITING.replace(
        "@job", "@job(summarize=lambda ctx: {'n': len(list(ctx.results()))})"
    )
    fleet = small(tmp_path, summarised, tenants=2)
    with fleet.started(*AT) as process:
        until(lambda: len(began(fleet)) == 2)
        process.send_signal(signal.SIGTERM)
        drained(fleet, process)
        go(fleet)
        finished = finish(process)

    is_document(finished, 75)
    assert finished.execution("jobs.work:summarize", "")["outcome"] == "skipped"
    rest = fleet.run(*AT)
    assert rest.code == 0
    assert rest.execution("jobs.work:summarize", "")["counters"] == {"n": 2}


def test_a_delay_for_debugging_does_not_hold_up_a_drain(tmp_path: Path) -> None:
    fleet = small(tmp_path, tenants=4)
    config = fleet.config.read_text(encoding="utf-8").rstrip().removesuffix("}")
    fleet.configure(config + ', "tenants": {"*": {"debug_delay": "60s"}}}')
    with fleet.started(*AT) as process:
        until(lambda: fleet.ledger_file.exists()
              and fleet.query("SELECT 1 FROM sqlite_master WHERE name = 'claims'")
              and len(fleet.query("SELECT * FROM claims")) == 4)  # fmt: skip
        process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        finished = finish(process)

    assert time.monotonic() - sent < 10
    assert finished.code == 75
    assert sum(outcomes(finished).values()) == 4
