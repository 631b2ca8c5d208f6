"""Jobs in SQL: the header, the statements, and what is refused."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest

from cronrunner.databases import KINDS
from cronrunner.model import Job, Option, TenantFilter, Transaction
from cronrunner.registry.finding import Found, find_jobs
from cronrunner.registry.sql import DIALECTS, SqlJob

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
    return tuple(step.statement.text for step in job.call.steps)


def counters(job: Job) -> tuple[str | None, ...]:
    assert isinstance(job.call, SqlJob)
    return (job.call.counter, *(step.counter for step in job.call.steps))


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
    assert statements(job) == ("DELETE FROM things WHERE at < :slot",)
    assert counters(job) == ("removed", None)


def test_without_a_header_a_file_is_no_job(find: Find) -> None:
    found = find("-- What each tenant has.\nCREATE TABLE things (id INT);\n")

    assert (found.jobs, found.problems) == ({}, ())
    assert [str(each) for each in found.warnings] == [
        "tidy.sql: has no header such as `-- name: billing.remind`, and is no job"
    ]


def test_without_a_name_a_job_is_called_like_its_file(find: Find) -> None:
    job = only(find("-- enabled: true\nDELETE FROM things"))

    assert (job.name, statements(job)) == ("tidy", ("DELETE FROM things",))
    assert counters(job) == ("rows", None)


def test_semicolons_in_strings_and_comments_end_no_statement(find: Find) -> None:
    job = only(
        find("""
        -- retries: 1
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
        -- name: tidy
        CREATE TRIGGER t AFTER INSERT ON a BEGIN
            UPDATE b SET n = n + 1;
            UPDATE c SET n = n + 1;
        END;
        DELETE FROM a;
        """)
    )

    assert [text.split()[0] for text in statements(job)] == ["CREATE", "DELETE"]


def test_a_line_above_a_statement_names_its_counter_and_its_database(find: Find) -> None:
    job = only(
        find("""
        -- counter: all
        -- Says nothing of the first statement.
        INSERT INTO a VALUES (1); -- counter: not_above
        -- Archived before it is deleted.
        -- counter: archived
        -- only: mysql, SQLite
        INSERT INTO b SELECT * FROM a;

        -- counter: deleted
        DELETE /* counter: no */ FROM a
        -- counter: within
        WHERE 1;
        """)
    )

    assert counters(job) == ("all", None, "archived", "deleted")
    assert isinstance(job.call, SqlJob)
    assert [sorted(step.only) for step in job.call.steps] == [[], ["mysql", "sqlite"], []]


def test_every_kind_of_database_can_be_named() -> None:
    assert set(KINDS) <= set(DIALECTS)


def test_options_are_declared_with_their_limits(find: Find) -> None:
    job = only(
        find("""
        -- option: keep_days = 30, minimum 1, maximum 3650, for how long, in days
        -- option: share = 0.5
        -- option: careful = true, environment CAREFUL
        -- option: basis = tenant, choices tenant | utc, whose day it is
        -- option: roles = [admin, member]
        -- option: zip = '01234', quoted
        -- option: empty = ''
        SELECT :keep_days, :share, :careful, :basis, :zip, :empty FROM t WHERE role IN :roles;
        """)
    )

    assert job.options == {
        "keep_days": Option(30, minimum=1, maximum=3650, help="for how long, in days"),
        "share": Option(0.5),
        "careful": Option(default=True, environment="CAREFUL"),
        "basis": Option("tenant", choices=("tenant", "utc"), help="whose day it is"),
        "roles": Option(("admin", "member")),
        "zip": Option("01234", help="quoted"),
        "empty": Option(""),
    }


def test_what_looks_like_a_parameter_and_is_none_needs_no_value(find: Find) -> None:
    job = only(
        find(r"""
        -- name: tidy
        UPDATE t SET a = '12:30 :x', b = "q :y", c = `:z`, d = e::date, f = \:g, h = :slot::date
        -- :comment
        WHERE /* :comment */ @n := 1 AND i LIKE '%\:j%';
        """)
    )

    assert statements(job) == (
        (
            "UPDATE t SET a = '12:30 :x', b = \"q :y\", c = `:z`, d = e::date, f = :g, h = :slot::date\n"
            "\nWHERE   @n := 1 AND i LIKE '%\\:j%'"
        ),
    )


def test_every_mistake_of_a_file_is_said_at_once_with_its_line(find: Find) -> None:
    found = find("""
        -- name: cleanup.tidy
        -- schedule: 0 25 * * *
        -- timeout: soon
        -- timeout: 5m
        -- option: keep_days = 0, minimum 1
        -- option: slot = 1
        -- option: nothing
        -- option: least = 1, minimum few
        -- transaction: some

        -- countr: x
        DELETE FROM a
        WHERE at < :slto AND b = :tenant AND c = :least;
        -- only: oracle
        DELETE FROM b WHERE n = :keep;
        -- counter: below
        """)

    lines = [str(problem).partition(": ") for problem in found.problems]
    assert [(place, text) for place, _, text in lines] == [
        (
            "tidy.sql:2",
            "job cleanup.tidy: schedule: expected a cron expression that can fire, got '0 25 * * *' (Bad hour)",
        ),
        (
            "tidy.sql:3",
            "job cleanup.tidy: timeout: expected a duration such as 30s, 5m or 1h30m, got 'soon'",
        ),
        ("tidy.sql:4", "timeout is there twice; it was said on line 3"),
        ("tidy.sql:5", "option: keep_days: its default: expected at least 1, got 0"),
        ("tidy.sql:6", "option: slot is what each statement knows; call it otherwise"),
        (
            "tidy.sql:7",
            "option: expected such as `keep_days = 30, minimum 1, what it means`, got 'nothing'",
        ),
        ("tidy.sql:8", "option: expected a number as minimum, got 'few'"),
        (
            "tidy.sql:9",
            "job cleanup.tidy: transaction: expected tenant or batch or none, got 'some'",
        ),
        ("tidy.sql:11", "expected counter or only above a statement, got 'countr'"),
        ("tidy.sql:13", "unknown parameter :slto; known are now, slot, tenant"),
        ("tidy.sql:14", "only: expected mysql or mariadb or postgresql or sqlite, got 'oracle'"),
        ("tidy.sql:15", "unknown parameter :keep; known are now, slot, tenant"),
        ("tidy.sql:16", "expected a statement below this line, found none"),
    ]
    assert found.jobs == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-- name: a\n-- only a comment;\n", "tidy.sql: expected a SQL statement, found none"),
        (
            "-- name: a\n-- shedule: 0 4 * * *\nDELETE FROM a",
            (
                "tidy.sql:2: unknown header key 'shedule'; known are name, schedule, every, timezone,"
                " catch_up, timeout, retries, overlap, server_lock, tenants, enabled, transaction,"
                " isolation, effects, counter, option"
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
            "-- name: a\n-- transaction: batch\nDELETE FROM a",
            (
                "tidy.sql:2: transaction: expected tenant or none, got batch, which is for jobs in"
                " Python"
            ),
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


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("30, minimun 1, how long", "unknown limit 'minimun 1'; did you mean 'minimum 1'"),
        ("30, minimum 1, maximim 90", "unknown limit 'maximim 90'; did you mean 'maximum 90'"),
        ("a, choice a | b", "unknown limit 'choice a | b'; did you mean 'choices a | b'"),
        ("30, Enviroment DAYS", "unknown limit 'Enviroment DAYS'; did you mean 'environment DAYS'"),
        (
            "30, how long, minimum 1",
            "expected limits before what it means, got 'minimum 1' in it",
        ),
    ],
)
def test_a_limit_that_is_misspelt_or_misplaced_is_no_help(
    find: Find, said: str, expected: str
) -> None:
    (problem,) = find(f"-- option: days = {said}\nDELETE FROM a").problems

    assert str(problem) == f"tidy.sql:1: option: {expected}"


def test_help_may_begin_with_a_word_that_is_like_a_limit(find: Find) -> None:
    job = only(
        find("-- option: days = 3, minutes 5 and more, minimum of what is kept\nDELETE FROM a")
    )

    assert job.options["days"].help == "minutes 5 and more, minimum of what is kept"
