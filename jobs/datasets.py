"""The rows of access reviews: read a batch at a time, and those that cannot be used left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Row as SqlRow
from sqlalchemy import select

from jobs.batches import BATCH_SIZE
from jobs.comparing import Row
from jobs.items import Items
from jobs.schema import uar_rows

if TYPE_CHECKING:
    from cronrunner import JobContext

_PROGRESS_ROWS: Final = 10_000


class UnusableError(Exception):
    """A dataset that cannot be compared: the review fails, and is tried again."""


class Reader:
    """Reads datasets, and remembers which rows could not be used."""

    def __init__(self, ctx: JobContext, items: Items) -> None:
        self.ctx = ctx
        self._items = items
        self._broken: set[int] = set()
        self._mended: set[int] = set()

    def dataset(self, name: str) -> Dataset:
        """Return a dataset, not yet read."""
        return Dataset(self, name)

    def is_usable(self, row: SqlRow[Any]) -> bool:
        """Tell whether a row can be compared."""
        if not isinstance(row.attrs, dict):
            self._broken.add(row.id)
            return False
        if self._items.has_failed(f"row:{row.id}"):
            self._mended.add(row.id)
        return True

    def keep_errors(self) -> None:
        """Keep the rows that could not be used as failed items, and forget those that now can."""
        for row_id in sorted(self._broken):
            with self._items.attempt(f"row:{row_id}"):
                raise TypeError("expected attrs to be an object")
        for row_id in sorted(self._mended):
            with self._items.attempt(f"row:{row_id}"):
                pass


class Dataset:
    """The rows of one dataset by id, a batch in memory at a time."""

    def __init__(self, reader: Reader, name: str) -> None:
        self._reader = reader
        self._name = name
        #: How many rows were read so far.
        self.size = 0

    def __iter__(self) -> Iterator[Row]:
        ctx = self._reader.ctx
        for row in self._stored():
            self.size += 1
            if self.size > ctx.options["max_rows"]:
                raise UnusableError(f"expected at most {ctx.options['max_rows']} rows, found more")
            if self.size % _PROGRESS_ROWS == 0:
                ctx.log.info("uar.reading", rows=self.size)
            yield Row(row.row_key, row.attrs)

    def _stored(self) -> Iterator[SqlRow[Any]]:
        ctx, last = self._reader.ctx, 0
        columns = uar_rows.c
        while True:
            ctx.check()
            mine = select(uar_rows).where(columns.dataset == self._name, columns.id > last)
            batch = ctx.connection.execute(mine.order_by(columns.id).limit(BATCH_SIZE)).all()
            # MySQL takes names that differ in case for equal.
            yield from (
                row for row in batch if row.dataset == self._name and self._reader.is_usable(row)
            )
            if not batch:
                return
            last = batch[-1].id
