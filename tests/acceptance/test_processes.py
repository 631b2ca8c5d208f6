"""Isolated jobs on a real server: what blocks in C or kills its process ends alone."""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import Finished, Fleet, finish
from tests.acceptance.joins import ENDLESS
from tests.acceptance.small import SLOT, began, go, small, until, written
from tests.servers import MariaDB

pytestmark = pytest.mark.xdist_group("processes")

JOBS = (
    f"""
    ENDLESS = "{ENDLESS}"
"""
    """
    import ctypes
    import os
    import re
    import signal
    import time
    from pathlib import Path

    @job(name="a.join", timeout="2s", tenants="*_join", isolation="process")
    def join(ctx):
        ctx.connection.execute(text(ENDLESS)).scalar()

    @job(name="a.returns", timeout="2s", tenants="*_returns", isolation="process")
    def returns(ctx):
        # SLEEP ends as if nothing had happened when it is killed.
        ctx.connection.execute(text("INSERT INTO items VALUES (7, 7)"))
        ctx.connection.execute(text("SELECT SLEEP(30)"))

    @job(name="a.silent", timeout="2s", tenants="*_silent", isolation="process")
    def silent(ctx):
        # In C, and with the interpreter held.
        ctx.connection.execute(text("UPDATE items SET done = 7"))
        ctypes.PyDLL(None).sleep(60)

    @job(name="a.regex", timeout="2s", tenants="*_regex", isolation="process")
    def regex(ctx):
        Path("regex.pid").write_text(str(os.getpid()))
        re.match(r"(a+)+$", "a" * 60 + "b")

    @job(name="a.exit", tenants="*_exit", isolation="process")
    def leave(ctx):
        ctx.connection.execute(text("UPDATE items SET done = 7"))
        os._exit(3)

    @job(name="a.nothing", tenants="*_nothing", isolation="process")
    def leave_well(ctx):
        os._exit(0)

    @job(name="a.segfault", tenants="*_segfault", isolation="process")
    def crash(ctx):
        ctypes.string_at(0)

    @job(name="a.memory", tenants="*_memory", isolation="process")
    def starve(ctx):
        # As the kernel does when memory is short.
        os.kill(os.getpid(), signal.SIGKILL)

    @job(name="b.count", isolation="process")
    def count(ctx):
        ctx.log.info("counting", weight=3)
        return {"rows": ctx.connection.execute(text("SELECT COUNT(*) FROM items")).scalar_one()}

    @job(name="c.near")
    def near(ctx):
        if ctx.tenant.name.endswith("_regex"):
            return {"alive": int(Path("/proc", Path("regex.pid").read_text()).exists())}
        return {"rows": ctx.connection.execute(text("SELECT COUNT(*) FROM items")).scalar_one()}
"""
)

HARMFUL = {
    "a.join": ("timed_out", "the job's timeout of 2s is over"),
    "a.returns": ("timed_out", "the job's timeout of 2s is over"),
    "a.silent": ("timed_out", "the job's timeout of 2s is over"),
    "a.regex": ("timed_out", "the job's timeout of 2s is over"),
    "a.exit": ("failed", "ProcessDied: exit code 3"),
    "a.nothing": ("failed", "ProcessDied: exit code 0"),
    "a.segfault": ("failed", "ProcessDied: signal 11 (SIGSEGV)"),
    "a.memory": ("failed", "ProcessDied: signal 9 (SIGKILL)"),
}


def make_fleet(
    folder: Path, mariadb: MariaDB, prefix: str, names: list[str], **server: Any
) -> Fleet:
    mariadb.create_databases(
        [prefix + name for name in names],
        "CREATE TABLE items (id INT, done INT)",
        "INSERT INTO items VALUES (1, 0)",
    )
    main = {"url": mariadb.url(database=""), "discover": {"databases": f"{prefix}*"}}
    config = {
        "servers": {"main": main | {"max_connections": 5} | server},
        "runner": {"grace": "5s"},
    }
    return Fleet(folder, config, {"harm": JOBS})


