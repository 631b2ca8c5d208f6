"""`runner.processes`: what holds for a run holds over all of its processes."""

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import Fleet, finish
from tests.acceptance.joins import ENDLESS
from tests.acceptance.small import SLOT, STUBBORN, WAITING, began, go, small, until, written
from tests.acceptance.watching import counting_connections
from tests.servers import MariaDB

pytestmark = pytest.mark.xdist_group("many_processes")

AT = ("run", "--json", "--scheduled-at", SLOT)
RUNNER = {"processes": 2, "concurrency": 4, "heartbeat": "200ms", "lease": "20s"}

#: The processes of a run write who they are, and a name of their own for each execution.
_WHO = """
    import os
    import time
    from datetime import timedelta
    from pathlib import Path

    from cronrunner import Retry

    def note(ctx, name):
        with Path(f"{name}.log").open("a") as log:
            log.write(f"{ctx.tenant.name} {os.getpid()}\\n")
"""


def noted(fleet: Fleet, name: str) -> list[tuple[str, int]]:
    """Read what jobs have noted: tenant and process."""
    path = fleet.folder / f"{name}.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line.split()[0], int(line.split()[1])) for line in lines]


def spread(folder: Path, jobs: str, *, tenants: int = 8, **runner: Any) -> Fleet:
    return small(folder, _WHO + jobs, tenants=tenants, runner=RUNNER | runner)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


MIXED = """
    @job(timeout="1s")
    def a_slow(ctx):
        if ctx.tenant.name.endswith("3"):
            ctx.connection.execute(text("SELECT SLEEP(30)"))

    @job
    def b_fails(ctx):
        if ctx.tenant.name.endswith("5"):
            ctx.connection.execute(text("SELECT * FROM nothing"))
        ctx.log.info("looking", weight=3)
        return {"rows": ctx.connection.execute(text("SELECT COUNT(*) FROM items")).scalar_one()}

    @job
    def c_skips(ctx):
        if ctx.tenant.name.endswith("7"):
            raise Skip("no need")
"""


def on_mariadb(
    folder: Path, mariadb: MariaDB, prefix: str, jobs: str, *, tenants: int, **server: Any
) -> Fleet:
    mariadb.create_databases(
        [f"{prefix}{number:02}" for number in range(tenants)],
        "CREATE TABLE items (id INT)",
        "INSERT INTO items VALUES (1)",
    )
    main = {"url": mariadb.url(database=""), "discover": {"databases": f"{prefix}*"}}
    config = {
        "servers": {"main": main | server},
        "runner": {"processes": 2, "grace": "5s"},
        "metrics": {"textfile": "metrics.prom"},
    }
    return Fleet(folder, config, {"jobs": jobs})


def test_results_are_those_of_one_process_and_are_counted_alike_three_ways(
    mariadb: MariaDB, prefix: str, tmp_path: Path
) -> None:
    fleet = on_mariadb(tmp_path, mariadb, prefix, MIXED, tenants=20)
    two = fleet.run("run", "--json")
    config = json.loads(fleet.config.read_text())
    fleet.configure(config | {"runner": {"processes": 1, "grace": "5s"}})
    one = fleet.run("run", "--json")

    assert two.outcomes == one.outcomes
    assert Counter(two.outcomes.values()) == {
        "succeeded": 54, "timed_out": 2, "failed": 2, "skipped": 2,
    }  # fmt: skip
    kept = ("job", "tenant", "reason", "error", "attempts", "counters")
    both = [
        sorted(([row[name] for name in kept] for row in each.document["executions"]), key=str)
        for each in (two, one)
    ]
    assert both[0] == both[1]
    lines = Counter(line["event"]["outcome"] for line in two.log_lines("execution.finished"))
    run = two.document["run"]
    ledger = fleet.query("SELECT COUNT(*) FROM executions WHERE run = ?", run)
    assert sum(lines.values()) == ledger[0][0] == 60
    said = [line for line in two.log_lines() if line["message"] == "looking"]
    assert len({line["cronrunner"]["tenant"] for line in said}) == len(said) == 18
    metrics = (tmp_path / "metrics.prom").read_text()
    counted = [
        float(line.split()[-1])
        for line in metrics.splitlines()
        if line.startswith("cronrunner_job_executions_total{")
    ]
    assert sum(counted) == 120
    assert 'cronrunner_kills_total{killed="statement"} 4.0' in metrics


