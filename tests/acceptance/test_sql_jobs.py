"""What a `.sql` job sends, counts and commits, on each kind of server."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import Fleet
from tests.acceptance.small import SLOT
from tests.servers import MariaDB

TABLE = "CREATE TABLE things (id INTEGER, at DATETIME, label VARCHAR(100))"
ROWS = [
    "INSERT INTO things VALUES (1, '2026-03-01 02:00:00', 'due'), (2, '2026-03-01 02:00:01', 'later')",
    "INSERT INTO things VALUES (3, '2026-01-01 00:00:00', '12:30 :x'), (4, NULL, '50% of :slot')",
]

Query = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(params=["sqlite", "mariadb"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Callable[..., Fleet], Query]:
    """Make fleets of one tenant, and ask that tenant's database."""
    if request.param == "sqlite":
        file = tmp_path / "acorn.db"
        with closing(sqlite3.connect(file)) as tenant:
            tenant.executescript(";".join([TABLE, *ROWS]))
        server: dict[str, Any] = {"url": "sqlite://", "discover": {"directory": "."}}

        def query(sql: str) -> list[tuple[Any, ...]]:
            with closing(sqlite3.connect(file)) as tenant:
                return list(tenant.execute(sql))
    else:
        mariadb: MariaDB = request.getfixturevalue("mariadb")
        name = f"{request.getfixturevalue('prefix')}acorn"
        mariadb.create_databases([name], TABLE, *ROWS)
        server = {"url": mariadb.url(), "discover": {"list": [{"name": "acorn", "database": name}]}}

        def query(sql: str) -> list[tuple[Any, ...]]:
            with closing(mariadb.connect(database=name)) as tenant, tenant.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())

    def fleet(text: str, **config: Any) -> Fleet:
        return Fleet(tmp_path, {"servers": {"main": server}, **config}, {"tidy.sql": text})

    return fleet, query


def counters(fleet: Fleet, *args: str) -> dict[str, int]:
    finished = fleet.run("run", "--scheduled-at", SLOT, "--json", *args)
    (execution,) = finished.document["executions"]
    assert execution["outcome"] == "succeeded", json.dumps(execution)
    found: dict[str, int] = execution["counters"]
    return found


def test_each_statement_adds_to_its_counter_and_the_rest_to_that_of_the_job(world: Any) -> None:
    fleet, query = world
    job = """
        -- counter: rest

        -- counter: archived
        CREATE TABLE archived AS SELECT * FROM things WHERE at <= :slot;
        -- counter: labelled
        UPDATE things SET label = :tenant WHERE at <= :slot;
        -- counter: deleted
        DELETE FROM things WHERE at IS NULL;
        -- counter: left
        SELECT id FROM things;
        SELECT id FROM things;
        DELETE FROM things WHERE id = 2;
    """

    found = counters(fleet(job))
    assert {**found, "archived": 0} == {
        "archived": 0, "labelled": 2, "deleted": 1, "left": 3, "rest": 1,
    }  # fmt: skip
    assert query("SELECT id, label FROM things ORDER BY id") == [(1, "acorn"), (3, "acorn")]
    assert query("SELECT count(*) FROM archived") == [(2,)]


def test_options_come_from_the_header_the_configuration_and_the_tenant(world: Any) -> None:
    fleet, query = world
    job = """
        -- option: least = 4, minimum 1, the first id to go
        -- option: labels = [due, later]
        -- counter: deleted
        DELETE FROM things WHERE id >= :least OR label IN :labels;
    """
    wrong = fleet(job, jobs={"tidy": {"options": {"least": 0, "lest": 1}}}).run("check")
    assert wrong.code == 2
    assert "option least: expected at least 1, got 0" in wrong.stdout
    assert "no option 'lest'" in wrong.stdout

    assert counters(
        fleet(job, tenants={"acorn": {"jobs": {"tidy": {"options": {"labels": ["due"]}}}}})
    ) == {"deleted": 2}
    assert query("SELECT id FROM things ORDER BY id") == [(2,), (3,)]


def test_what_stands_in_quotes_arrives_as_it_is_and_percent_signs_do(world: Any) -> None:
    fleet, query = world
    job = """
        -- counter: found
        UPDATE things SET label = 'a:b :slot \\:now %s %(x)s 100%%'
        -- :comment
        WHERE label = '12:30 :x' OR label LIKE '50%% of :slot' AND :slot > '2026-01-01' /* :c */;
    """
    assert counters(fleet(job)) == {"found": 2}

    ids = query("SELECT id FROM things WHERE label LIKE 'a:b :slot%' ORDER BY id")
    assert ids == [(3,), (4,)]
    ((label,),) = query("SELECT label FROM things WHERE id = 3")
    # MySQL takes the backslash for an escape, as it does in any client.
    assert label in {"a:b :slot \\:now %s %(x)s 100%%", "a:b :slot :now %s %(x)s 100%%"}


def test_a_statement_for_another_kind_of_database_is_left_out(world: Any) -> None:
    fleet, query = world
    job = """
        -- only: sqlite
        -- counter: touched
        UPDATE things SET label = 'sqlite' WHERE strftime('%Y', at) = '2026';
        -- only: mysql
        -- counter: touched
        UPDATE things SET label = 'mysql' WHERE DATE_FORMAT(at, '%Y') = '2026';
        -- only: postgresql
        -- counter: other
        UPDATE things SET label = 'postgresql' WHERE to_char(at, 'YYYY') = '2026';
    """

    assert counters(fleet(f"-- counter: touched\n\n{job}")) == {"touched": 3, "other": 0}
    ((label, number),) = query(
        "SELECT label, count(*) FROM things WHERE at >= '2026-01-01' GROUP BY label"
    )
    assert (label in {"sqlite", "mysql"}, number) == (True, 3)


def test_a_job_without_a_statement_for_a_database_is_skipped_there(world: Any) -> None:
    fleet, _ = world
    finished = fleet("-- counter: n\n\n-- only: postgresql\nDELETE FROM things;").run(
        "run", "--json"
    )

    (execution,) = finished.document["executions"]
    assert execution["outcome"] == "skipped"
    assert execution["reason"].startswith("no statement of it is for ")


def test_one_transaction_holds_all_statements_or_none(world: Any) -> None:
    fleet, query = world
    job = "-- name: tidy\nDELETE FROM things;\nDELETE FROM missing;\n"

    assert fleet(job).run("run").code == 1
    assert query("SELECT count(*) FROM things") == [(4,)]


def test_without_a_transaction_each_statement_is_committed_by_itself(world: Any) -> None:
    fleet, query = world
    job = "-- transaction: none\nDELETE FROM things WHERE id = 1;\nDELETE FROM missing;\n"

    assert fleet(job).run("run").code == 1
    assert query("SELECT count(*) FROM things") == [(3,)]


def test_what_refuses_a_transaction_can_be_done_without_one(world: Any) -> None:
    fleet, _ = world
    job = """\
        -- transaction: none
        -- only the first of two.

        -- only: sqlite
        VACUUM;
        -- only: mysql
        OPTIMIZE TABLE things;
        DELETE FROM things;
    """

    assert counters(fleet(job)) == {"rows": 4}
