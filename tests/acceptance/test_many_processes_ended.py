"""`runner.processes`: what is killed, hangs or gets a signal ends, and the rest goes on."""

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import finish
from tests.acceptance.joins import ENDLESS
from tests.acceptance.small import STUBBORN, WAITING, began, go, small, until, written
from tests.acceptance.spreading import AT, RUNNER, WHO, alive, noted, on_mariadb, spread
from tests.servers import MariaDB

pytestmark = pytest.mark.xdist_group("many_processes")


def test_what_a_process_that_was_killed_was_at_has_failed_and_the_rest_goes_on(
    mariadb: MariaDB, prefix: str, tmp_path: Path
) -> None:
    fleet = on_mariadb(
        tmp_path,
        mariadb,
        prefix,
        WHO
        + f"""
    @job
    def work(ctx):
        note(ctx, "begun")
        if ctx.tenant.name.endswith("00") and not Path("again").exists():
            ctx.connection.execute(text("{ENDLESS}")).scalar()
        time.sleep(0.3)
        ctx.connection.execute(text("INSERT INTO items VALUES (2)"))
        note(ctx, "done")
    """,
        tenants=60,
    )

    def working() -> list[Any]:
        rows = mariadb.process_list()
        return [row for row in rows if row["db"] == f"{prefix}00" and ENDLESS in str(row["info"])]

    with fleet.started("run", "--json") as process:
        until(working)
        (victim,) = {pid for tenant, pid in noted(fleet, "begun") if tenant == f"{prefix}00"}
        os.kill(victim, signal.SIGKILL)
        finished = finish(process)

    until(lambda: not working(), seconds=5.0)
    outcomes = Counter(finished.outcomes.values())
    failed = {tenant for (_, tenant), o in finished.outcomes.items() if o == "failed"}
    errors = {finished.execution("jobs.work", tenant)["error"] for tenant in failed}
    assert errors == {"ProcessDied: signal 9 (SIGKILL)"}
    assert f"{prefix}00" in failed
    assert len(failed) <= 8
    assert outcomes["succeeded"] + outcomes["failed"] == 60
    times = Counter(tenant for tenant, _ in noted(fleet, "begun"))
    assert set(times.values()) == {1}
    succeeded = {tenant for (_, tenant), o in finished.outcomes.items() if o == "succeeded"}
    assert succeeded <= {tenant for tenant, _ in noted(fleet, "done")}
    # It was started again.
    assert len({pid for _, pid in noted(fleet, "begun")}) == 3
    (said,) = [line for line in finished.log_lines() if "a process of the run died" in str(line)]
    assert "signal 9 (SIGKILL)" in json.dumps(said)


def test_jobs_that_take_their_process_down_end_alone_and_are_repeated_if_their_policy_says_so(
    tmp_path: Path,
) -> None:
    fleet = spread(
        tmp_path,
        """
    from cronrunner import RetryPolicy
    from cronrunner.errors import ProcessDied

    POLICY = RetryPolicy(attempts=2, wait=timedelta(milliseconds=10), on=(ProcessDied,))

    @job(name="a")
    def first(ctx):
        note(ctx, "first")

    @job(name="b", retry=POLICY)
    def exits(ctx):
        note(ctx, "exits")
        if ctx.tenant.name == "t1" and not Path("once").exists():
            Path("once").touch()
            os._exit(3)
        if ctx.tenant.name == "t2":
            os._exit(0)

    @job(name="c")
    def last(ctx):
        note(ctx, "last")
    """,
        tenants=6,
        concurrency=2,
    )
    finished = fleet.run("run", "--json")

    wanted = {(job, f"t{n}"): "succeeded" for n in range(6) for job in "abc"}
    assert finished.outcomes == wanted | {("b", "t2"): "failed"}
    assert finished.execution("b", "t2")["error"] == "ProcessDied: exit code 0"
    assert finished.execution("b", "t1")["attempts"] == 2
    # What had ended before is not done again, nor what another process did.
    assert sorted(tenant for tenant, _ in noted(fleet, "first")) == [f"t{n}" for n in range(6)]
    assert sorted(tenant for tenant, _ in noted(fleet, "last")) == [f"t{n}" for n in range(6)]


def test_a_process_in_which_nothing_moves_any_more_dies_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    fleet = spread(
        tmp_path,
        """
    import ctypes

    @job
    def work(ctx):
        if ctx.tenant.name == "t0":
            # In C, and with the interpreter held.
            ctypes.PyDLL(None).sleep(60)
    """,
        concurrency=2,
        grace="1s",
    )
    finished = fleet.run("run", "--json")

    outcomes = {tenant: o for (_, tenant), o in finished.outcomes.items()}
    assert outcomes == {f"t{n}": "succeeded" for n in range(8)} | {"t0": "failed"}
    assert "ProcessDied" in finished.execution("jobs.work", "t0")["error"]


