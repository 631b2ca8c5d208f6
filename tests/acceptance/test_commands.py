"""`plan`, `jobs`, `tenants`, `history`, `show` and `init`: for people, and as documents."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.fleet import ROOT, Fleet
from tests.acceptance.small import EXECUTION_KEYS, KEYS, SLOT, small, written

JOBS = """
    @job(schedule="0 2 * * *", timeout="2m", retries=1, options={"days": 30})
    def work(ctx):
        '''Count the days.

        All of them.
        '''
        if ctx.tenant.name == "t1":
            raise ValueError("planted for t1")
        return {"days": ctx.options["days"]}

    @job(scope="fleet", enabled=False)
    def once(ctx): ...
"""


def fleet_that_ran(tmp_path: Path, *, tenants: int = 3) -> Fleet:
    fleet = small(tmp_path, JOBS, tenants=tenants)
    fleet.run("run", "--scheduled-at", SLOT)
    return fleet


def test_a_plan_is_shown_in_its_order_and_runs_nothing(tmp_path: Path) -> None:
    fleet = fleet_that_ran(tmp_path)
    document = fleet.run("plan", "--json").document

    # What failed last goes last.
    assert [row["tenant"] for row in document][-1] == "t1"
    assert {row["tenant"] for row in document} == {"t0", "t1", "t2"}
    assert all(row["jobs"] == ["jobs.work"] for row in document)
    assert set(document[0]) >= {"tenant", "server", "jobs", "expected_seconds", "reason"}
    text = fleet.run("plan", "--tenant=t0").stdout
    assert "1 tenant, 1 execution" in text
    assert fleet.query("SELECT count(*) FROM runs") == [(1,)]


def test_a_plan_says_what_is_left_out_and_why(tmp_path: Path) -> None:
    fleet = small(tmp_path, "@job(tenants='t1')\ndef x(ctx): ...\n")
    rows = fleet.run("plan", "--json").document

    assert {row["tenant"]: bool(row["reason"]) for row in rows} == {
        "t0": True, "t1": False, "t2": True,
    }  # fmt: skip
    assert "2 left out; --why shows them" in fleet.run("plan").stdout
    fleet.run("run")
    assert "it takes less than a second, by history" in fleet.run("plan").stdout
    assert "not wanted by the job's tenants filter" in fleet.run("plan", "--why").stdout


def test_an_unknown_tenant_or_job_is_2_for_every_command_that_takes_one(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    for arguments in (("plan", "wrok"), ("plan", "--tenant=x"), ("tenants", "--tenant=x")):
        finished = fleet.run(*arguments)
        assert (finished.code, finished.stdout) == (2, "")
        assert finished.stderr.startswith("cronrunner: no ")


#: What asks nothing but the ledger.
OF_LEDGER = [
    ("history",),
    ("history", "--runs"),
    ("show", "last"),
    ("prune",),
    ("pause",),
    ("pause", "--server", "files", "--reason", "moved"),
    ("unpause", "--server", "files"),
]


def test_what_asks_the_ledger_alone_heeds_its_mistakes_and_no_others(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    config = json.loads(fleet.config.read_text())
    assert fleet.run().code == 0
    path = f"sqlite:///{fleet.ledger_file}"
    odd = {"url": "sqlite://", "tls": "verify", "discover": {"directory": "tenants"}}
    fleet.configure(config | {"servers": config["servers"] | {"odd": odd}})
    assert fleet.run().code == 2
    assert [fleet.run(*command).code for command in OF_LEDGER] == [0] * len(OF_LEDGER)

    for ledger, expected in (
        ({"url": path, "tls": "required"}, "ledger.tls: expected auto or disabled, got required"),
        ({"url": "postgresql://u@h/db"}, "ledger: expected a URL of mysql"),
        ({"server": "odd", "database": "x"}, "servers.odd.tls: expected auto or disabled"),
    ):
        fleet.configure(config | {"ledger": ledger, "servers": config["servers"] | {"odd": odd}})
        for command in OF_LEDGER:
            refused = fleet.run(*command)
            assert refused.code == 2, (command, refused.stderr)
            assert expected in refused.stderr


def test_a_folder_of_jobs_that_is_not_there_is_said(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    fleet.configure(json.loads(fleet.config.read_text()) | {"job_folder": "nowhere"})
    plan = fleet.run("plan")
    paused = fleet.run("pause", "--job", "count", "--reason", "moved")

    assert (plan.code, paused.code) == (1, 2)
    assert "nowhere, found none" in plan.stderr
    assert "nowhere, found none" in paused.stderr


def test_jobs_are_shown_with_what_is_declared(tmp_path: Path) -> None:
    fleet = small(tmp_path, JOBS)
    fleet.write_job("broken.py", "def (\n")
    finished = fleet.run("jobs", "--json")

    assert finished.code == 1
    assert "broken.py:1: SyntaxError" in finished.stderr
    work = next(row for row in finished.document if row["job"] == "jobs.work")
    wanted = {
        "job": "jobs.work", "enabled": True, "schedule": "0 2 * * *", "timeout_seconds": 120,
        "attempts": 2, "scope": "tenant", "transaction": "tenant", "isolation": "thread",
        "overlap": "skip", "exactly_once": False, "effects": "database", "options": {"days": 30},
        "origin": "jobs.py:6", "description": "Count the days.\n\nAll of them.",
    }  # fmt: skip
    assert {name: work[name] for name in wanted} == wanted
    text = fleet.run("jobs").stdout
    assert "Count the days." in text
    assert "jobs.once (disabled)" in text
    assert [row["job"] for row in fleet.run("jobs", "once", "--json").document] == ["jobs.once"]


def test_a_job_that_is_named_is_shown_with_all_that_is_to_know(tmp_path: Path) -> None:
    fleet = small(tmp_path, JOBS)
    servers = {"files": {"url": "sqlite://", "discover": {"directory": "tenants"}}}
    here = {"jobs.work": {"timeout": "3m", "options": {"days": 7}}}
    fleet.configure({"servers": servers, "jobs": here})

    page = fleet.run("jobs", "work").stdout

    assert page.startswith("# jobs.work\n\nCount the days.\n\nAll of them.\n")
    assert "| timeout | 3m |" in page
    assert "| `days` | `30` | `7` |" in page
    assert "At 02:00 every day" in page
    both = fleet.run("jobs", "once", "work").stdout
    assert [line for line in both.splitlines() if line.startswith("# ")] == [
        "# jobs.once",
        "# jobs.work",
    ]
    assert "| enabled | no: it runs only when it is named |" in both
    assert "jobs.work" in fleet.run("jobs", "jobs.wrok").stderr


def test_tenants_are_shown_with_how_they_fare(tmp_path: Path) -> None:
    fleet = fleet_that_ran(tmp_path)
    rows = {row["tenant"]: row for row in fleet.run("tenants", "--json").document}

    assert set(rows) == {"t0", "t1", "t2"}
    assert rows["t1"]["failing_jobs"] == ["jobs.work"]
    assert rows["t0"]["failing_jobs"] == []
    assert rows["t0"]["last_run_at"].endswith("Z")
    assert (rows["t0"]["server"], rows["t0"]["timezone"]) == ("files", "UTC")
    assert "jobs.work" in fleet.run("tenants", "--tenant=t1").stdout


def test_history_is_filtered_and_shown_newest_first(tmp_path: Path) -> None:
    fleet = fleet_that_ran(tmp_path)
    fleet.run("--tenant=t0")
    document = fleet.run("history", "--json").document

    assert len(document) == 4
    assert all(set(row) == EXECUTION_KEYS | {"run"} for row in document)
    starts = [row["started_at"] for row in document]
    assert starts == sorted(starts, reverse=True)

    def found(*arguments: str) -> list[str]:
        return [row["tenant"] for row in fleet.run("history", "--json", *arguments).document]

    assert found("--outcome=failed") == ["t1"]
    assert found("--tenant=t[02]", "--limit=1") == ["t0"]
    assert sorted(found("--job=jobs.*", "--until=2999-01-01")) == ["t0", "t0", "t1", "t2"]
    assert found("--since=2999-01-01") == []
    assert "ValueError: planted for t1" in fleet.run("history").stdout


def test_history_says_so_when_it_knows_no_such_job_or_tenant(tmp_path: Path) -> None:
    fleet = fleet_that_ran(tmp_path)
    unknown = fleet.run("history", "--job=jobs.wrok", "--tenant=t00")

    assert unknown.code == 0
    assert [line.removeprefix("cronrunner: ") for line in unknown.stderr.splitlines()] == [
        "nothing was ever executed of a job 'jobs.wrok'; the nearest is jobs.work",
        "nothing was ever executed of a tenant 't00'; the nearest is t0",
    ]
    nothing = fleet.run("history", "--job=jobs.*", "--since=2999-01-01", "--json")
    assert (nothing.document, nothing.stderr) == ([], "")


def test_runs_are_shown_with_their_exit_codes(tmp_path: Path) -> None:
    fleet = fleet_that_ran(tmp_path)
    (run,) = fleet.run("history", "--runs", "--json").document

    assert run["exit_code"] == 1
    assert run["outcomes"] == {"failed": 1, "succeeded": 2}
    assert run["scheduled_at"] == SLOT
    assert run["command"] == f"cronrunner run --scheduled-at {SLOT}"
    assert run["run"] in fleet.run("history", "--runs").stdout


def test_one_run_is_shown_by_its_id_its_beginning_and_as_the_last(tmp_path: Path) -> None:
    fleet = fleet_that_ran(tmp_path, tenants=11)
    name = fleet.query("SELECT run FROM runs")[0][0]
    for asked in (name, name[:12], "last"):
        shown = fleet.run("show", asked, "--json")
        assert shown.code == 0
        assert set(shown.document) == KEYS
        assert shown.document["run"] == name
    text = fleet.run("show", "last").stdout
    assert "ValueError: planted for *" in text
    assert "t0" not in text
    assert "days=30" in fleet.run("show", "last", "--all").stdout
    assert "t0" in fleet.run("show", "last", "--tenant=t0").stdout

    unknown = fleet.run("show", "1999")
    assert (unknown.code, unknown.stdout) == (2, "")
    assert "no run '1999'" in unknown.stderr
    assert fleet.run("run", "--tenant=nobody").code == 2
    assert fleet.run("show", "last", "--json").document["run"] == name
    assert "more than one run begins with '2'" in fleet.run("show", "2").stderr


def test_a_ledger_in_which_nothing_is_yet_can_be_asked(tmp_path: Path) -> None:
    fleet = small(tmp_path)

    assert fleet.run("history", "--json").document == []
    assert fleet.run("history", "--runs", "--json").document == []
    assert fleet.run("show", "last").code == 2
    assert fleet.run("tenants").code == 0


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    fleet = small(tmp_path, tenants=60)
    fleet.run("--tenant=*")
    done = subprocess.run(
        f"'{sys.executable}' -m cronrunner history --limit 100000 | head -n 1",
        shell=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stderr == ""
    assert done.stdout.startswith("started")


@pytest.mark.as_written("it is about the file that init has written")
def test_what_init_writes_passes_check_and_is_never_overwritten(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "unused", "", {})
    fleet.folder = tmp_path
    first = fleet.run("init", "here")

    assert first.code == 0
    assert "wrote here/tenants.yaml" in first.stdout
    env = {"DB_PASSWORD": "hunter2hunter2"}
    fleet.folder = tmp_path / "here"
    assert fleet.run("check", env=env).code == 0
    assert "first.ping" in fleet.run("jobs", env=env).stdout

    kept = (tmp_path / "here" / "tenants.yaml").read_text(encoding="utf-8")
    (tmp_path / "here" / "more.yaml").write_text(kept.replace("\n#  ", "\n  "), encoding="utf-8")
    assert "2 servers, 1 job" in fleet.run("check", "--config=more.yaml", env=env).stdout
    (tmp_path / "here" / "tenants.yaml").write_text(kept + "# mine\n", encoding="utf-8")
    second = fleet.run("init")
    assert second.code == 2
    assert "tenants.yaml is there already" in second.stderr
    assert "first.py is there already" in second.stderr
    assert (tmp_path / "here" / "tenants.yaml").read_text(encoding="utf-8").endswith("# mine\n")


def test_nothing_is_executed_by_a_command_that_only_looks(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    for arguments in (("plan",), ("jobs",), ("tenants",), ("history",), ("check", "--connect")):
        assert fleet.run(*arguments).code == 0

    assert +written(fleet) == {}
    assert fleet.query("SELECT count(*) FROM runs") == [(0,)]


def test_what_is_too_old_goes_after_a_run_and_by_hand(tmp_path: Path) -> None:
    fleet = small(tmp_path, ledger={"keep": "1d"})
    for minute in range(3):
        fleet.run("run", "--scheduled-at", f"2026-03-01T02:0{minute}Z")
    make_old(fleet, days=2)

    dry = fleet.run("run", "--dry-run", "--json")
    assert dry.log_lines("ledger.pruned") == []
    run = fleet.run("run", "--json")
    (line,) = run.log_lines("ledger.pruned")
    # Three runs with their executions and attempts, and all claims but the newest.
    assert line["cronrunner"]["rows"] == 3 * (1 + 3 + 3) + 2 * 3
    assert len(fleet.run("history", "--json").document) == 3
    assert fleet.run("tenants", "--json").document[0]["last_run_at"]

    make_old(fleet, days=2)
    by_hand = fleet.run("prune", "--json", "--keep", "3d")
    assert (by_hand.code, by_hand.document["rows"]) == (0, 0)
    # The run, what belongs to it, and the dry run.
    assert "removed 11 rows" in fleet.run("prune").stdout
    assert fleet.run("history", "--json").document == []


def make_old(fleet: Fleet, *, days: int) -> None:
    with closing(sqlite3.connect(fleet.ledger_file)) as ledger:
        ledger.execute(f"UPDATE runs SET started_at = datetime(started_at, '-{days} days')")
        ledger.commit()


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_run_goes_on_without_streams_that_are_closed(tmp_path: Path, closed: str) -> None:
    fleet = small(tmp_path, JOBS)
    command = Path(sys.executable).with_name("cronrunner")
    done = subprocess.run(
        ["sh", "-c", f'exec "{command}" run {closed}'], cwd=fleet.folder, timeout=60, check=False
    )

    # One job fails, as planted.
    assert done.returncode == 1
    assert fleet.query("SELECT COUNT(*) FROM executions") == [(3,)]
