"""Jobs in SQL: the header, the statements, and what is refused."""

from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from sqlite3 import connect
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import pytest

from cronrunner.model import Job, TenantFilter, Transaction
from cronrunner.registry.finding import Found, find_jobs
from cronrunner.registry.sql import SqlJob

Find = Callable[[str], Found]


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """Find the job of a folder that holds one file, ``tidy.sql``."""
    folder = tmp_path / "sql_jobs"
    folder.mkdir()

    def find(text: str) -> Found:
        (folder / "tidy.sql").write_text(dedent(text).lstrip(), encoding="utf-8")
        return find_jobs(folder)

    return find


def only(found: Found) -> Job:
    assert found.problems == ()
    (job,) = found.jobs.values()
    return job


def statements(job: Job) -> tuple[str, ...]:
    assert isinstance(job.call, SqlJob)
    return job.call.statements


def test_a_header_says_what_a_decorator_would(find: Find) -> None:
    job = only(
        find("""
        -- Removes what is old.
        -- name: cleanup.tidy
        -- schedule: 0 4 * * *
        -- timeout: 90s
        -- retries: 2
        -- transaction: none
        -- tenants: agency_*, other
        -- enabled: false
        -- counter: removed
        --
        -- Every night.
        DELETE FROM things WHERE at < :slot;
        """)
    )

    assert job.name == "cleanup.tidy"
    assert job.schedule == "0 4 * * *"
    assert job.timeout == timedelta(seconds=90)
    assert job.retry.attempts == 3
    assert job.transaction is Transaction.NONE
    assert job.tenants == TenantFilter(names=("agency_*", "other"))
    assert not job.enabled
    assert job.description == "Removes what is old.\n\nEvery night."
    assert job.origin == "tidy.sql:1"
    assert job.call == SqlJob(("DELETE FROM things WHERE at < :slot",), "removed")


def test_without_a_header_a_job_is_called_like_its_file(find: Find) -> None:
    job = only(find("DELETE FROM things"))

    assert (job.name, job.call) == ("tidy", SqlJob(("DELETE FROM things",), "rows"))


def test_semicolons_in_strings_and_comments_end_no_statement(find: Find) -> None:
    job = only(
        find("""
        -- Two statements; not five.
        UPDATE a SET t = 'x; y''; -- z' WHERE b = 1; -- and; so on
        /* one; more; comment */
        DELETE FROM "odd;name";;
        -- The end;
        """)
    )

    assert statements(job) == (
        "UPDATE a SET t = 'x; y''; -- z' WHERE b = 1",
        'DELETE FROM "odd;name"',
    )


def test_the_body_of_a_trigger_is_one_statement(find: Find) -> None:
    job = only(
        find("""
        CREATE TRIGGER t AFTER INSERT ON a BEGIN
            UPDATE b SET n = n + 1;
            UPDATE c SET n = n + 1;
        END;
        DELETE FROM a;
        """)
    )

    assert [text.split()[0] for text in statements(job)] == ["CREATE", "DELETE"]


def test_statements_run_in_order_and_their_rows_are_summed(find: Find) -> None:
    job = only(
        find("""
        -- counter: touched
        CREATE TABLE made (n);
        INSERT INTO made VALUES (1), (2);
        SELECT * FROM made;
        UPDATE made SET n = 0;
        """)
    )
    with closing(connect(":memory:")) as database:
        context: Any = SimpleNamespace(execute=database.execute)
        assert job.call(context) == {"touched": 4}
        assert database.execute("SELECT sum(n), count(*) FROM made").fetchone() == (0, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "tidy.sql: expected a SQL statement, found none"),
        ("-- name: a\n-- only a comment;\n", "tidy.sql: expected a SQL statement, found none"),
        (
            "-- name: a\n-- shedule: 0 4 * * *\nDELETE FROM a",
            (
                "tidy.sql:2: unknown header key 'shedule'; known are name, schedule, every, timezone,"
                " catch_up, timeout, retries, transaction, overlap, server_lock, isolation, tenants,"
                " external_effects, enabled, counter"
            ),
        ),
        (
            "-- timeout: soon\nDELETE FROM a",
            "tidy.sql:1: job tidy: timeout: expected a duration such as 30s, 5m or 1h30m, got 'soon'",
        ),
        (
            "-- retries: many\nDELETE FROM a",
            "tidy.sql:1: job tidy: retries: expected a whole number from 0, got 'many'",
        ),
        (
            "-- enabled: no\nDELETE FROM a",
            "tidy.sql:1: job tidy: enabled: expected True or False, got 'no'",
        ),
        (
            "-- name: two words\nDELETE FROM a",
            (
                "tidy.sql:1: job tidy: name: expected letters, digits, _ and dots, at most 80 long,"
                " got 'two words'"
            ),
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(
    find: Find, text: str, expected: str
) -> None:
    found = find(text)

    assert [str(problem) for problem in found.problems] == [expected]
    assert found.jobs == {}


def test_a_file_that_is_not_utf_8_is_broken(tmp_path: Path) -> None:
    (tmp_path / "odd.sql").write_bytes(b"SELECT '\xff'")

    (problem,) = find_jobs(tmp_path).problems
    assert problem.file == "odd.sql"
    assert "utf-8" in problem.text


def test_the_header_ends_where_the_comments_at_the_top_end(find: Find) -> None:
    job = only(find("-- retries: 1\n\n-- retries: 5\nDELETE FROM a"))

    assert job.retry.attempts == 2
    assert job.description == ""
