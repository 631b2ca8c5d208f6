"""Failures are grouped by what went wrong, not by whom it met."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronrunner.databases import describe
from cronrunner.execution import cause_of
from cronrunner.model import Tenant


def tenant(name: str, database: str | None = None) -> Tenant:
    return Tenant(name=name, server="main", database=database or name)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("ValueError: 17 of 23 rows", "ValueError: # of # rows"),
        ("ValueError: took 1.5 s", "ValueError: took # s"),
        (
            "ProgrammingError 1146: Table 'agency_acme.t' doesn't exist",
            "ProgrammingError 1146: Table '*.t' doesn't exist",
        ),
        ("KeyError: 'agency_acme'", "KeyError: '*'"),
        # A longer name is another one.
        ("KeyError: 'agency_acme2'", "KeyError: 'agency_acme2'"),
        (
            "Odd: id 123e4567-e89b-12d3-a456-426614174000 and 9e107d9d372bb6826bd8",
            "Odd: id # and #",
        ),
        # Words stay, though hexadecimal digits could be read into them.
        ("Odd: the facade decade", "Odd: the facade decade"),
        ("SystemExit", "SystemExit"),
        ("Custom: utf8mb4 and md5", "Custom: utf8mb4 and md5"),
    ],
)
def test_what_differs_between_tenants_is_taken_out(text: str, cause: str) -> None:
    assert cause_of(text, tenant("agency_acme")) == cause


def test_name_and_database_are_taken_out_where_they_differ() -> None:
    assert cause_of("E: acme at crm_acme", tenant("acme", "crm_acme")) == "E: * at *"


def test_a_file_is_taken_out_whole() -> None:
    found = cause_of("E: cannot open /srv/t/acme.db", tenant("acme", "/srv/t/acme.db"))

    assert found == "E: cannot open *"


def test_the_code_of_an_error_stays() -> None:
    assert cause_of("OperationalError 2013: lost 5 times", tenant("a")).startswith(
        "OperationalError 2013: lost # times"
    )


@given(st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True), st.text(max_size=400))
def test_a_cause_is_short_and_the_same_for_two_tenants(name: str, message: str) -> None:
    one = cause_of(f"ValueError: <{name}> {message}", tenant(name))

    assert len(one) <= 300
    assert one.startswith("ValueError: <*>")


def test_a_text_that_sqlite_cannot_read_is_not_quoted() -> None:
    odd = "SELECT CAST(x'68757368ff27' || ' hush' AS TEXT) AS body"
    with (
        closing(sqlite3.connect(":memory:")) as connection,
        pytest.raises(sqlite3.OperationalError, match="hush") as error,
    ):
        connection.execute(odd).fetchall()

    assert describe(error.value) == (
        "OperationalError OperationalError: Could not decode to UTF-8 column 'body'"
    )
