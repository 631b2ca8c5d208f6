"""Work through many rows in bounded steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import ColumnElement, Connection, Table, select

#: Bounds the statement, the memory, and what a single UPDATE or DELETE locks at a time.
BATCH_SIZE: Final = 500


def ids_in_batches(
    connection: Connection, table: Table, condition: ColumnElement[bool]
) -> Iterator[list[int]]:
    """Yield the ids of the rows that meet ``condition``, in order, a batch at a time.

    The statement that uses the ids repeats the condition: a row may have changed meanwhile.
    """
    last = 0
    while ids := _next_ids(connection, table, condition, last):
        yield ids
        last = ids[-1]


def _next_ids(
    connection: Connection, table: Table, condition: ColumnElement[bool], last: int
) -> list[int]:
    chosen = select(table.c.id).where(condition, table.c.id > last).order_by(table.c.id)
    return list(connection.scalars(chosen.limit(BATCH_SIZE)))