def test_the_limit_of_a_server_holds_over_all_processes(
    mariadb: MariaDB, prefix: str, tmp_path: Path
) -> None:
    """The server itself refuses one more, but for one that has only just ended."""
    mariadb.create_user("spread", "strict", max_user_connections=6)
    fleet = on_mariadb(
        tmp_path,
        mariadb,
        prefix,
        """
        @job(name="a", timeout="300ms")
        def late(ctx):
            ctx.connection.execute(text("SELECT SLEEP(0.02)"))
            if ctx.tenant.name.endswith("3"):
                ctx.connection.execute(text("SELECT SLEEP(30)"))

        @job(name="b")
        def short(ctx):
            ctx.connection.execute(text("SELECT SLEEP(0.01)"))
        """,
        tenants=40,
        url=mariadb.url("spread", "strict"),
        max_connections=5,
    )
    with counting_connections(mariadb, "spread") as counts:
        finished = fleet.run("run", "--json")

    assert Counter(finished.outcomes.values()) == {"succeeded": 76, "timed_out": 4}
    assert 3 <= max(counts) <= 5


def test_a_deadline_ends_a_statement_of_any_process(
    mariadb: MariaDB, prefix: str, tmp_path: Path
) -> None:
    fleet = on_mariadb(
        tmp_path,
        mariadb,
        prefix,
        f"""
        @job(timeout="1s")
        def join(ctx):
            ctx.connection.execute(text("{ENDLESS}")).scalar()
        """,
        tenants=4,
    )
    finished = fleet.run("run", "--json")
    left = [row for row in mariadb.process_list() if str(row["db"]).startswith(prefix)]

    assert set(finished.outcomes.values()) == {"timed_out"}
    assert all(row["duration_seconds"] < 3 for row in finished.document["executions"])
    assert left == []


