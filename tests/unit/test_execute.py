"""``ctx.execute``: SQL text with values in it, on both kinds of servers."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, String, Table

from cronrunner import UtcDateTime
from cronrunner.errors import UnknownParameterError
from cronrunner.sqltext import read_pieces, read_statements
from cronrunner.testing import SLOT, ThrowawayTenant, throwaway_tenant

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("label", String(50)),
    Column("at", UtcDateTime()),
)
ROWS = [
    {"id": 1, "label": "a", "at": SLOT - timedelta(days=1)},
    {"id": 2, "label": "12:30 :slot", "at": SLOT},
    {"id": 3, "label": "50%", "at": SLOT + timedelta(days=1)},
]

tenant = throwaway_tenant(metadata, servers={"mariadb": "mariadb_url"})


@pytest.mark.parametrize(
    ("condition", "values", "found"),
    [
        ("at <= :slot", {}, [1, 2]),
        ("at <= :now", {}, [1, 2]),
        ("at < :until", {"until": SLOT}, [1]),
        ("label = :x OR label = :x OR id = :y", {"x": "a", "y": 3}, [1, 3]),
        ("label = '12:30 :slot'", {}, [2]),
        ("label LIKE '50%'", {}, [3]),
        ("label LIKE '%:slot' AND id = :x", {"x": 2}, [2]),
        ("id IN :ids", {"ids": [1, 3]}, [1, 3]),
        ("id IN :ids", {"ids": ()}, []),
        ("id = 1 -- and :nothing\n", {}, [1]),
        ("id = 1 /* and :nothing */", {}, [1]),
        ("id IN :ids AND label = :slot", {"ids": (1, 2), "slot": "a"}, [1]),
    ],
)
def test_values_are_bound_where_sql_has_a_place_for_them(
    tenant: ThrowawayTenant, condition: str, values: dict[str, Any], found: list[int]
) -> None:
    tenant.add(things, *ROWS)

    def look(ctx):
        rows = ctx.execute(f"SELECT id FROM things WHERE {condition}", **values)
        assert sorted(rows.scalars()) == found

    tenant.run(look)


def test_a_statement_is_compiled_once_and_finds_what_its_values_say_each_time(
    tenant: ThrowawayTenant,
) -> None:
    tenant.add(things, *ROWS)

    def look(ctx):
        compiled = ctx.connection.get_execution_options()["compiled_cache"]
        one = "SELECT id FROM things WHERE at <= :slot AND id IN (:x)"
        before = len(compiled)
        assert [ctx.execute(one, x=x).scalars().all() for x in (1, 2, 3)] == [[1], [2], []]
        assert len(compiled) == before + 1
        many = "SELECT id FROM things WHERE id IN :ids ORDER BY id"
        wanted: list[Sequence[int]] = [[1], [2, 3], [], (1, 2, 3)]
        assert [ctx.execute(many, ids=ids).scalars().all() for ids in wanted] == [
            list(ids) for ids in wanted
        ]

    tenant.run(look)


def test_a_list_and_a_single_value_are_two_statements(tenant: ThrowawayTenant) -> None:
    tenant.add(things, *ROWS)

    def look(ctx):
        statement = "SELECT id FROM things WHERE id = :x"
        assert ctx.execute(statement, x=2).scalars().all() == [2]
        # In parentheses, as a list is written.
        assert ctx.execute(statement, x=[3]).scalars().all() == [3]
        assert ctx.execute(statement, x=1).scalars().all() == [1]

    tenant.run(look)


def test_a_value_that_nobody_knows_is_named_with_those_that_are(tenant: ThrowawayTenant) -> None:
    def look(ctx):
        ctx.execute("SELECT :slto, :b", since=1)

    with pytest.raises(UnknownParameterError) as caught:
        tenant.run(look)
    assert str(caught.value) == "unknown parameter :b, :slto; known are now, since, slot, tenant"


def test_a_value_is_no_part_of_an_error(tenant: ThrowawayTenant) -> None:
    value = "pl4nted-value"

    def look(ctx):
        ctx.execute("SELECT * FROM missing WHERE a = :a AND b = 'a literal'", a=value)

    attempted = tenant.attempt(look)
    assert "missing" in str(attempted.error)
    assert "a literal" not in str(attempted.error)
    assert value not in f"{attempted.error}{attempted.result.traceback}"


SQL = [*"ab1 :;'\"`-/*\\%#$?@=[]()\n\té\0", "::", ":now", "--", "/*", "*/", "''", "BEGIN ", "END"]


@given(st.lists(st.sampled_from(SQL), max_size=25).map("".join))
@settings(max_examples=200, deadline=None)
def test_whatever_a_text_holds_nothing_of_it_is_lost_but_escapes_of_colons(text: str) -> None:
    read = "".join(p if isinstance(p, str) else f":{p.name}" for p in read_pieces(text))

    assert read.replace("\\:", ":") == text.replace("\\:", ":")
    read_statements(text)
