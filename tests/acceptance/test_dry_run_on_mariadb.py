"""`--dry-run` on a MariaDB, where DDL commits."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.acceptance.dry_runs import AT, DRY, changes, rows_on
from tests.acceptance.fleet import Fleet
from tests.servers import MariaDB


@pytest.fixture
def on_mariadb(mariadb: MariaDB, prefix: str, tmp_path: Path) -> Callable[..., Fleet]:
    """Make a fleet of two tenants, each with a table `done`."""

    def make(body: str, *, schema: Iterable[str] = (), keys: str = "") -> Fleet:
        names = [f"{prefix}{n}" for n in range(2)]
        mariadb.create_databases(names, "CREATE TABLE done (n INT) ENGINE=InnoDB", *schema)
        servers = {
            "main": {"url": mariadb.url(database=""), "discover": {"databases": f"{prefix}*"}}
        }
        insert = 'ctx.execute("INSERT INTO done VALUES (1)")'
        source = (
            f"@job({keys})\ndef work(ctx):\n    {insert}\n    {body}\n    return {{'rows': 1}}\n"
        )
        return Fleet(tmp_path, {"servers": servers}, {"jobs": source})

    return make


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE more (n INT)",
        "ALTER TABLE done ADD COLUMN m INT",
        "TRUNCATE TABLE done",
        "DROP TABLE done",
        "LOCK TABLES done WRITE",
        "ANALYZE TABLE done",
        "START TRANSACTION",
        "SET autocommit = 1",
        "SET @a = 1, SESSION autocommit = ON",
        "SET STATEMENT max_statement_time = 9 FOR TRUNCATE TABLE done",
        "/*! TRUNCATE TABLE done */",
        "-- tidy\n# up\n/* now */ TRUNCATE TABLE done",
        "EXECUTE IMMEDIATE 'TRUNCATE TABLE done'",
        "COMMIT",
    ],
)
def test_what_commits_by_itself_is_refused_before_it_is_executed(
    mariadb: MariaDB, prefix: str, on_mariadb: Callable[..., Fleet], statement: str
) -> None:
    fleet = on_mariadb(f"ctx.connection.exec_driver_sql({statement!r})")
    before = rows_on(mariadb, prefix)
    dry = fleet.run(*DRY)

    assert dry.document["outcomes"] == {"failed": 2}
    assert dry.document["causes"][0]["cause"].startswith("dry run: ")
    assert rows_on(mariadb, prefix) == before


@pytest.mark.parametrize(
    ("statement", "called"),
    [
        ("SET PASSWORD = PASSWORD('TENANT-VALUE')", "SET PASSWORD"),
        ("set  password=PASSWORD('TENANT-VALUE')", "set password"),
        ("CALL charge('TENANT-VALUE')", "CALL"),
        ("KILL TENANT-VALUE", "KILL"),
        ("TENANT-VALUE", "a statement"),
    ],
)
def test_what_is_refused_is_called_by_no_value_and_alike_for_all_tenants(
    on_mariadb: Callable[..., Fleet], statement: str, called: str
) -> None:
    # The line of the job's source is in its traceback.
    text = f"{statement!r}.replace('TENANT', ctx.tenant.name).replace('VALUE', 'dohpaz'[::-1])"
    dry = on_mariadb(f"ctx.connection.exec_driver_sql({text})").run(*DRY)

    (cause,) = dry.document["causes"]
    assert cause["cause"].startswith(f"dry run: {called} may commit")
    assert cause["count"] == 2
    assert "zaphod" not in dry.stdout + dry.stderr


@pytest.mark.parametrize(
    "statement",
    [
        "SET @a = 1",
        "SELECT 1",
        "(SELECT 1) UNION (SELECT 2)",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "CREATE TEMPORARY TABLE t (n INT)",
        "SAVEPOINT a",
        "SHOW TABLES",
    ],
)
def test_what_does_not_commit_is_executed(
    mariadb: MariaDB, prefix: str, on_mariadb: Callable[..., Fleet], statement: str
) -> None:
    fleet = on_mariadb(f"ctx.connection.exec_driver_sql({statement!r})")
    before = rows_on(mariadb, prefix)
    dry = fleet.run(*DRY)

    assert dry.document["outcomes"] == {"succeeded": 2}, dry.document["causes"]
    assert {row["rows_changed"] for row in dry.document["executions"]} == {1}
    assert rows_on(mariadb, prefix) == before


def test_an_exactly_once_job_leaves_neither_marker_nor_table(
    mariadb: MariaDB, prefix: str, on_mariadb: Callable[..., Fleet]
) -> None:
    fleet = on_mariadb("pass", keys="exactly_once=True")
    before = rows_on(mariadb, prefix)
    dry = fleet.run(*DRY, *AT)
    assert rows_on(mariadb, prefix) == before
    real = fleet.run("run", "--json", *AT)
    done = fleet.run(*DRY, *AT, "--again")

    assert {row["rows_changed"] for row in dry.document["executions"]} == {1}
    assert changes(dry) == changes(real)
    assert {row["reason"] for row in done.document["executions"]} == {"recovered"}
    assert {row["rows_changed"] for row in done.document["executions"]} == {0}


def test_a_table_without_transactions_keeps_its_rows_and_that_is_said(
    on_mariadb: Callable[..., Fleet],
) -> None:
    fleet = on_mariadb(
        "ctx.execute('INSERT INTO old VALUES (1)')",
        schema=["CREATE TABLE old (n INT) ENGINE=MyISAM"],
    )
    dry = fleet.run("run", "--dry-run")

    assert dry.code == 1
    assert "a table without transactions was changed" in dry.stdout
    assert "nothing was changed" not in dry.stdout