def test_what_a_process_that_was_killed_was_at_has_failed_and_the_rest_goes_on(
    mariadb: MariaDB, prefix: str, tmp_path: Path
) -> None:
    fleet = on_mariadb(
        tmp_path,
        mariadb,
        prefix,
        _WHO
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


def test_visits_are_spread_over_processes_each_on_a_cpu_of_its_own(tmp_path: Path) -> None:
    fleet = spread(
        tmp_path,
        """
    @job
    def work(ctx):
        note(ctx, "who")
        time.sleep(0.05)
        (cpu,) = os.sched_getaffinity(0)
        return {"cpu": cpu}
    """,
        tenants=40,
    )
    finished = fleet.run("run", "--json")

    shares = Counter(pid for _, pid in noted(fleet, "who"))
    assert len(shares) == 2
    assert min(shares.values()) >= 12
    cpus = {row["counters"]["cpu"] for row in finished.document["executions"]}
    assert len(cpus) == min(2, len(os.sched_getaffinity(0)))


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
    jobs = _WHO + STUBBORN.replace("time.sleep(60)", 'note(ctx, "who"); time.sleep(60)')
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


def test_two_runs_on_one_slot_do_each_execution_once_between_them(tmp_path: Path) -> None:
    fleet = spread(
        tmp_path,
        """
    @job
    def work(ctx):
        time.sleep(0.02)
        ctx.execute("INSERT INTO done VALUES ('work', :slot)")
    """,
        tenants=40,
    )
    with fleet.started(*AT) as one, fleet.started(*AT) as two:
        both = [finish(one), finish(two)]

    assert {each.code for each in both} <= {0, 3}
    assert sum(each.document["outcomes"].get("succeeded", 0) for each in both) == 40
    assert set(written(fleet).values()) == {1}


def test_repetitions_and_the_limit_of_failures_are_counted_over_all_processes(
    tmp_path: Path,
) -> None:
    fleet = spread(
        tmp_path,
        """
    @job(name="again", retries=3)
    def again(ctx):
        note(ctx, "again")
        if len(Path("again.log").read_text().split(ctx.tenant.name + " ")) < 4:
            raise Retry("not yet", after=timedelta(milliseconds=20))

    @job(name="fails", enabled=False)
    def fails(ctx):
        raise ValueError(ctx.tenant.name)
    """,
        tenants=40,
    )
    repeated = fleet.run("run", "--json")
    config = json.loads(fleet.config.read_text())
    fleet.configure(config | {"jobs": {"fails": {"enabled": True}, "again": {"enabled": False}}})
    stopped = fleet.run("run", "--json", "--max-failures=5")

    assert repeated.document["outcomes"] == {"succeeded": 40}
    assert {row["attempts"] for row in repeated.document["executions"]} == {3}
    assert stopped.code == 5
    # Four are at it when the fifth one fails.
    assert 5 <= stopped.document["outcomes"]["failed"] <= 5 + 4
    assert sum(stopped.document["outcomes"].values()) == 40


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


#: Says where it is, and what it was given.
TELLING = """
    import multiprocessing
    import os
    import time

    def where():
        parent = multiprocessing.parent_process()
        return 0 if parent is None else parent.pid

    def prices(ctx):
        return {"parent": where()}

    def total(ctx):
        rows = list(ctx.results())
        return {"parent": where(), "sum": sum(row["counters"]["prepared"] for row in rows)}

    @job(name="a", prepare=prices, summarize=total)
    def near(ctx):
        print("on stdout")
        return {"parent": where(), "prepared": ctx.prepared["parent"] + 1, "me": os.getpid()}

    @job(name="b", isolation="process")
    def apart(ctx):
        return {"parent": where()}

    @job(name="c", scope="fleet")
    def fleet(ctx):
        return {"parent": where()}
"""


def test_what_is_done_once_is_done_by_the_run_and_what_is_isolated_in_a_process_of_its_own(
    tmp_path: Path,
) -> None:
    fleet = small(tmp_path, TELLING, tenants=6, runner=RUNNER)
    finished = fleet.run("run", "--json")

    counters = {
        (row["job"], row["tenant"]): row["counters"] for row in finished.document["executions"]
    }
    assert set(finished.outcomes.values()) == {"succeeded"}
    run = counters["a", "t0"]["parent"]
    assert run
    assert counters["c", ""] == {"parent": 0}
    assert counters["a:summarize", ""] == {"parent": 0, "sum": 6}
    mine = {counters["a", f"t{n}"]["me"] for n in range(6)}
    assert {counters["b", f"t{n}"]["parent"] for n in range(6)} == mine
    assert len(mine) == 2


def test_a_dry_run_changes_nothing_in_any_process(tmp_path: Path) -> None:
    fleet = spread(
        tmp_path,
        """
    @job
    def work(ctx):
        ctx.execute("INSERT INTO done VALUES ('work', :slot)")
        return {"rows": 1}
    """,
    )
    finished = fleet.run("run", "--dry-run", "--json")

    assert set(finished.outcomes.values()) == {"succeeded"}
    assert {row["rows_changed"] for row in finished.document["executions"]} == {1}
    assert set(written(fleet).values()) == {0}


def test_lines_of_jobs_stay_whole_and_hide_secrets(tmp_path: Path) -> None:
    fleet = spread(
        tmp_path,
        """
    @job
    def work(ctx):
        for number in range(20):
            ctx.log.info("long", number=number, text="x" * 30_000 + os.environ["MY_TOKEN"])
    """,
    )
    with fleet.started("run", "--json", env={"MY_TOKEN": "planted-secret"}) as process:
        finished = finish(process)

    lines = [json.loads(line) for line in finished.stderr.splitlines()]
    said = Counter(
        (line["cronrunner"]["tenant"], line["labels"]["number"])
        for line in lines
        if line["message"] == "long"
    )
    assert len(said) == sum(said.values()) == 8 * 20
    assert "planted-secret" not in finished.stderr


def test_a_configuration_that_was_changed_meanwhile_is_not_mixed_with_the_old_one(
    tmp_path: Path,
) -> None:
    fleet = spread(
        tmp_path,
        """
    @job
    def work(ctx):
        note(ctx, "who")
        while not Path("go").exists():
            time.sleep(0.01)
        time.sleep(0.3)
    """,
        tenants=24,
    )
    with fleet.started("run", "--json") as process:
        until(lambda: len(noted(fleet, "who")) == 4)
        config = json.loads(fleet.config.read_text())
        fleet.configure(config | {"log": {"level": "warning"}})
        os.kill(noted(fleet, "who")[0][1], signal.SIGKILL)
        go(fleet)
        finished = finish(process)

    # The process that was left has done the rest.
    assert finished.document["outcomes"] == {"succeeded": 22, "failed": 2}
    assert "was changed while the run lasted" in finished.stderr
