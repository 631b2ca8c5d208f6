"""`--json` prints one document on stdout and nothing else, whatever the command."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cronrunner.cli.documents import run_document
from tests.acceptance.small import EXECUTION_KEYS, KEYS, SLOT, small

NOISY = """
    import logging
    import os
    import warnings

    print("at import")

    @job
    def work(ctx):
        print("from the job")
        os.system("echo from a process")
        logging.getLogger("some.library").warning("from a library")
        warnings.warn("careful")
        ctx.log.info("from its log")
"""


@pytest.mark.parametrize(
    "arguments",
    [("run",), ("plan",), ("jobs",), ("tenants",), ("history",), ("history", "--runs"),
     ("show", "last"), ("check",), ("check", "--connect")],
)  # fmt: skip
def test_stdout_is_one_document_and_logs_go_to_stderr(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    fleet = small(tmp_path, NOISY, tenants=1)
    if "show" in arguments:
        fleet.run()
    finished = fleet.run(*arguments, "--json")

    assert finished.code == 0, finished.stderr
    assert isinstance(json.loads(finished.stdout), dict | list)
    assert finished.stdout.count("\n") > 0
    if arguments == ("run",):
        for said in ("from the job", "from a process", "from a library", "from its log"):
            assert said in finished.stderr


def test_the_same_things_have_the_same_names_in_every_document(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    run = fleet.run("--json", "--scheduled-at", SLOT).document
    shown = fleet.run("show", "last", "--json").document
    history = fleet.run("history", "--json").document

    assert set(run) == set(shown) == KEYS
    assert {name: run[name] for name in KEYS - {"duration_seconds"}} == {
        name: shown[name] for name in KEYS - {"duration_seconds"}
    }
    assert run["duration_seconds"] == pytest.approx(shown["duration_seconds"], abs=0.5)
    by_tenant = {row["tenant"]: row for row in history}
    for row in run["executions"]:
        assert set(row) == EXECUTION_KEYS
        assert by_tenant[row["tenant"]] == {"run": run["run"], **row}


def rows(outcomes: dict[str, int]) -> list[dict[str, Any]]:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    blank = dict.fromkeys(EXECUTION_KEYS) | {"slot": at, "started_at": at, "counters": {}}
    return [
        blank | {"tenant": f"{outcome}{n}", "outcome": outcome}
        for outcome, count in outcomes.items()
        for n in range(count)
    ]


def document(outcomes: dict[str, int]) -> dict[str, Any]:
    return run_document(
        run="r", scheduled_at=None, exit_code=1, duration_seconds=1.0, tenants=1,
        outcomes=outcomes, duplicates=0, errors=[], causes=[], executions=rows(outcomes),
    )  # fmt: skip


def test_of_more_than_ten_thousand_executions_only_those_that_went_wrong_are_listed() -> None:
    whole = document({"succeeded": 9_999, "failed": 1})
    assert len(whole["executions"]) == 10_000
    assert set(whole) == KEYS

    cut = document({"succeeded": 9_000, "skipped": 1_000, "failed": 2, "timed_out": 1})
    assert cut["executions_truncated"] is True
    assert [row["tenant"] for row in cut["executions"]] == ["failed0", "failed1", "timed_out0"]
    assert set(cut) == KEYS | {"executions_truncated"}


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_what_a_job_says_of_itself_stands_beside_its_counters(
    tmp_path: Path, isolation: str
) -> None:
    job = f"""
        import os

        @job(isolation="{isolation}")
        def work(ctx):
            ctx.note("not the last word")
            ctx.note(f"12 of 30, with {{os.environ['APP_TOKEN']}}" + "." * 600)
            return {{"rows": 12}}

        @job(isolation="{isolation}")
        def broken(ctx):
            ctx.note("up to row 7")
            raise ValueError("row 8")
    """
    fleet = small(tmp_path, job, tenants=1)
    run = fleet.run("run", "--json", env={"APP_TOKEN": "pl4nted-t0ken"})

    note = run.execution("jobs.work", "t0")["note"]
    assert note.startswith("12 of 30, with [redacted]...")
    assert len(note) == 500
    assert run.execution("jobs.broken", "t0")["note"] == "up to row 7"
    assert fleet.run("show", "last", "--json").execution("jobs.work", "t0")["note"] == note
    assert {line["cronrunner"].get("note") for line in run.log_lines("execution.finished")} == {
        note, "up to row 7",
    }  # fmt: skip
    history = fleet.run("history", "--job", "jobs.work").stdout
    assert "12 of 30" in history
    assert "pl4nted" not in history + run.stdout + run.stderr
