"""`--option`: a value for this run alone, wherever its jobs run."""

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import Finished, Fleet
from tests.acceptance.small import SLOT, small

JOBS = """
    import os
    from pathlib import Path

    from cronrunner import Option

    OPTIONS = {"days": Option(30, minimum=1, environment="DAYS"), "word": "w"}

    @job(options=OPTIONS)
    def one(ctx):
        if Path("broken").exists() and ctx.tenant.name == "t1":
            raise ValueError("broken")
        return {"days": ctx.options["days"], "word": len(ctx.options["word"])}

    @job(options=OPTIONS, isolation="process")
    def apart(ctx):
        return one(ctx)
"""


def make(folder: Path, **config: Any) -> Fleet:
    return small(folder, JOBS, tenants=2, **config)


def days(finished: Finished) -> dict[tuple[str, str], int]:
    return {
        (row["job"], row["tenant"]): row["counters"].get("days", 0)
        for row in finished.document["executions"]
    }


def test_the_command_line_beats_tenant_job_environment_and_default(tmp_path: Path) -> None:
    fleet = make(tmp_path)
    fleet.configure(
        {
            "servers": {"files": {"url": "sqlite://", "discover": {"directory": "tenants"}}},
            "jobs": {"jobs.one": {"options": {"days": 7}}},
            "tenants": {"t1": {"jobs": {"jobs.one": {"options": {"days": 8}}}}},
        }
    )
    usual = fleet.run("run", "one", "--json", env={"DAYS": "6"})
    asked = fleet.run("run", "one", "--json", "--option", "days=9", env={"DAYS": "6"})

    assert days(usual) == {("jobs.one", "t0"): 7, ("jobs.one", "t1"): 8}
    assert days(asked) == {("jobs.one", "t0"): 9, ("jobs.one", "t1"): 9}


@pytest.mark.parametrize("processes", [1, 2])
def test_it_reaches_every_process_and_the_job_it_names(tmp_path: Path, processes: int) -> None:
    fleet = make(tmp_path, runner={"processes": processes, "concurrency": 2})
    finished = fleet.run("run", "--json", "--option", "jobs.one.days=3", "--option", "apart.days=4")

    assert finished.code == 0, finished.stderr
    assert days(finished) == {
        ("jobs.one", "t0"): 3,
        ("jobs.one", "t1"): 3,
        ("jobs.apart", "t0"): 4,
        ("jobs.apart", "t1"): 4,
    }


@pytest.mark.parametrize("repeating", ["--resume", "--only-failed"])
def test_whoever_repeats_a_run_keeps_its_options_unless_others_are_given(
    tmp_path: Path, repeating: str
) -> None:
    fleet = make(tmp_path)
    (tmp_path / "broken").touch()
    fleet.run("run", "one", "--scheduled-at", SLOT, "--option", "days=3", "--option", "word=four")
    (tmp_path / "broken").unlink()
    if repeating == "--resume":
        with_claims_open(fleet)
    repeated = fleet.run("run", "--json", repeating, "last", "--option", "one.days=5")

    counters = repeated.execution("jobs.one", "t1")["counters"]
    assert counters == {"days": 5, "word": 4}


def with_claims_open(fleet: Fleet) -> None:
    """Leave behind what a run that died before it came to a tenant leaves."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(fleet.ledger_file)) as ledger, ledger:
        ledger.execute("UPDATE claims SET state = 'open' WHERE tenant = 't1'")


def test_every_mistake_is_a_line_and_nothing_is_run(tmp_path: Path) -> None:
    fleet = make(tmp_path)
    refused = fleet.run(
        "run", "one", "--json", "--option", "dais=3", "--option", "days=0",
        "--option", "word=s3cret-word", env={"API_TOKEN": "s3cret-word"},
    )  # fmt: skip

    assert refused.code == 2
    assert [text.partition(":")[0] for text in refused.document["errors"]] == [
        "--option dais", "--option days", "--option word",
    ]  # fmt: skip
    assert "s3cret-word" not in refused.stderr + refused.stdout
    assert refused.document["executions"] == []


def test_a_plan_checks_and_shows_them(tmp_path: Path) -> None:
    fleet = make(tmp_path)
    shown = fleet.run("plan", "one", "--option", "days=3")
    refused = fleet.run("plan", "one", "--option", "days=0")

    assert "option jobs.one.days=3" in shown.stdout
    assert (refused.code, "expected at least 1, got 0" in refused.stderr) == (2, True)


ALERTING = """
    from cronrunner import Option

    @job(options={"alert_on_failure": Option(False, environment="ALERT_ON_FAILURE")})
    def can(ctx):
        return {"alerts": int(ctx.options["alert_on_failure"])}

    @job(options={"alert_on_failure": Option(False)}, isolation="process")
    def apart(ctx):
        return {"alerts": int(ctx.options["alert_on_failure"])}

    @job
    def cannot(ctx):
        return {"options": len(ctx.options)}
"""


def alerts(finished: Finished) -> dict[str, int]:
    rows = finished.document["executions"]
    return {row["job"]: row["counters"].get("alerts", 0) for row in rows}


def test_whoever_asks_for_alerts_gets_them_from_all_jobs_that_can(tmp_path: Path) -> None:
    off = {"jobs.can": {"options": {"alert_on_failure": False}}}
    fleet = small(tmp_path, ALERTING, tenants=1)
    fleet.configure(
        {
            "servers": {"files": {"url": "sqlite://", "discover": {"directory": "tenants"}}},
            "tenants": {"t0": {"jobs": off}},
        }
    )
    asked = fleet.run("run", "--json", "--alert")
    usual = fleet.run("run", "--json")

    assert (asked.code, alerts(asked)) == (0, {"jobs.apart": 1, "jobs.can": 1, "jobs.cannot": 0})
    assert sum(alerts(usual).values()) == 0
