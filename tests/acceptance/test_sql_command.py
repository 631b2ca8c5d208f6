"""`cronrunner sql`: one statement, many tenants, one table, and nothing changed by accident."""

import csv
import io
import os
import pty
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import ROOT, Finished, Fleet, finish
from tests.acceptance.forking import Command
from tests.acceptance.small import small, written
from tests.servers import MariaDB


def fill(fleet: Fleet, *, rows: int = 2) -> Fleet:
    """Give tenant ``tN`` so many rows; ``t2`` has another table."""
    for path in (fleet.folder / "tenants").glob("*.db"):
        with closing(sqlite3.connect(path)) as tenant:
            if path.stem == "t2":
                tenant.execute("DROP TABLE done")
                tenant.execute("CREATE TABLE odd (id)")
            else:
                jobs = [(f"{path.stem}-{n}", n) for n in range(rows)]
                tenant.executemany("INSERT INTO done VALUES (?, ?)", jobs)
            tenant.commit()
    return fleet


def complaints(finished: Finished) -> list[str]:
    """Return what was said on stderr, the log left out: a file has no session to use again."""
    return [line for line in finished.stderr.splitlines() if not line.startswith("{")]


def test_it_prints_one_table_with_the_tenant_first(tmp_path: Path) -> None:
    fleet = fill(small(tmp_path, tenants=2))
    finished = fleet.run("sql", "SELECT job, slot AS n FROM done WHERE job LIKE :tenant || '%'")

    assert (finished.code, complaints(finished)) == (0, [])
    assert [line.split() for line in finished.stdout.splitlines()] == [
        ["tenant", "job", "n"],
        ["t0", "t0-0", "0"],
        ["t0", "t0-1", "1"],
        ["t1", "t1-0", "0"],
        ["t1", "t1-1", "1"],
    ]
    assert not fleet.ledger_file.exists()


def test_a_tenant_that_fails_is_a_line_on_stderr_and_the_others_go_on(tmp_path: Path) -> None:
    fleet = fill(small(tmp_path, tenants=4), rows=1)
    finished = fleet.run("sql", "SELECT job FROM done WHERE job <> 'a secret'")

    assert finished.code == 1
    assert [line.split()[0] for line in finished.stdout.splitlines()] == [
        "tenant",
        "t0",
        "t1",
        "t3",
    ]
    (line,) = complaints(finished)
    assert line.startswith("cronrunner: t2: OperationalError SQLITE_ERROR: no such table: done")
    assert "a secret" not in line


def test_tenants_are_chosen_as_for_a_run(tmp_path: Path) -> None:
    fleet = fill(small(tmp_path, tenants=4), rows=1)
    finished = fleet.run("sql", "SELECT 1", "--tenant=t[01]", "--exclude-tenant=t1", "--csv")

    assert finished.stdout.splitlines() == ["tenant,1", "t0,1"]
    assert fleet.run("sql", "SELECT 1", "--tenant=nobody").code == 2


def test_as_a_document_and_as_csv(tmp_path: Path) -> None:
    fleet = fill(small(tmp_path, tenants=3), rows=3)
    statement = "SELECT job, NULL AS blank, x'ff00' AS tenant, 1.5 AS job, 'a,\"b' AS q FROM done"
    finished = fleet.run("sql", statement, "--limit=2", "--json")

    document = finished.document
    columns = ["tenant", "job", "blank", "tenant_2", "job_2", "q"]
    rows = [[t, f"{t}-{n}", None, "0xff00", 1.5, 'a,"b'] for t in ("t0", "t1") for n in (0, 1)]
    assert document["columns"] == columns
    assert document["rows"] == [dict(zip(columns, row, strict=True)) for row in rows]
    assert (document["exit_code"], finished.code, document["tenants"]) == (1, 1, 3)
    assert document["cut"] == ["t0", "t1"]
    assert [each["tenant"] for each in document["errors"]] == ["t2"]
    assert "only the first 2 rows are shown of t0, t1; see --limit" in finished.stderr

    printed = fleet.run("sql", statement, "--limit=2", "--csv").stdout
    read = list(csv.reader(io.StringIO(printed)))
    assert read == [columns, *([("" if v is None else str(v)) for v in row] for row in rows)]
    assert fleet.run("sql", "SELECT 1", "--csv", "--json").code == 2


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("DELETE FROM done", "expected a statement that reads, got DELETE FROM"),
        ("PRAGMA user_version = 7", "expected a statement that reads, got PRAGMA user_version"),
        ("SELECT 1; DELETE FROM done", "expected one statement, got 2"),
        ("; -- nothing", "expected one statement, got 0"),
        ("SELECT :keep", "unknown parameter :keep; known are now, slot, tenant"),
        ("SELECT 1 INTO OUTFILE '/tmp/x'", "expected a statement that reads, got SELECT 1"),
        ("SELECT 1 INTO/*!*/OUTFILE '/tmp/x'", "expected a statement that reads, got SELECT 1"),
        ("SELECT 1 INTO/*+ */DUMPFILE '/tmp/x'", "expected a statement that reads, got SELECT 1"),
        ("SELECT 1 INTO #\nOUTFILE '/tmp/x'", "expected a statement that reads, got SELECT 1"),
        ("SELECT 1 /*!INTO*/ OUTFILE '/tmp/x'", "expected a statement that reads, got SELECT 1"),
    ],
)
def test_what_is_not_asked_is_refused_before_anybody_is(
    tmp_path: Path, statement: str, complaint: str
) -> None:
    fleet = fill(small(tmp_path, tenants=1))
    finished = fleet.run("sql", statement)

    assert (finished.code, finished.stdout) == (2, "")
    assert complaint in finished.stderr
    assert written(fleet) == {"t0": 2}