@pytest.fixture(scope="module")
def night(mariadb: MariaDB, tmp_path_factory) -> tuple[Finished, MariaDB, list[dict[str, Any]]]:
    """One run over tenants of which half have a job that does harm."""
    names = [job.removeprefix("a.") for job in HARMFUL] + [f"well_{n}" for n in range(8)]
    fleet = make_fleet(tmp_path_factory.mktemp("apart"), mariadb, "apart_", names)
    finished = fleet.run("run", "--json")
    # The server notices a moment later that a process is gone.
    ended = time.monotonic()
    while (left := _sessions(mariadb)) and time.monotonic() < ended + 2:
        time.sleep(0.02)
    return finished, mariadb, left


def _sessions(mariadb: MariaDB) -> list[dict[str, Any]]:
    return [row for row in mariadb.process_list() if str(row["db"]).startswith("apart_")]


@pytest.mark.parametrize("job", HARMFUL)
def test_harm_ends_as_the_outcome_of_its_own_execution(night, job: str) -> None:
    finished, _, _ = night
    outcome, error = HARMFUL[job]
    execution = finished.execution(job, "apart_" + job.removeprefix("a."))

    assert (execution["outcome"], error in execution["error"]) == (outcome, True), execution
    if outcome == "timed_out":
        assert 2.0 <= execution["duration_seconds"] < 4.0


def test_the_neighbours_and_the_rest_of_each_visit_are_unaffected(night) -> None:
    finished, _, _ = night
    others = [o for (job, _), o in finished.outcomes.items() if job in {"b.count", "c.near"}]

    assert len(others) == 2 * 16
    assert set(others) == {"succeeded"}
    assert finished.code == 1


def test_the_process_of_what_was_timed_out_is_gone_while_the_run_goes_on(night) -> None:
    finished, _, _ = night

    assert finished.execution("c.near", "apart_regex")["counters"] == {"alive": 0}


def test_a_process_that_died_is_a_cause_of_its_own(night) -> None:
    finished, _, _ = night
    causes = {each["cause"]: each["count"] for each in finished.document["causes"]}

    assert causes.pop("DeadlineError: the job's timeout of #s is over", 4) == 4
    assert {cause for cause in causes if cause.startswith("ProcessDied")} == {
        error for outcome, error in HARMFUL.values() if outcome == "failed"
    }


def test_a_crash_leaves_its_stack_on_stderr(night) -> None:
    finished, _, _ = night

    assert "Fatal Python error: Segmentation fault" in finished.stderr
    assert "harm.py" in finished.stderr.partition("Segmentation fault")[2]


def test_nothing_of_it_is_left_on_the_server_and_what_it_had_written_is_rolled_back(night) -> None:
    _, mariadb, left = night

    assert left == []
    for name in ("silent", "exit"):
        assert mariadb.execute(f"SELECT done FROM apart_{name}.items") == [(0,)]
    assert mariadb.execute("SELECT COUNT(*) FROM apart_returns.items") == [(1,)]


def test_the_log_of_a_process_bears_the_words_of_its_execution_and_each_event_once(night) -> None:
    finished, _, _ = night
    said = [line for line in finished.log_lines() if line["message"] == "counting"]
    ended = finished.log_lines("execution.finished")

    assert sorted(line["cronrunner"]["tenant"] for line in said) == sorted(
        tenant for job, tenant in finished.outcomes if job == "b.count"
    )
    assert {(line["cronrunner"]["job"], line["labels"]["weight"]) for line in said} == {
        ("b.count", 3)
    }
    assert len(ended) == len(finished.outcomes)


def test_a_process_takes_the_place_of_its_visit_s_connection(mariadb: MariaDB, tmp_path) -> None:
    """The server itself refuses one connection more than the run may have."""
    mariadb.create_user("strict", "strict", max_user_connections=3)
    url = (
        mariadb.url(database="")
        .replace(mariadb.admin, "strict")
        .replace(mariadb.password, "strict")
    )
    names = [str(number) for number in range(6)]
    fleet = make_fleet(tmp_path, mariadb, "strict_", names, url=url, max_connections=3)
    fleet.write_job(
        "harm",
        """
        @job(name="a.near")
        def near(ctx):
            ctx.connection.execute(text("SELECT SLEEP(0.05)"))

        @job(name="b.far", isolation="process")
        def far(ctx):
            ctx.connection.execute(text("SELECT SLEEP(0.05)"))

        @job(name="c.near")
        def again(ctx):
            ctx.connection.execute(text("SELECT SLEEP(0.05)"))
        """,
    )
    finished = fleet.run("run", "--json")

    assert set(finished.outcomes.values()) == {"succeeded"}, finished.stdout
    assert len(finished.outcomes) == 18


