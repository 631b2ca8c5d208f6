"""`logs summary`: what log files say of each job, without a ledger."""

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.fleet import ROOT, Fleet, finish
from tests.acceptance.forking import Command
from tests.acceptance.small import small

JOBS = """
    @job
    def well(ctx):
        ctx.log.info("fine")

    @job
    def ill(ctx):
        if ctx.tenant.name == "t1":
            raise ValueError("planted")
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Make a folder of logs: one rotated and compressed, one in use."""
    made = small(tmp_path_factory.mktemp("logs"), JOBS)
    logs = made.folder / "var" / "log"
    first = made.run("run", "--json")
    logs.mkdir(parents=True)
    (logs / "cron.log-20260301.gz").write_bytes(gzip.compress(first.stderr.encode()))
    second = made.run("run", "well", "--json")
    dry = made.run("run", "--dry-run", "--json")
    (logs / "cron.log").write_text(second.stderr + dry.stderr + "no JSON\n")
    (logs / "notes.txt").write_text("no log\n")
    made.ledger_file.unlink()
    return made


def test_it_counts_what_the_files_of_a_folder_tell(fleet: Fleet) -> None:
    finished = fleet.run("logs", "summary", "var/log", "--json")

    assert finished.code == 0
    ill, well = finished.document["jobs"]
    assert (ill["job"], ill["runs"], ill["executions"], ill["failures"]) == ("jobs.ill", 1, 3, 1)
    assert (ill["last_failure"]["tenant"], ill["last_failure"]["outcome"]) == ("t1", "failed")
    assert ill["last_failure"]["error"] == "ValueError: planted"
    assert well == {
        "job": "jobs.well", "runs": 2, "executions": 6, "failures": 0, "last_failure": None,
    }  # fmt: skip
    assert finished.document["skipped_lines"] == 1


def test_it_prints_a_table_and_says_how_many_lines_it_left_out(fleet: Fleet) -> None:
    finished = fleet.run("logs", "summary", "var/log/cron.log", "var/log/cron.log-20260301.gz")

    head, ill, well = finished.stdout.splitlines()
    assert head.split()[:4] == ["job", "runs", "executions", "failures"]
    assert ill.split()[:4] == ["jobs.ill", "1", "3", "1"]
    assert ill.endswith("t1      ValueError: planted")
    assert well.split() == ["jobs.well", "2", "6", "0", "-", "-", "-"]
    assert "1 of " in finished.stderr
    assert "no JSON" in finished.stderr


@pytest.mark.parametrize("color", ["", "1"])
def test_what_drives_a_terminal_does_not_reach_it(fleet: Fleet, tmp_path: Path, color: str) -> None:
    forged = {
        "@timestamp": "2026-03-01T00:00:00Z",
        "event": {"action": "execution.finished"},
        "error": {"message": "a\x1b]0;title\x07 [red]b\nc"},
        "cronrunner": {"job": "x\x1b[2J", "run": "r", "tenant": "t\x1b[1m", "outcome": "failed"},
    }
    (tmp_path / "a.log").write_text(json.dumps(forged))
    env = {"FORCE_COLOR": color, "TERM": "dumb", "COLUMNS": "200"}
    finished = fleet.run("logs", "summary", str(tmp_path), env=env)

    assert "[red]b" in finished.stdout
    assert not any(code in finished.stdout for code in ("\x1b]", "\x07", "\x1b[2J"))


def test_it_reads_stdin_and_wants_no_configuration_and_no_ledger(
    fleet: Fleet, tmp_path: Path
) -> None:
    # Closed by who starts the command.
    log = os.open(fleet.folder / "var/log/cron.log-20260301.gz", os.O_RDONLY)
    with Command(
        ["cronrunner", "logs", "summary", "-", "--json"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)},
        stdin=log, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        finished = finish(process)

    assert finished.code == 0, finished.stderr
    assert [each["job"] for each in finished.document["jobs"]] == ["jobs.ill", "jobs.well"]
    assert list(tmp_path.iterdir()) == []
    assert not fleet.ledger_file.exists()


def test_a_file_that_is_damaged_is_named_and_the_others_count(fleet: Fleet, tmp_path: Path) -> None:
    whole = fleet.folder / "var/log/cron.log-20260301.gz"
    damaged = tmp_path / "damaged.log.gz"
    damaged.write_bytes(whole.read_bytes()[:-9])
    finished = fleet.run("logs", "summary", str(damaged), str(whole), "--json")

    assert finished.code == 2
    assert str(damaged) in finished.stderr
    assert finished.document["jobs"][0]["failures"] >= 1


def test_a_path_that_is_not_there_is_a_mistake(fleet: Fleet) -> None:
    assert fleet.run("logs", "summary", "nowhere.log").code == 2
    assert fleet.run("logs", "summary").code == 2
