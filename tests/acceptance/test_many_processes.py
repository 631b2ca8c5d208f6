"""`runner.processes`: what holds for a run holds over all of its processes."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.fleet import finish
from tests.acceptance.joins import ENDLESS
from tests.acceptance.small import go, small, until, written
from tests.acceptance.spreading import AT, RUNNER, noted, on_mariadb, spread
from tests.acceptance.watching import counting_connections
from tests.servers import MariaDB

pytestmark = pytest.mark.xdist_group("many_processes")

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