def test_the_statement_of_a_process_that_was_killed_by_others_is_ended(
    mariadb: MariaDB, tmp_path
) -> None:
    fleet = make_fleet(tmp_path, mariadb, "oom_", ["one", "two"])
    fleet.write_job(
        "harm",
        f"""
        import os
        from pathlib import Path

        @job(tenants="oom_one", isolation="process")
        def join(ctx):
            Path("pid").write_text(str(os.getpid()))
            ctx.connection.execute(text("{ENDLESS}")).scalar()
        """,
    )

    def working() -> list[Any]:
        rows = mariadb.process_list()
        return [row for row in rows if row["db"] == "oom_one" and row["command"] == "Query"]

    with fleet.started("run", "--json") as process:
        until(working)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        finished = finish(process)

    until(lambda: not working(), seconds=5.0)
    (outcome,) = finished.outcomes.values()
    assert outcome == "failed"


def test_a_marker_is_written_by_the_process(mariadb: MariaDB, tmp_path) -> None:
    fleet = make_fleet(tmp_path, mariadb, "once_", ["one"])
    fleet.write_job(
        "harm",
        """
        @job(exactly_once=True, isolation="process")
        def add(ctx):
            ctx.connection.execute(text("INSERT INTO items VALUES (2, 0)"))
            return {"added": 1}
        """,
    )
    first = fleet.run("run", "--scheduled-at", SLOT, "--json")
    second = fleet.run("run", "--scheduled-at", SLOT, "--again", "--json")

    assert first.execution("harm.add", "once_one")["outcome"] == "succeeded"
    again = second.execution("harm.add", "once_one")
    assert (again["outcome"], again["reason"]) == ("succeeded", "recovered")
    assert again["counters"] == {"added": 1}
    assert mariadb.execute("SELECT COUNT(*) FROM once_one.items") == [(2,)]


PROCESS = {"concurrency": 2, "isolation": "process"}

#: Says where it is, and what it was given.
TELLING = """
    import multiprocessing
    import os
    import sys
    from datetime import timedelta

    from cronrunner import Retry

    def apart():
        return int(multiprocessing.parent_process() is not None)

    def prices(ctx):
        return {"apart": apart()}

    def total(ctx):
        rows = list(ctx.results())
        return {"apart": apart(), "sum": sum(row["counters"]["apart"] for row in rows)}

    @job(name="apart", isolation="process", prepare=prices, summarize=total, options={"weight": 1})
    def tell(ctx):
        return {
            "apart": apart(),
            "prepared": ctx.prepared["apart"],
            "cpus": len(os.sched_getaffinity(0)),
            "weight": ctx.options["weight"],
        }

    @job(name="near", isolation="thread")
    def near(ctx):
        return {"apart": apart(), "pebble": int("pebble" in sys.modules)}

    @job(name="silent")
    def silent(ctx):
        return {"apart": apart()}

    @job(name="fleet", scope="fleet", isolation="process")
    def fleet(ctx):
        return {"apart": apart()}

    @job(name="again", isolation="process", retries=1)
    def again(ctx):
        if ctx.attempt == 1:
            raise Retry("once more", after=timedelta(milliseconds=100))
        return {"attempt": ctx.attempt}
"""


@pytest.mark.one_process("it compares the process of an attempt with that of the run")
def test_a_job_is_performed_where_it_is_declared_to_be(tmp_path) -> None:
    fleet = small(tmp_path, TELLING, tenants=2)
    config = json.loads(fleet.config.read_text())
    fleet.configure(config | {"jobs": {"apart": {"options": {"weight": 5}}}})
    finished = fleet.run("run", "--json")

    def counters(job: str, tenant: str) -> dict[str, int]:
        found: dict[str, int] = finished.execution(job, tenant)["counters"]
        return found

    assert set(finished.outcomes.values()) == {"succeeded"}, finished.stderr
    assert counters("apart", "t0") == {
        "apart": 1, "prepared": 1, "weight": 5, "cpus": len(os.sched_getaffinity(0)),
    }  # fmt: skip
    assert counters("apart:summarize", "") == {"apart": 1, "sum": 2}
    assert counters("near", "t0")["apart"] == 0
    assert counters("silent", "t0") == {"apart": 0}
    assert counters("fleet", "") == {"apart": 1}
    assert counters("again", "t1") == {"attempt": 2}