def test_a_change_in_disguise_is_refused_by_sqlite(tmp_path: Path) -> None:
    fleet = fill(small(tmp_path, tenants=1))
    finished = fleet.run("sql", "WITH x AS (SELECT 1) DELETE FROM done")

    assert finished.code == 1
    assert "SQLITE_READONLY" in finished.stderr
    assert written(fleet) == {"t0": 2}


@pytest.fixture
def on_mariadb(tmp_path: Path, mariadb: MariaDB, prefix: str) -> tuple[Fleet, str]:
    names = [f"{prefix}a", f"{prefix}b"]
    mariadb.create_databases(names, "CREATE TABLE t (n INT)", "INSERT INTO t VALUES (1), (2), (3)")
    server = {"url": mariadb.url(), "discover": {"databases": f"{prefix}*"}}
    return Fleet(tmp_path, {"servers": {"main": server}}, {}), names[0]


def test_a_change_in_disguise_is_refused_by_the_server(
    on_mariadb: tuple[Fleet, str], mariadb: MariaDB
) -> None:
    fleet, name = on_mariadb
    mariadb.execute(
        "CREATE FUNCTION sneaky() RETURNS INT MODIFIES SQL DATA BEGIN DELETE FROM t; RETURN 1; END",
        database=name,
    )
    finished = fleet.run("sql", "SELECT sneaky()", f"--tenant={name}")

    assert finished.code == 1
    assert "1792" in finished.stderr
    assert mariadb.execute("SELECT count(*) FROM t", database=name) == [(3,)]


def test_a_server_gives_no_more_rows_than_are_shown(
    on_mariadb: tuple[Fleet, str], mariadb: MariaDB
) -> None:
    fleet, name = on_mariadb
    since = mariadb.log_position()
    finished = fleet.run("sql", "SELECT n, '50%' AS p FROM t", "--limit=1", "--json")

    assert [(row["n"], row["p"]) for row in finished.document["rows"]] == [(1, "50%")] * 2
    assert name in finished.document["cut"]
    said = [entry.argument for entry in mariadb.general_log(since=since)]
    assert sum("sql_select_limit = 2" in each for each in said) == 2
    assert sum(each.startswith("START TRANSACTION READ ONLY") for each in said) == 2


def test_what_takes_too_long_is_cancelled_at_the_server(
    on_mariadb: tuple[Fleet, str], mariadb: MariaDB
) -> None:
    fleet, _ = on_mariadb
    began = time.monotonic()
    finished = fleet.run("sql", "SELECT SLEEP(40) AS waited_for_nothing", "--timeout=300ms")

    assert finished.code == 1
    assert finished.stderr.count("it took longer than 300ms") == 2
    assert time.monotonic() - began < 15
    assert not [row for row in mariadb.process_list() if "waited_for_nothing" in str(row["info"])]


def test_a_write_is_committed_and_says_how_many_rows_each(tmp_path: Path) -> None:
    fleet = fill(small(tmp_path, tenants=2))
    finished = fleet.run("sql", "DELETE FROM done WHERE slot = '1'", "--write", "--yes", "--json")

    assert finished.document["rows"] == [{"tenant": "t0", "rows": 1}, {"tenant": "t1", "rows": 1}]
    assert written(fleet) == {"t0": 1, "t1": 1}
    assert not fleet.ledger_file.exists()


def test_a_write_that_nobody_can_be_asked_about_is_refused(tmp_path: Path) -> None:
    fleet = fill(small(tmp_path, tenants=2))
    finished = fleet.run("sql", "DELETE FROM done", "--write")

    assert finished.code == 2
    assert "this would change 2 tenants, and nobody can be asked; --yes agrees" in finished.stderr
    assert written(fleet) == {"t0": 2, "t1": 2}


@pytest.mark.parametrize(("answer", "left", "code"), [("n", 2, 1), ("y", 0, 0)])
def test_a_write_is_asked_about_with_the_number_of_tenants(
    tmp_path: Path, answer: str, left: int, code: int
) -> None:
    fleet = fill(small(tmp_path, tenants=2))
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    with Command(
        ["cronrunner", "sql", "DELETE FROM done", "--write"],
        cwd=fleet.folder, env={"PYTHONPATH": str(ROOT)},
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        finished = finish(process)
    os.close(ours)

    assert "DELETE FROM done" in finished.stderr
    assert "Do this on 2 tenants (t0, t1)?" in finished.stderr
    assert finished.code == code, finished.stderr
    assert written(fleet) == {"t0": left, "t1": left}


def test_a_secret_of_the_configuration_is_hidden_in_what_is_shown(tmp_path: Path) -> None:
    fleet = fill(small(tmp_path, tenants=1))
    environment: dict[str, Any] = {"SOME_TOKEN": "pl4nted-t0ken"}
    finished = fleet.run("sql", "SELECT 'x pl4nted-t0ken y' AS it", env=environment)

    assert "x [redacted] y" in finished.stdout


def test_each_column_has_a_name_of_its_own(tmp_path: Path) -> None:
    fleet = small(tmp_path, tenants=1)
    finished = fleet.run("sql", "SELECT 1 AS a, 2 AS a, 3 AS a_2, 4 AS tenant", "--json")

    assert finished.document["rows"] == [
        {"tenant": "t0", "a": 1, "a_3": 2, "a_2": 3, "tenant_2": 4}
    ]
