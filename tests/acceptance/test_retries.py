"""Attempts that are repeated, and limits that stop a run."""

import signal
from pathlib import Path

from tests.acceptance.fleet import Fleet, finish
from tests.acceptance.small import began, small, until


def make_fleet(folder: Path, source: str, *, tenants: int = 8) -> Fleet:
    tenant_folder = folder / "var" / "tenants"
    tenant_folder.mkdir(parents=True)
    for number in range(tenants):
        (tenant_folder / f"t{number:02}.db").touch()
    config = {"servers": {"files": {"url": "sqlite://", "discover": {"directory": "var/tenants"}}}}
    return Fleet(folder, config, {"work": "from cronrunner import Retry, RetryPolicy\n" + source})


def test_an_attempt_that_asks_is_repeated_and_each_attempt_is_in_the_ledger(
    tmp_path: Path,
) -> None:
    fleet = make_fleet(
        tmp_path,
        """
from datetime import timedelta

@job(retry=RetryPolicy(attempts=3))
def flaky(ctx):
    if ctx.attempt < 3:
        raise Retry("not yet", after=timedelta(milliseconds=50))
    return {"attempt": ctx.attempt}
""",
    )
    finished = fleet.run("run", "--json")

    assert finished.code == 0
    assert {row["attempts"] for row in finished.document["executions"]} == {3}
    assert fleet.query("SELECT attempt, COUNT(*) FROM attempts GROUP BY attempt") == [
        (1, 8),
        (2, 8),
        (3, 8),
    ]
    assert len(finished.log_lines("attempt.failed")) == 16


def test_no_thread_waits_for_a_retry(tmp_path: Path) -> None:
    """With one thread, eight retries of 400 ms come to less than eight times 400 ms."""
    fleet = make_fleet(
        tmp_path,
        """
from datetime import timedelta

@job(retry=RetryPolicy(attempts=2))
def flaky(ctx):
    if ctx.attempt < 2:
        raise Retry("not yet", after=timedelta(milliseconds=400))
""",
    )
    finished = fleet.run("run", "--json", "--concurrency", "1")

    assert finished.code == 0
    assert finished.document["duration_seconds"] < 8 * 0.4


def test_an_error_of_the_job_itself_is_not_repeated(tmp_path: Path) -> None:
    fleet = make_fleet(
        tmp_path, "\n@job(retries=5)\ndef wrong(ctx):\n    raise ValueError('always')\n"
    )
    finished = fleet.run("run", "--json")

    assert {row["attempts"] for row in finished.document["executions"]} == {1}
    assert finished.code == 1


def test_an_error_that_the_policy_names_is_repeated(tmp_path: Path) -> None:
    fleet = make_fleet(
        tmp_path,
        """
from datetime import timedelta

@job(retry=RetryPolicy(attempts=2, wait=timedelta(milliseconds=10), on=(KeyError,)))
def named(ctx):
    raise KeyError("k")
""",
        tenants=1,
    )
    finished = fleet.run("run", "--json")

    assert [row["attempts"] for row in finished.document["executions"]] == [2]
    assert finished.code == 1


BAD = "\n@job\ndef bad(ctx):\n    raise ValueError(f'in {ctx.tenant.name}')\n"


def test_good_canaries_let_the_others_follow(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path, "\n@job\ndef good(ctx):\n    pass\n")
    finished = fleet.run("run", "--json", "--canary", "3")

    assert finished.code == 0
    assert finished.document["outcomes"] == {"succeeded": 8}


def test_a_stopped_run_is_done_by_resume_and_failures_by_only_failed(tmp_path: Path) -> None:
    fleet = make_fleet(
        tmp_path,
        """
import os

@job
def sometimes(ctx):
    if os.environ.get("BROKEN") and ctx.tenant.name in {"t02", "t05"}:
        raise ValueError("broken")
""",
    )
    slot = ("--scheduled-at", "2026-03-01T02:00:00Z")
    first = fleet.run("run", "--json", *slot, env={"BROKEN": "1"})
    same = fleet.run("run", "--json", *slot)
    repeated = fleet.run("run", "--json", "--only-failed", first.document["run"])
    again = fleet.run("run", "--json", "--only-failed", first.document["run"])

    assert (first.code, first.document["outcomes"]) == (1, {"succeeded": 6, "failed": 2})
    assert (same.code, same.document["duplicates"]) == (0, 8)
    assert sorted(tenant for _, tenant in repeated.outcomes) == ["t02", "t05"]
    assert repeated.document["scheduled_at"] == "2026-03-01T02:00:00Z"
    assert (again.code, again.outcomes, again.document["duplicates"]) == (0, {}, 2)


def test_a_run_that_is_not_known_is_named(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path, BAD, tenants=1)
    finished = fleet.run("run", "--resume", "nonsense")

    assert finished.code == 2
    assert "no run 'nonsense'" in finished.stderr


def test_a_retry_that_a_drain_gives_up_was_not_made_and_says_why_the_last_one_failed(
    tmp_path: Path,
) -> None:
    patient = """
        from datetime import timedelta
        from pathlib import Path

        from cronrunner import Retry

        @job(retries=3)
        def work(ctx):
            Path(f"began-{ctx.tenant.name}").touch()
            raise Retry("not yet", after=timedelta(minutes=1))
    """
    fleet = small(tmp_path, patient, tenants=1)
    with fleet.started("run", "--json") as process:
        until(lambda: began(fleet))
        until(lambda: fleet.query("SELECT count(*) FROM attempts") == [(1,)])
        process.send_signal(signal.SIGTERM)
        finished = finish(process)

    row = finished.execution("jobs.work", "t0")
    assert (finished.code, row["outcome"], row["reason"]) == (75, "skipped", "drained")
    assert (row["attempts"], row["error"]) == (1, "Retry: not yet")
    assert fleet.query("SELECT attempt, outcome FROM attempts") == [(1, "failed")]