@pytest.mark.one_process("it compares the process of an attempt with that of the run")
def test_the_configuration_decides_for_all_for_a_job_and_for_a_tenant(tmp_path) -> None:
    fleet = small(tmp_path, TELLING, tenants=2)
    config = json.loads(fleet.config.read_text()) | {
        "runner": PROCESS,
        "jobs": {"apart": {"isolation": "thread"}},
        "tenants": {"t1": {"jobs": {"apart": {"isolation": "process"}}}},
    }
    fleet.configure(config)
    finished = fleet.run("run", "--json")
    rows = finished.document["executions"]
    apart = {(row["job"], row["tenant"]): row["counters"].get("apart") for row in rows}

    assert (apart["apart", "t0"], apart["apart", "t1"]) == (0, 1)
    assert (apart["silent", "t0"], apart["near", "t0"]) == (1, 0)


def test_a_run_without_isolated_jobs_starts_no_process_and_loads_nothing_for_one(tmp_path) -> None:
    finished = small(tmp_path, TELLING, tenants=1).run("run", "near", "--json")

    assert finished.execution("near", "t0")["counters"] == {"apart": 0, "pebble": 0}


def test_a_job_in_sql_is_isolated_by_its_header(tmp_path) -> None:
    sql = "-- isolation: process\nINSERT INTO done VALUES (:tenant, :slot);\n"
    witness = """
        import multiprocessing
        from pathlib import Path

        if multiprocessing.parent_process() is not None:
            Path("apart").touch()
    """
    fleet = small(tmp_path, {"insert.sql": sql, "witness": witness}, tenants=2)
    finished = fleet.run("run", "--json")

    assert set(finished.outcomes.values()) == {"succeeded"}
    assert written(fleet) == {"t0": 1, "t1": 1}
    assert (tmp_path / "apart").exists()


#: As the waiting job of ``small``, and says who it is.
WAITING = """
    import os
    import time
    from pathlib import Path

    @job
    def work(ctx):
        Path(f"began-{ctx.tenant.name}").write_text(str(os.getpid()))
        while not Path("go").exists():
            time.sleep(0.005)
        ctx.execute("INSERT INTO done VALUES ('work', :slot)")
"""


def pids(fleet: Fleet) -> list[int]:
    written = (path.read_text() for path in fleet.folder.glob("began-*"))
    return [int(pid) for pid in written if pid]


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize("whole_group", [False, True])
def test_a_drain_lets_a_process_finish_within_the_grace(tmp_path, whole_group: bool) -> None:
    fleet = small(tmp_path, WAITING, tenants=1, runner=PROCESS | {"grace": "20s"})
    with fleet.started("run", "--json") as process:
        until(lambda: pids(fleet))
        process.terminate()
        if whole_group:
            # As a service manager does, and as a terminal does with SIGINT.
            os.kill(pids(fleet)[0], signal.SIGTERM)
            os.kill(pids(fleet)[0], signal.SIGINT)
        time.sleep(0.3)
        go(fleet)
        finished = finish(process)

    assert set(finished.outcomes.values()) == {"succeeded"}
    assert written(fleet) == {"t0": 1}


def test_a_drain_kills_what_goes_on_after_the_grace(tmp_path) -> None:
    fleet = small(tmp_path, WAITING, tenants=3, runner=PROCESS | {"grace": "1s"})
    with fleet.started("run", "--json") as process:
        until(lambda: len(pids(fleet)) == 2)
        process.terminate()
        start = time.monotonic()
        finished = finish(process)
        took = time.monotonic() - start

    assert finished.code == 75
    assert sorted(finished.outcomes.values()) == ["interrupted", "interrupted", "skipped"]
    assert took < 1.0 + 4.0
    assert not any(map(is_alive, pids(fleet)))


