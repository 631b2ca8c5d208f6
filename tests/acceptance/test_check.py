"""`cronrunner check`: every mistake, each with its line, and nothing is run or connected."""

import socket
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.fleet import Fleet
from tests.acceptance.small import small, written

TEN = """\
    ledger: postgresql://ledger.internal/cron
    servers:
      main:
        url: mysql+pymysql://cron:${{DB_PASWORD}}@127.0.0.1:{port}
        discover: {{databases: "agency_*"}}
      second:
        url: mysql+pymysql://cron@127.0.0.1:{port}
        max_connections: 1
        discover: {{databases: "other_*"}}
      files: {{url: "sqlite://", discover: {{databases: "x"}}}}
    runner:
      concurency: 16
      grace: soon
    tenants:
      agency_acme: {{timezone: Europe/Berln}}
    jobs:
      jobs.wrok: {{enabled: false}}
      jobs.work:
        schedule: "0 0 31 2 *"
        options: {{dais: 3}}
"""
JOBS = "@job(options={'days': 3})\ndef work(ctx):\n    ctx.execute('SELECT 1')\n"


@pytest.mark.as_written("it is about mistakes in it")
def test_ten_mistakes_are_ten_lines_with_their_numbers_and_nothing_is_connected(
    tmp_path: Path,
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.setblocking(False)
        fleet = Fleet(tmp_path, TEN.format(port=server.getsockname()[1]), {"jobs": JOBS})
        checked = fleet.run("check", "--connect")
        try:
            server.accept()
        except BlockingIOError:
            connected = False
        else:
            connected = True

    lines = [line for line in checked.stdout.splitlines() if line.startswith("error: ")]
    assert [line.split(":")[2] for line in lines] == [
        "1", "4", "8", "10", "12", "13", "15", "17", "19", "20",
    ]  # fmt: skip
    assert all("tenants.yaml:" in line for line in lines)
    assert "tenants.yaml: 10 mistakes" in checked.stdout
    assert (checked.code, connected) == (2, False)
    assert not fleet.ledger_file.exists()


@pytest.mark.as_written("it is about mistakes in it")
def test_the_same_as_a_document(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, TEN.format(port=1), {"jobs": JOBS})
    checked = fleet.run("check", "--json")

    assert checked.code == 2
    assert set(checked.document) == {"schema", "exit_code", "errors", "warnings"}
    assert checked.document["exit_code"] == 2
    assert len(checked.document["errors"]) == 10
    first = checked.document["errors"][0]
    assert set(first) == {"text", "file", "line"}
    assert (first["file"], first["line"]) == ("tenants.yaml", 1)


def test_a_configuration_without_mistakes_is_0_and_runs_nothing(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    checked = fleet.run("check")

    assert checked.code == 0, checked.stdout
    assert "tenants.yaml: no mistakes" in checked.stdout
    assert "1 server, 1 job" in checked.stdout
    assert +written(fleet) == {}
    assert not fleet.ledger_file.exists()
    assert fleet.run("check", "--json").document["errors"] == []


def test_a_broken_job_file_is_a_mistake_for_check(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    fleet.write_job("broken.py", "def (\n")
    fleet.write_job("twice.py", "from cronrunner import job\n@job(timeout='x')\ndef a(ctx): ...\n")
    fleet.write_job("bad.sql", "-- shedule: x\nDELETE FROM a\n")
    checked = fleet.run("check")

    assert checked.code == 2
    assert "error: broken.py:1: SyntaxError: invalid syntax" in checked.stdout
    assert "error: twice.py:2: job twice.a: timeout: expected a duration" in checked.stdout
    assert "error: bad.sql:1: unknown header key 'shedule'" in checked.stdout
    assert checked.stdout.splitlines()[-1] == "3 mistakes"


def test_while_a_file_is_broken_a_job_that_is_not_found_is_only_warned_of(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    config = fleet.config.read_text(encoding="utf-8").rstrip().removesuffix("}")
    fleet.configure(config + ', "jobs": {"broken.lost": {"enabled": true}}}')
    assert "no job 'broken.lost'" in fleet.run("--json").document["errors"][0]

    fleet.write_job("broken.py", "def (\n")
    checked = fleet.run("check")
    assert "warning: tenants.yaml:" in checked.stdout
    assert "it may be in one of the broken files" in checked.stdout
    assert fleet.run("--json").document["outcomes"] == {"succeeded": 3}


def test_connect_discovers_and_a_server_that_fails_is_4(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    assert fleet.run("check", "--connect").code == 0
    for path in (tmp_path / "tenants").iterdir():
        path.unlink()
    checked = fleet.run("check", "--connect")

    assert checked.code == 4
    assert "error: server files: discovery failed: no tenants were found" in checked.stdout


@pytest.mark.as_written("it is about mistakes in it")
def test_what_stops_the_parser_is_reported_alone_with_line_and_column(tmp_path: Path) -> None:
    checked = Fleet(tmp_path, "servers: {a: [}\n", {}).run("check")

    assert checked.code == 2
    (line,) = (line for line in checked.stdout.splitlines() if line.startswith("error: "))
    assert line.startswith("error: tenants.yaml:1: column ")


@pytest.mark.as_written("it is about mistakes in it")
def test_a_configuration_that_is_not_there_is_2(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, "", {})
    fleet.config.unlink()
    for arguments in ((), ("check",), ("jobs",), ("--config", "other.yaml")):
        finished = fleet.run(*arguments)
        assert finished.code == 2
        assert "expected a configuration file, found none" in finished.stdout + finished.stderr
        assert "Traceback" not in finished.stderr


def test_no_secret_is_quoted_in_a_mistake(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, TEN.format(port=1).replace("dais: 3", "days: '${{API_TOKEN}}'".format()), {"jobs": JOBS})  # fmt: skip
    checked = fleet.run("check", env={"API_TOKEN": "tok-9e107d9d372bb682"})

    assert "option days: expected a whole number" in checked.stdout
    assert "9e107d9d372bb682" not in checked.stdout + checked.stderr