def test_a_thread_that_cannot_be_ended_is_replaced_in_its_process(tmp_path: Path) -> None:
    fleet = spread(
        tmp_path,
        """
    @job(name="a", timeout="200ms")
    def hangs(ctx):
        if ctx.tenant.name in {"t0", "t1", "t2"}:
            time.sleep(60)

    @job(name="b")
    def follows(ctx):
        note(ctx, "follows")
    """,
        concurrency=2,
        grace="500ms",
    )
    finished = fleet.run("run", "--json")

    hung = {("a", f"t{n}"): "stuck" for n in range(3)}
    assert finished.outcomes == {(j, f"t{n}"): "succeeded" for n in range(8) for j in "ab"} | hung
    assert sorted(tenant for tenant, _ in noted(fleet, "follows")) == [f"t{n}" for n in range(8)]
    assert len(finished.log_lines("execution.stuck")) == 3


def test_a_signal_lets_what_runs_end_and_begins_nothing_more_in_any_process(
    tmp_path: Path,
) -> None:
    fleet = small(tmp_path, WAITING, tenants=20, runner=RUNNER)
    with fleet.started(*AT) as process:
        until(lambda: len(began(fleet)) == 4)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        for line in process.stderr:
            if "run.draining" in line:
                assert json.loads(line)["cronrunner"]["running"] == 4
                break
        go(fleet)
        finished = finish(process)
    rest = fleet.run(*AT)

    assert (finished.code, finished.document["outcomes"]) == (75, {"succeeded": 4, "skipped": 16})
    assert (rest.code, rest.document["outcomes"]) == (0, {"succeeded": 16})
    assert set(written(fleet).values()) == {1}


def test_what_does_not_end_within_the_grace_is_cut_off_in_every_process(
    mariadb: MariaDB, prefix: str, tmp_path: Path
) -> None:
    fleet = on_mariadb(
        tmp_path,
        mariadb,
        prefix,
        f"""
        @job
        def join(ctx):
            ctx.connection.execute(text("{ENDLESS}")).scalar()
        """,
        tenants=8,
    )
    config = json.loads(fleet.config.read_text())
    fleet.configure(config | {"runner": {"processes": 2, "grace": "500ms", "concurrency": 4}})

    def working() -> list[Any]:
        rows = [row for row in mariadb.process_list() if str(row["db"]).startswith(prefix)]
        return [row for row in rows if row["command"] == "Query"]

    with fleet.started("run", "--json") as process:
        until(lambda: len(working()) == 4)
        process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        finished = finish(process)

    assert time.monotonic() - sent < 5
    assert (finished.code, finished.document["outcomes"]) == (75, {"interrupted": 4, "skipped": 4})
    until(lambda: not working(), 2.0)


def test_a_second_signal_ends_all_processes_at_once(tmp_path: Path) -> None:
    jobs = WHO + STUBBORN.replace("time.sleep(60)", 'note(ctx, "who"); time.sleep(60)')
    fleet = small(tmp_path, jobs, tenants=8, runner=RUNNER)
    with fleet.started(*AT) as process:
        until(lambda: len(began(fleet)) == 4)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 75
    pids = {pid for _, pid in noted(fleet, "who")}

    assert len(pids) == 2
    until(lambda: not any(alive(pid) for pid in pids), 2.0)


def test_a_run_that_is_killed_leaves_no_process_and_resume_does_the_rest(tmp_path: Path) -> None:
    fleet = spread(
        tmp_path,
        """
    @job
    def work(ctx):
        note(ctx, "who")
        while ctx.tenant.name > "t3" and not Path("go").exists():
            time.sleep(0.01)
        ctx.execute("INSERT INTO done VALUES ('work', :slot)")
    """,
    )
    with fleet.started(*AT) as process:
        until(lambda: len(noted(fleet, "who")) == 8)
        time.sleep(0.3)
        process.kill()
        process.wait(10)
    pids = {pid for _, pid in noted(fleet, "who")}
    until(lambda: not any(alive(pid) for pid in pids), 2.0)
    go(fleet)
    rest = fleet.run("run", "--json", "--resume", "last")

    assert len(pids) == 2
    assert (rest.code, rest.document["outcomes"]) == (0, {"succeeded": 4})
    assert set(written(fleet).values()) == {1}


def test_a_marker_holds_when_its_process_dies_after_the_commit(
    mariadb: MariaDB, prefix: str, tmp_path: Path
) -> None:
    fleet = on_mariadb(
        tmp_path,
        mariadb,
        prefix,
        """
        import os
        from pathlib import Path

        @job(exactly_once=True)
        def add(ctx):
            ctx.connection.execute(text("INSERT INTO items VALUES (2)"))
            if ctx.tenant.name.endswith("1") and not Path("died").exists():
                Path("died").touch()
                # When the commit has been done, and nobody has been told.
                raw = ctx.connection.connection.driver_connection
                commit = raw.commit
                raw.commit = lambda: (commit(), os._exit(9))
            return {"added": 1}
        """,
        tenants=4,
    )
    first = fleet.run(*AT)
    again = fleet.run(*AT, "--again")

    # Its neighbours may have been at it as well.
    assert first.outcomes["jobs.add", f"{prefix}01"] == "failed"
    assert Counter(again.outcomes.values()) == {"succeeded": 4}
    assert again.execution("jobs.add", f"{prefix}01")["reason"] == "recovered"
    for number in range(4):
        assert mariadb.execute(f"SELECT COUNT(*) FROM {prefix}{number:02}.items") == [(2,)]