@pytest.mark.parametrize("held", [False, True])
def test_no_process_outlives_a_run_that_was_killed(tmp_path, held: bool) -> None:
    job = WAITING
    if held:
        job = job.replace("time.sleep(0.005)", "__import__('ctypes').PyDLL(None).sleep(60)")
    fleet = small(tmp_path, job, tenants=2, runner=PROCESS)
    with fleet.started("run", "--json") as process:
        until(lambda: len(pids(fleet)) == 2)
        process.kill()

    until(lambda: not any(map(is_alive, pids(fleet))), seconds=5.0)
    assert written(fleet) == {"t0": 0, "t1": 0}


def test_what_starts_a_process_holds_no_secret(mariadb: MariaDB, tmp_path) -> None:
    fleet = make_fleet(tmp_path, mariadb, "hidden_", ["one"], password="${DB_PASSWORD}")
    config = fleet.config.read_text().replace(f":{mariadb.password}@", "@")
    fleet.config.write_text(config.replace('"5s"', '"5s", "isolation": "process"'))
    fleet.write_job("harm", WAITING.replace("ctx.execute", "ctx.job or ctx.execute"))
    with fleet.started("run", "--json", env={"DB_PASSWORD": mariadb.password}) as process:
        until(lambda: began(fleet))
        until(lambda: pids(fleet))
        command = Path(f"/proc/{pids(fleet)[0]}/cmdline").read_text()
        go(fleet)
        finished = finish(process)

    assert set(finished.outcomes.values()) == {"succeeded"}
    assert "multiprocessing" in command
    assert mariadb.password not in command


def test_a_process_that_dies_while_it_has_nothing_to_do_is_replaced(tmp_path) -> None:
    job = """
        import os
        import time
        from pathlib import Path

        @job(name="a", isolation="process", tenants="t0")
        def first(ctx):
            Path("pid").write_text(str(os.getpid()))

        @job(name="b", tenants="t0")
        def second(ctx):
            os.kill(int(Path("pid").read_text()), 9)
            time.sleep(0.5)

        @job(name="c", isolation="process")
        def third(ctx):
            ctx.execute("INSERT INTO done VALUES ('work', :slot)")
    """
    fleet = small(tmp_path, job, tenants=2, runner={"concurrency": 1})
    finished = fleet.run("run", "--json")

    assert set(finished.outcomes.values()) == {"succeeded"}, finished.stdout
    assert written(fleet) == {"t0": 1, "t1": 1}


def test_a_death_is_repeated_by_a_policy_that_names_it_and_by_no_other(tmp_path) -> None:
    job = """
        import os
        from datetime import timedelta

        from cronrunner import RetryPolicy
        from cronrunner.errors import ProcessDied

        @job(name="named", isolation="process", retry=RetryPolicy(
            attempts=2, wait=timedelta(milliseconds=50), on=(ProcessDied,)
        ))
        def named(ctx):
            if ctx.attempt == 1:
                os._exit(3)

        @job(name="other", isolation="process", retries=1)
        def other(ctx):
            os._exit(3)
    """
    finished = small(tmp_path, job, tenants=1).run("run", "--json")

    assert finished.outcomes == {("named", "t0"): "succeeded", ("other", "t0"): "failed"}
    assert finished.execution("named", "t0")["attempts"] == 2
    assert finished.execution("other", "t0")["attempts"] == 1


def test_a_configuration_that_changed_meanwhile_is_refused_by_the_process(tmp_path) -> None:
    job = """
        from pathlib import Path

        @job(name="a")
        def change(ctx):
            path = Path("tenants.yaml")
            path.write_text(path.read_text().replace('"lease": "20s"', '"lease": "21s"'))

        @job(name="b", isolation="process")
        def far(ctx):
            pass
    """
    finished = small(tmp_path, job, tenants=1).run("run", "--json")

    assert finished.outcomes == {("a", "t0"): "succeeded", ("b", "t0"): "failed"}
    assert "was changed while the run lasted" in finished.execution("b", "t0")["error"]


def test_a_file_that_cannot_be_loaded_in_a_process_is_named(tmp_path) -> None:
    shy = """
        import multiprocessing

        if multiprocessing.parent_process() is not None:
            raise ImportError("not here")

        @job(isolation="process")
        def work(ctx):
            pass
    """
    run = small(tmp_path, shy, tenants=1).run("--json")

    error = run.execution("jobs.work", "t0")["error"]
    assert "jobs.py:" in error
    assert "ImportError: not here" in error
