"""The start-up hook: once in each process, before its jobs, and its failure is theirs."""

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import Fleet
from tests.acceptance.small import small

STARTUP = """
    import os
    import time
    from pathlib import Path

    from cronrunner import startup

    @startup
    def connect():
        time.sleep(0.1)
        with Path("started").open("a") as file:
            file.write(f"{os.getpid()}\\n")
        return {"pid": os.getpid()}
"""
JOBS = """
    import os

    def ask(ctx):
        return ctx.app["pid"] == os.getpid()

    def add_up(ctx):
        assert ctx.app["pid"] == os.getpid()

    @job(prepare=ask, summarize=add_up)
    def work(ctx):
        assert ctx.app["pid"] == os.getpid()
        assert ctx.prepared is True
        return {"pid": os.getpid()}

    @job
    def loop(db_name, engine): ...
"""
FAILING = """
    from cronrunner import startup

    @startup
    def connect():
        open("started", "a").write("x\\n")
        raise SystemExit("no token {token}")
"""


def hooked(folder: Path, hook: str = STARTUP, *, tenants: int = 4, **config: Any) -> Fleet:
    fleet = small(folder, {"some": JOBS}, tenants=tenants, **config)
    fleet.write_job("first.py", hook)
    fleet.write_job("plain.sql", "-- name: plain\nINSERT INTO done VALUES ('plain', :slot)")
    return fleet


def started(fleet: Fleet) -> list[str]:
    path = fleet.folder / "started"
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize(
    "runner",
    [
        {"concurrency": 4},
        {"concurrency": 4, "processes": 2},
        {"concurrency": 2, "isolation": "process"},
    ],
    ids=["threads", "processes", "isolated"],
)
@pytest.mark.one_process("one of its cases is about the threads of one process")
def test_every_process_has_what_its_own_call_returned(
    tmp_path: Path, runner: dict[str, Any]
) -> None:
    fleet = hooked(tmp_path, runner=runner)
    finished = fleet.run("run", "--json")

    assert finished.code == 0, finished.stderr
    pids = started(fleet)
    assert len(pids) == len(set(pids))
    jobs_in = {
        str(row["counters"]["pid"])
        for row in finished.document["executions"]
        if row["job"] == "some.work"
    }
    assert jobs_in <= set(pids)
    assert (len(pids) == 1) == (runner == {"concurrency": 4})


def test_it_is_not_called_for_who_does_without_python(tmp_path: Path) -> None:
    fleet = hooked(tmp_path)

    assert fleet.run("run", "plain").code == 0
    assert fleet.run("check").code == 0
    assert fleet.run("plan").code == 0
    assert started(fleet) == []


def test_its_failure_is_that_of_each_job_in_python_and_is_recorded_once_called(
    tmp_path: Path,
) -> None:
    token = "t0ken-0f-the-hook"
    fleet = hooked(tmp_path, FAILING.replace("{token}", token))
    finished = fleet.run("run", "some.loop", "plain", "--json", env={"HOOK_TOKEN": token})

    text = "StartupError: the start-up hook first.py:4 failed: SystemExit: no token [redacted]"
    assert finished.code == 1
    assert started(fleet) == ["x"]
    assert {
        row["error"] for row in finished.document["executions"] if row["job"] == "some.loop"
    } == {text}
    assert [(each["cause"], each["count"]) for each in finished.document["causes"]] == [
        (text.replace("first.py:4", "first.py:#"), 4)
    ]
    assert {outcome for (job, _), outcome in finished.outcomes.items() if job == "plain"} == {
        "succeeded"
    }
    assert len(fleet.query("SELECT 1 FROM executions WHERE error LIKE 'StartupError:%'")) == 4
    assert token not in finished.stdout + finished.stderr


def test_check_calls_it_only_when_it_connects(tmp_path: Path) -> None:
    fleet = hooked(tmp_path, FAILING)
    assert fleet.run("check").code == 0
    assert started(fleet) == []

    checked = fleet.run("check", "--connect")
    assert checked.code == 2
    assert "the start-up hook first.py:4 failed: SystemExit: no token" in checked.stdout


def test_there_is_one_and_it_takes_nothing(tmp_path: Path) -> None:
    fleet = hooked(tmp_path)
    fleet.write_job("second.py", STARTUP)
    fleet.write_job(
        "third.py", "from cronrunner import startup\n\n@startup\ndef a(settings): ...\n"
    )
    errors = fleet.run("check", "--json").document["errors"]

    assert [(each["file"], each["text"]) for each in errors] == [
        ("second.py", "there is a start-up hook already, at first.py:8; keep one"),
        ("third.py", "expected the start-up hook a to take no arguments"),
    ]
