"""The tables."""

import pytest
from sqlalchemy import inspect, text

from jobs.schema import metadata, outbox
from tests.jobs.rows import message
from tests.jobs.tenant import TenantDatabase


def test_there_are_25_tables_each_numbered_by_an_id(tenant: TenantDatabase) -> None:
    inspector = inspect(tenant.engine)

    assert len(metadata.tables) == 25
    assert set(inspector.get_table_names()) >= metadata.tables.keys()
    assert {
        tuple(inspector.get_pk_constraint(name)["constrained_columns"]) for name in metadata.tables
    } == {("id",)}


def test_every_index_and_unique_key_is_there_under_a_name(tenant: TenantDatabase) -> None:
    inspector = inspect(tenant.engine)

    for name, table in metadata.tables.items():
        there = {
            tuple(index["column_names"])
            for index in inspector.get_indexes(name) + inspector.get_unique_constraints(name)
        }
        wanted = {tuple(column.name for column in index.columns) for index in table.indexes}
        assert wanted <= there, name


@pytest.mark.parametrize("body", ["", "🎁" * 300_000])
def test_long_text_is_kept_whole(tenant: TenantDatabase, body) -> None:
    tenant.add(outbox, message(body=body))

    (row,) = tenant.rows(outbox)
    assert row["body"] == body


@pytest.mark.parametrize("tenant", ["mariadb"], indirect=True)
def test_on_mariadb_tables_hold_transactions_and_every_character(tenant: TenantDatabase) -> None:
    with tenant.engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT DISTINCT engine, table_collation FROM information_schema.tables"
                " WHERE table_schema = DATABASE()"
            )
        ).all()

    assert {row[0] for row in found} == {"InnoDB"}
    assert all(row[1].startswith("utf8mb4") for row in found)
