"""maintenance.optimize_tables"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from jobs.schema import job_items, metadata
from tests.jobs.tenant import JOBS, NOW, S, TenantDatabase

JOB = "maintenance.optimize_tables"
NOTHING = {"done": 0, "locked": 0, "left": 0, "already": 0, "errors": 0}
FIVE = [
    "framework_controls", "control_evidence", "compliance_snapshots", "work_items", "audit_log",
]  # fmt: skip


@contextmanager
def statements(tenant: TenantDatabase) -> Iterator[list[str]]:
    """Note what is said to the database about its tables."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(("ANALYZE", "OPTIMIZE", "VACUUM")):
            seen.append(statement)

    event.listen(tenant.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(tenant.engine, "before_cursor_execute", note)


@contextmanager
def held(
    tenant: TenantDatabase, request: pytest.FixtureRequest, sqlite: str, mysql: str
) -> Iterator[None]:
    """Hold a table from another session, as somebody does who works on it."""
    name = tenant.engine.url.database
    with closing(_other_session(request, name)) as session:
        session.cursor().execute(sqlite if isinstance(session, sqlite3.Connection) else mysql)
        yield


def _other_session(request: pytest.FixtureRequest, name: str | None) -> Any:
    if name is not None and name.endswith(".db"):
        return sqlite3.connect(name)
    return request.getfixturevalue("mariadb").connect(database=name)


def test_five_tables_are_looked_after(tenant: TenantDatabase) -> None:
    with statements(tenant) as seen:
        assert tenant.run(JOB) == NOTHING | {"done": 5}

    assert [each.split()[-1].strip("`") for each in seen] == FIVE
    marks = tenant.rows(job_items)
    assert [(each["item"], each["state"], each["slot"]) for each in marks] == [
        (table, "done", S) for table in FIVE
    ]


def test_a_second_run_of_the_slot_does_none_and_the_next_slot_all(tenant: TenantDatabase) -> None:
    tenant.run(JOB)
    before = tenant.content()
    with statements(tenant) as seen:
        assert tenant.run(JOB) == NOTHING | {"already": 5}
    assert (seen, tenant.content()) == ([], before)

    assert tenant.run(JOB, slot=S + timedelta(days=7)) == NOTHING | {"done": 5}
    assert tenant.run(JOB) == NOTHING | {"already": 5}


def test_what_one_slot_has_left_it_does_when_it_is_repeated(tenant: TenantDatabase) -> None:
    assert tenant.run(JOB, tables="audit_log, users") == NOTHING | {"done": 2}
    assert tenant.run(JOB) == NOTHING | {"done": 4, "already": 1}


def test_statistics_are_gathered_and_not_rebuilt_unless_asked_for(tenant: TenantDatabase) -> None:
    is_mysql = tenant.engine.dialect.name != "sqlite"
    with statements(tenant) as seen:
        tenant.run(JOB, tables="users")
        tenant.run(JOB, slot=S + timedelta(days=7), tables="users", optimize=True, vacuum=True)

    if is_mysql:
        assert seen == ["ANALYZE TABLE users", "OPTIMIZE TABLE users"]
    else:
        assert seen == ["ANALYZE users", "ANALYZE users", "VACUUM"]


@pytest.mark.parametrize("tenant", ["sqlite"], indirect=True)
def test_a_vacuum_is_done_once_for_a_slot_after_the_tables(tenant: TenantDatabase) -> None:
    assert tenant.run(JOB, vacuum=True) == NOTHING | {"done": 6}
    assert tenant.run(JOB, vacuum=True) == NOTHING | {"already": 6}


def test_all_means_all_tables_of_the_schema(tenant: TenantDatabase) -> None:
    assert tenant.run(JOB, tables="All") == NOTHING | {"done": len(metadata.tables)}


def test_a_table_that_is_named_twice_is_done_once(tenant: TenantDatabase) -> None:
    assert tenant.run(JOB, tables="users,users") == NOTHING | {"done": 1}


def test_a_table_that_is_not_in_the_schema_is_a_mistake_of_the_configuration() -> None:
    with pytest.raises(ValueError, match="got 'nope'"):
        JOBS[JOB].options["tables"].read(["audit_log", "nope"])


@pytest.mark.parametrize(
    ("left", "counted"),
    [
        (timedelta(seconds=60), {"done": 5}),
        (timedelta(seconds=59), {"done": 3, "left": 2}),
    ],
)
def test_no_table_is_begun_when_less_than_a_minute_is_left(
    tenant: TenantDatabase, left, counted
) -> None:
    """The clock jumps after the third table; the job has half an hour."""
    with statements(tenant) as seen:
        late = NOW + timedelta(minutes=30) - left

        def clock():
            return NOW if len(seen) < 3 else late

        assert tenant.run(JOB, clock=clock) == NOTHING | counted

    assert [each["item"] for each in tenant.rows(job_items)] == FIVE[: counted["done"]]


def test_a_table_that_somebody_holds_is_left_to_the_next_slot(
    tenant: TenantDatabase, request: pytest.FixtureRequest
) -> None:
    with held(tenant, request, "BEGIN IMMEDIATE", "LOCK TABLES users WRITE"):
        assert tenant.run(JOB, tables="users", lock_s=1) == NOTHING | {"locked": 1}
    assert tenant.rows(job_items) == []

    assert tenant.run(JOB, tables="users") == NOTHING | {"done": 1}


@pytest.mark.parametrize("tenant", ["mariadb"], indirect=True)  # others have no such statement
def test_a_table_that_cannot_be_rebuilt_for_its_readers_is_left_to_the_next_slot(
    tenant: TenantDatabase, request: pytest.FixtureRequest
) -> None:
    with held(tenant, request, "", "LOCK TABLES users READ"):
        counters = tenant.run(JOB, tables="users, audit_log", lock_s=1, optimize=True)

    assert counters == NOTHING | {"locked": 1, "done": 1}


@pytest.mark.parametrize("tenant", ["mariadb"], indirect=True)  # others have no such answer
def test_what_the_server_says_is_wrong_with_a_table_is_an_error_and_the_others_go_on(
    tenant: TenantDatabase,
) -> None:
    with tenant.engine.begin() as connection:
        connection.execute(text("DROP TABLE rate_limits"))
        connection.execute(text("CREATE VIEW rate_limits AS SELECT id FROM users"))
    try:
        assert tenant.run(JOB, tables="rate_limits, users") == NOTHING | {"done": 1, "errors": 1}
        before = tenant.rows(job_items)
        assert tenant.run(JOB, tables="rate_limits, users") == NOTHING | {"already": 1, "errors": 1}
    finally:
        with tenant.engine.begin() as connection:
            connection.execute(text("DROP VIEW rate_limits"))

    assert tenant.rows(job_items) == before
    assert [(each["item"], each["state"]) for each in before] == [
        ("rate_limits", "error"),
        ("users", "done"),
    ]


def test_a_table_that_is_missing_fails_the_job_and_what_was_done_stays_done(
    tenant: TenantDatabase,
) -> None:
    with tenant.engine.begin() as connection:
        connection.execute(text("DROP TABLE control_evidence"))

    with pytest.raises(DBAPIError, match="control_evidence"):
        tenant.run(JOB)
    assert [each["item"] for each in tenant.rows(job_items)] == ["framework_controls"]
